"""What is made before a training: base files, text banks, splits, priors, annotations."""

"""From pictures to plain results: the Inferencer, SAM-CP on any class, overlays."""

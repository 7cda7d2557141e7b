"""``tools/predict.py``: its options, its prompts, the files that it writes."""

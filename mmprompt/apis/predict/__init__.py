"""``tools/predict.py``: many prompts on one model, or SAM-CP on any classes; what it writes."""

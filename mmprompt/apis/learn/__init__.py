"""``tools/learn.py``: from a folder of images and masks to a learned prompt."""

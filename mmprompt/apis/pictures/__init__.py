"""``tools/pictures.py``: what finished runs have to show."""

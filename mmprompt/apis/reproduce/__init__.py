"""``tools/reproduce.py``: the papers' tables, cell by cell, paper beside measured."""

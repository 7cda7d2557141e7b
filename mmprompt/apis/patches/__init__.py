"""Patches of data sets: made, taken in from others, kept, counted and looked at."""

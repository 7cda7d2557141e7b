"""Streets: procedural street scenes with Cityscapes classes, folders and encodings."""

from mmprompt.datasets.streets.classes import CLASSES
from mmprompt.datasets.streets.conditions import CONDITIONS
from mmprompt.datasets.streets.writer import generate, generator_hash, sample

__all__ = ['CLASSES', 'CONDITIONS', 'generate', 'generator_hash', 'sample']

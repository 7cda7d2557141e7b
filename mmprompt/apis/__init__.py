"""What command lines and notebooks call."""

from mmprompt.apis.inference.inferencer import Inferencer

__all__ = ['Inferencer']

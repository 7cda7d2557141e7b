"""Learned prompts for frozen segmentation models, as OpenMMLab components."""
from mmprompt import datasets, evaluation, foundation, methods
from mmprompt.registry import publish

__version__ = '0.1.0'
__all__ = ['datasets', 'evaluation', 'foundation', 'methods', 'publish']

publish()

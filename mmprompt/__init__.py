"""Learned prompts for frozen segmentation models, as OpenMMLab components."""

from mmprompt._quiet import quiet

try:
    with quiet():
        from mmprompt import common, datasets, evaluation, foundation, methods
        from mmprompt.registry import publish
except Exception as error:  # torch, mmcv and numpy fail in many more ways than ImportError
    raise ImportError(
        f'mmprompt cannot be imported here: {type(error).__name__}: {error}\n'
        'To see what is wrong with this environment and the command that mends it, run '
        '`mmprompt-doctor` (or `python mmprompt_doctor.py` in a checkout of mmprompt).'
    ) from error

__version__ = '0.1.0'
__all__ = ['common', 'datasets', 'evaluation', 'foundation', 'methods', 'publish']

publish()

"""SPM: semantic-aware prompts between the stages of a frozen backbone.

Prompt-Matched Semantic Segmentation (`docs/spm.md`): `matcher` is its Figures 2 and 3, `stages`
finds where a backbone can be cut, `backbone` wraps one (Figure 1), `segmentor` adds the losses
(Eq. 5), `adapters` holds what the method is compared with on Vision Transformers.
"""

from mmprompt.methods.spm.adapters import VPT, AdaptFormer, LoRA
from mmprompt.methods.spm.backbone import SPMBackbone
from mmprompt.methods.spm.matcher import SPM, PyramidDilatedConv
from mmprompt.methods.spm.segmentor import SPMDetector, SPMSegmentor

__all__ = [
    'SPM',
    'VPT',
    'AdaptFormer',
    'LoRA',
    'PyramidDilatedConv',
    'SPMBackbone',
    'SPMDetector',
    'SPMSegmentor',
]

"""SSPrompt: learned spatial and semantic prompt embeddings for a frozen SEEM."""

from mmprompt.methods.ssprompt.head import SEEMPromptHead
from mmprompt.methods.ssprompt.losses import SSPromptMaskLoss, SSPromptSemanticLoss
from mmprompt.methods.ssprompt.prompts import DefaultPrompt, SemPrompt, SpaPrompt
from mmprompt.methods.ssprompt.sam import SSPromptSAM
from mmprompt.methods.ssprompt.sam_head import SAMPointDecoder, SAMPromptHead
from mmprompt.methods.ssprompt.segmentor import SSPromptSegmentor
from mmprompt.methods.ssprompt.visual import VSPL
from mmprompt.methods.ssprompt.words import LOCN, CoOp

__all__ = [
    'LOCN',
    'VSPL',
    'CoOp',
    'DefaultPrompt',
    'SEEMPromptHead',
    'SAMPointDecoder',
    'SAMPromptHead',
    'SSPromptMaskLoss',
    'SSPromptSAM',
    'SSPromptSegmentor',
    'SSPromptSemanticLoss',
    'SemPrompt',
    'SpaPrompt',
]

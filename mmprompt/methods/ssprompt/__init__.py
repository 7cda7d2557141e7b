"""SSPrompt: learned spatial and semantic prompt embeddings for a frozen SEEM."""

from mmprompt.methods.ssprompt.head import SEEMPromptHead
from mmprompt.methods.ssprompt.losses import SSPromptSemanticLoss
from mmprompt.methods.ssprompt.prompts import DefaultPrompt, SemPrompt, SpaPrompt
from mmprompt.methods.ssprompt.segmentor import SSPromptSegmentor

__all__ = [
    'DefaultPrompt',
    'SEEMPromptHead',
    'SSPromptSegmentor',
    'SSPromptSemanticLoss',
    'SemPrompt',
    'SpaPrompt',
]

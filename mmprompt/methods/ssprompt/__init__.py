"""SSPrompt: learned spatial and semantic prompt embeddings for a frozen SEEM."""
from mmprompt.methods.ssprompt.losses import SSPromptSemanticLoss
from mmprompt.methods.ssprompt.prompts import DefaultPrompt, SemPrompt, SpaPrompt

__all__ = ['DefaultPrompt', 'SSPromptSemanticLoss', 'SemPrompt', 'SpaPrompt']

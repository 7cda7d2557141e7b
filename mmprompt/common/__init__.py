"""What two callers need; nothing here knows a method."""

from mmprompt.common.checkpoint_hook import PromptCheckpointHook
from mmprompt.common.hooks import FrozenBaseHook, NonFiniteLossHook, PromptFileHook, StepSeedHook

__all__ = [
    'FrozenBaseHook',
    'NonFiniteLossHook',
    'PromptCheckpointHook',
    'PromptFileHook',
    'StepSeedHook',
]

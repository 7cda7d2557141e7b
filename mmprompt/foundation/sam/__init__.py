"""SAM: an image encoder, prompts as points and boxes, and masks. Weights are MobileSAM's."""

from mmprompt.foundation.sam.checkpoint import read_sam
from mmprompt.foundation.sam.image_encoder import SAMImageEncoder
from mmprompt.foundation.sam.mask_decoder import SAMMaskDecoder, SAMMasks
from mmprompt.foundation.sam.prompt_encoder import SAMPromptEncoder
from mmprompt.foundation.sam.sam import SAM, point_grid

__all__ = [
    'SAM',
    'SAMImageEncoder',
    'SAMMaskDecoder',
    'SAMMasks',
    'SAMPromptEncoder',
    'point_grid',
    'read_sam',
]

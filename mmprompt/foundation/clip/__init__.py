"""CLIP's text encoder, through a maintained library."""

from mmprompt.foundation.clip.text_encoder import encode_with_clip

__all__ = ['encode_with_clip']

"""CLIP through the library open_clip: class names and images."""

from mmprompt.foundation.clip.image_encoder import CLIPConvNeXt
from mmprompt.foundation.clip.loading import load_clip
from mmprompt.foundation.clip.text_encoder import encode_with_clip

__all__ = ['CLIPConvNeXt', 'encode_with_clip', 'load_clip']

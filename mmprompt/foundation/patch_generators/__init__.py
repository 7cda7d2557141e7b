"""What proposes patches: the SAM family, and Felzenszwalb's segments, which need no weights."""

from mmprompt.foundation.patch_generators.base import GENERATORS, PatchGenerator
from mmprompt.foundation.patch_generators.felzenszwalb import FelzenszwalbPatches
from mmprompt.foundation.patch_generators.sam import MobileSAMPatches, SAM2Patches, SAMPatches

__all__ = [
    'GENERATORS',
    'FelzenszwalbPatches',
    'MobileSAMPatches',
    'PatchGenerator',
    'SAM2Patches',
    'SAMPatches',
]

"""What every generator of patches has."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mmprompt.common.patches import PatchSet

#: Short names, as command lines take them, of registered generators.
GENERATORS = {
    'sam': 'SAMPatches',
    'sam2': 'SAM2Patches',
    'mobile-sam': 'MobileSAMPatches',
    'felzenszwalb': 'FelzenszwalbPatches',
}


class PatchGenerator(ABC):
    """Proposes patches of one image after the other.

    Register a subclass in `mmprompt.registry.MODELS`, and its name can be given to
    ``tools/generate_patches.py --generator``.
    """

    #: What a store says of its origin.
    name: str

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that decides which patches come out, of what JSON can say.

        Weights count by their content. What decides speed only is left out.

        Raises:
            UserError: the weights cannot be read.
        """

    @abstractmethod
    def __call__(self, image: np.ndarray) -> PatchSet:
        """Patches of RGB (H, W, 3) uint8."""

"""Reading SAM checkpoints: MobileSAM's public file, strictly, under our names.

The prompt encoder and the mask decoder bear SAM's names. Those of the image encoder become timm's.
"""

import os
import re
from collections.abc import Mapping

from torch import Tensor

from mmprompt.common.checkpoint import load_tensors
from mmprompt.common.errors import UserError

PARTS = ('image_encoder', 'prompt_encoder', 'mask_decoder')
ADDRESS = 'https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt'
#: The ImageNet classifier of TinyViT, which no mask depends on: 4 of the published file's 439
#: tensors. The other 435 are those of `SAM`, each by name.
CLASSIFIER = tuple(
    f'image_encoder.{part}.{name}' for part in ('norm_head', 'head') for name in ('weight', 'bias')
)
_STAGE = re.compile(r'^image_encoder\.layers\.(\d+)\.')


def read_sam(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors of a MobileSAM checkpoint by the names of `SAM`: all but those of `CLASSIFIER`.

    Raises:
        UserError: it is missing, damaged, or no MobileSAM.
    """
    try:
        tensors, _ = load_tensors(path)
    except UserError as error:
        raise UserError(f'{error} MobileSAM comes from {ADDRESS}.') from error
    found = {name.split('.')[0] for name in tensors}
    if found != set(PARTS):
        raise UserError(
            f'{path}: expected the tensors of a SAM, under {", ".join(PARTS)}, found '
            f'{", ".join(sorted(found)[:5])}. Give mobile_sam.pt from {ADDRESS}.'
        )
    return {to_ours(name): tensor for name, tensor in tensors.items() if name not in CLASSIFIER}


def to_ours(name: str) -> str:
    """A name of the public file -> the name in `SAM`."""
    stage = _STAGE.match(name)
    if name.startswith('image_encoder.patch_embed.seq.'):
        place, rest = name.removeprefix('image_encoder.patch_embed.seq.').split('.', 1)
        name = f'image_encoder.body.patch_embed.conv{int(place) // 2 + 1}.{rest}'
    elif stage:
        number, rest = int(stage[1]), name[stage.end() :]
        # timm puts the step down at the start of the next stage.
        number += rest.startswith('downsample.')
        # The first stage holds convolutions only, in both.
        name = f'image_encoder.body.stages.{number}.{rest}'
    return re.sub(r'\.c\.(?=weight$)', '.conv.', name)


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one of `PARTS`, without its name."""
    prefix = f'{part}.'
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

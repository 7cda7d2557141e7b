"""Images and texts of one CLIP: what `open_vocabulary` asks of the backbone and of the texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mmprompt.common.errors import UserError

_LAST = 3  # of the four maps, that from which CLIP makes its embedding


def check_clip_pair(backbone: nn.Module, config: Mapping, text: Any) -> None:
    """See that a backbone is an image encoder of CLIP, and that the texts are of the same CLIP.

    Args:
        backbone: as built.
        config: what it was built of.
        text: of `read_text`; what made the rows of a file cannot be known here.

    Raises:
        UserError: it is none, its last map is not returned last, or the CLIPs are two.
    """
    if not (hasattr(backbone, 'embed') and hasattr(backbone, 'logit_scale')):
        raise UserError(
            f'model.open_vocabulary: expected a backbone that is an image encoder of CLIP, '
            f'found {type(backbone).__name__}. Take mmprompt.CLIPConvNeXt as '
            f'model.backbone, or leave model.open_vocabulary=None.'
        )
    indices = tuple(getattr(backbone, 'out_indices', (_LAST,)))
    if _LAST not in indices:
        raise UserError(
            f'model.open_vocabulary: expected the last map of CLIP, number {_LAST}, among '
            f'model.backbone.out_indices, found {indices}. Add it, and its channels to '
            f'model.neck.in_channels.'
        )
    if not isinstance(text, Mapping) or 'clip' not in text:
        return
    images, texts = config.get('model'), text['clip']
    if texts != images:
        raise _two('clip', texts, 'model', images)
    if config.get('init_cfg'):  # whose file has no texts, so theirs is another
        return
    weights, others = config.get('pretrained'), text.get('pretrained')
    if not _same(weights, others):
        raise _two('pretrained', others, 'pretrained', weights)


def _same(one: Any, other: Any) -> bool:
    """Whether two tags, or two paths, mean the same weights."""
    if None in (one, other) or str(one) == str(other):
        return one == other or str(one) == str(other)
    paths = [Path(each).expanduser() for each in (one, other)]
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def _two(key: str, texts: Any, other: str, images: Any) -> UserError:
    return UserError(
        f'model.open_vocabulary: expected texts and images of one CLIP, found '
        f'model.head.text.{key}={texts!r} and model.backbone.{other}={images!r}. Give both the '
        f'same.'
    )

"""The public SEEM checkpoints, and what can go wrong between the download and the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.reference_keys import LANGUAGE, PIXEL, PREDICTOR, is_reference

ADDRESS = 'https://huggingface.co/xdecoder/SEEM/resolve/main/'


@dataclass(frozen=True)
class PublicFile:
    """One published checkpoint.

    Attributes:
        name: of the file.
        variant: of the backbone.
        size: bytes of the file.
        sha256: of the file, hex.
        supported: whether mmprompt has its backbone and pixel decoder.
    """

    name: str
    variant: str
    size: int
    sha256: str
    supported: bool = True

    @property
    def address(self) -> str:
        """Where it can be downloaded."""
        return ADDRESS + self.name


# Sizes and sums are those of the Git LFS pointers at huggingface.co/xdecoder/SEEM (commits b517f17,
# 1611477, cf130f3 and f807b9e). Files named seem_focalt_v1.pt and seem_focall_v1.pt were on Azure
# in spring 2023; they need not be equal to these. No SEEM with a DaViT was ever published.
PUBLIC_FILES = (
    PublicFile(
        'seem_focalt_v0.pt',
        'Focal-T',
        658_792_514,
        '871a24064bc27136432f04f510fb0463ce8d2b3e0d4bd3a358b80d908f5c447f',
    ),
    PublicFile(
        'seem_focall_v0.pt',
        'Focal-L',
        1_365_136_278,
        'b907a76b74fe047507d18c1a3fda7e89c75133f97af4457767db78440ebb1761',
    ),
    PublicFile(
        'seem_focalt_v1.pt',
        'Focal-T',
        658_792_514,
        '675e86a033a3cc4bc6fa906e4c7e1878dd11728ef8858a457a4a45cf3f2987b2',
    ),
    PublicFile(
        'seem_focall_v1.pt',
        'Focal-L',
        1_365_136_278,
        '06cad58bde442ce4f2b3ce00e3a218791dfb060a2d7f2d709ff509669c28a705',
    ),
    PublicFile(
        'seem_samvitb_v1.pt',
        'SAM-ViT-B',
        862_528_935,
        'fd6f9eb3d73917d0465dc35c4bc9f2f1019dccc0e741d31ced42f5333cbb35da',
        supported=False,
    ),
    PublicFile(
        'seem_samvitl_v1.pt',
        'SAM-ViT-L',
        1_762_490_751,
        '5ef8c573b54ea820a2fe6d5b81962def9f5bf693e120b8a4778b2848d604f75c',
        supported=False,
    ),
)
#: What tells one variant's backbone from another's in the constructor dicts.
VARIANTS = {
    'Focal-T': dict(embed_dim=96, depths=[2, 2, 6, 2], block='dw'),
    'Focal-L': dict(embed_dim=192, depths=[2, 2, 18, 2], block='postnorm'),
    'DaViT-d3': dict(embed_dims=[128, 256, 512, 1024], depths=[1, 1, 9, 1]),
    'DaViT-d5': dict(embed_dims=[256, 512, 1024, 2048], depths=[1, 1, 9, 1]),
}
#: Part -> its published width and layers, equal in all public files, and the public names of one.
LAYERS = {
    'pixel_decoder': (('dim', 512), 6, (PIXEL + 'transformer.encoder.layers.{}.',)),
    'decoder': (
        ('dim', 512),
        9,
        tuple(
            f'{PREDICTOR}transformer_{kind}_layers.{{}}.'
            for kind in ('cross_attention', 'self_attention', 'ffn')
        ),
    ),
    'text_encoder': (('width', 512), 12, (LANGUAGE + 'lang_encoder.resblocks.{}.',)),
}
READABLE = 'mmprompt reads SEEM with Focal-T, Focal-L or DaViT; published are ' + ', '.join(
    f.name for f in PUBLIC_FILES if f.supported
)


def find_public(path: str | os.PathLike) -> PublicFile | None:
    """The public file of that name, whatever the suffix."""
    return next((f for f in PUBLIC_FILES if Path(f.name).stem == Path(path).stem), None)


def variant_of(config: Mapping) -> str:
    """Name of the variant that constructor dicts of `SEEM` describe; 'custom' for another one."""
    backbone = config['backbone']
    for name, signs in VARIANTS.items():
        found = {key: backbone.get(key) for key in signs}
        if {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()} == signs:
            return name
    return 'custom'


def where_to_get(path: str | os.PathLike) -> str:
    """Sentence about the public file of that name; empty if there is none."""
    public = find_public(path)
    if public is None:
        return ''
    if Path(path).suffix == '.safetensors':
        return (
            f' Write it with: python tools/convert_seem.py {public.name} --out {path}, from '
            f'{public.address} ({public.size:,} bytes).'
        )
    return f' Download it from {public.address} ({public.size:,} bytes).'


def size_hint(path: Path) -> str:
    """Sentence about a file whose size is far off that of the public file of its name, or ''."""
    public = find_public(path)
    if public is None or path.suffix == '.safetensors':
        return ''
    size = path.stat().st_size
    if abs(size - public.size) < 0.01 * public.size:
        return ''
    what = 'the download was cut' if size < public.size else 'it is another file'
    return (
        f' The public {public.name} has {public.size:,} bytes, this file {size:,}: {what}, or it '
        f'comes from somewhere else. Download {public.address} again.'
    )


def refuse_no_weights(path: Path) -> None:
    """Recognise what a failed download leaves behind, by the first bytes.

    Raises:
        UserError: an empty file, a Git LFS pointer, a web page, or safetensors under another name.
    """
    with open(path, 'rb') as stream:
        start = stream.read(512)
    text = start.decode('latin1').lstrip('\xef\xbb\xbf \t\r\n').lower()
    again = where_to_get(path) or ' Download the file itself.'
    found = None
    if not start:
        found = 'an empty file'
    elif text.startswith('version https://git-lfs'):
        found = 'a Git LFS pointer, the few lines that stand for a large file'
        again += ' In a clone, `git lfs pull` fetches it.'
    elif text.startswith(('<!doctype', '<html', '<?xml', '<error')):
        found = 'a web page: the server answered with a message in place of the file'
    elif path.suffix != '.safetensors' and start[8:10] == b'{"':
        found, again = 'a safetensors file', ' Rename it to *.safetensors.'
    if found:
        raise UserError(f'{path}: expected weights, found {found}.{again}')


def check_flat(content: Mapping, source: str) -> None:
    """Recognise a state dict that is wrapped, prefixed, or holds more than tensors.

    Args:
        content: what a torch checkpoint holds, or what a user gave.
        source: what to call it in errors.

    Raises:
        UserError: with the lines that mend it.
    """
    for key, value in content.items():
        if not isinstance(key, str):
            raise UserError(f'{source}: expected tensors by name, found the key {key!r}.')
        if isinstance(value, Mapping) and any('sem_seg_head.' in str(k) for k in value):
            raise UserError(
                f'{source}: expected a flat state dict, found one wrapped in {key!r} (keys: '
                f'{_first(content)}). Give the inner dict: SEEM.from_checkpoint(torch.load(FILE, '
                f'weights_only=True)[{key!r}]).'
            )
        if isinstance(value, Mapping) and any(str(k).startswith('seem.') for k in value):
            raise UserError(
                f'{source}: expected weights of a SEEM, found a training checkpoint of '
                f'SEEMPretrainer. Give the base file (safetensors) that ExportBaseHook wrote in '
                f'the same run.'
            )
    named = next((key for key in content if '.sem_seg_head.' in key), None)
    if named is not None and not is_reference(content):
        prefix = named[: named.index('sem_seg_head.')]
        raise UserError(
            f'{source}: expected the names of a public SEEM, such as {named[len(prefix) :]!r}, '
            f'found every name behind the prefix {prefix!r}, as a wrapped model saves them. Remove '
            f'it: {{k.removeprefix({prefix!r}): v for k, v in state.items()}}.'
        )
    strange = [f'{k} ({type(v).__name__})' for k, v in content.items() if not isinstance(v, Tensor)]
    if strange and is_reference(content):
        raise UserError(
            f'{source}: expected tensors alone, found {len(strange)} other values: '
            f'{", ".join(strange[:5])}. Remove them from the state dict.'
        )


def check_kind(keys, source: str) -> None:
    """Recognise relatives of SEEM by their names.

    Args:
        keys: public names.
        source: what to call them in errors.

    Raises:
        UserError: an X-Decoder, or a SEEM with a SAM ViT.
    """
    caption = next((k for k in keys if k.startswith(PREDICTOR + 'caping_embed')), None)
    if caption and not any(k.startswith(PREDICTOR + 'mask_sptial_embed') for k in keys):
        raise UserError(
            f'{source}: expected a SEEM, found an X-Decoder: it has {caption!r} and lacks '
            f"'{PREDICTOR}mask_sptial_embed.0'. {READABLE}."
        )
    vit = [k for k in keys if k.startswith('backbone.') and '.rel_pos_' in k]
    deform = [k for k in keys if k.startswith(PIXEL) and '.sampling_offsets.' in k]
    if vit or deform:
        raise UserError(
            f'{source}: expected a SEEM with a FocalNet or a DaViT, found one with a SAM ViT and '
            f'its deformable pixel decoder ({(vit or deform)[0]!r}), which mmprompt does not have. '
            f'{READABLE}.'
        )


def check_whole(config: Mapping, source: str) -> None:
    """Refuse a public state dict that lost its last layers.

    Layers are counted by the names, so a dict without any tensor of the last ones describes a
    smaller model that loads without a word. A part that is as wide as a published one must have at
    least as many layers; parts of other widths somebody trained himself.

    Args:
        config: constructor dicts of `SEEM`, read from the shapes.
        source: what to call the state dict in errors.

    Raises:
        UserError: the missing layers, in public names.
    """
    wrong, missing = _lost_blocks(config['backbone'])
    for part, ((key, width), layers, names) in LAYERS.items():
        found = config.get(part, {})
        if found.get(key) == width and found['num_layers'] < layers:
            wrong.append(f'{found["num_layers"]} of the {layers} layers of the {part}')
            missing += [n.format(i) for i in range(found['num_layers'], layers) for n in names]
    if wrong:
        shown = ', '.join(repr(name + '*') for name in missing[:6])
        more = f' and {len(missing) - 6} more' if len(missing) > 6 else ''
        raise UserError(
            f'{source}: expected every layer of a published SEEM, found {"; ".join(wrong)}. '
            f'Missing are {shown}{more}. Give the whole state dict. One that was trained with '
            f'fewer layers must come as a base file, see "Public checkpoints" in docs/seem.md.'
        )


def _lost_blocks(backbone: Mapping) -> tuple[list[str], list[str]]:
    """What is wrong with a backbone of a published width, and the public names of lost blocks."""
    variant = next((n for n, v in VARIANTS.items() if _start(v) == _start(backbone)), None)
    if variant is None:
        return [], []
    davit = 'embed_dims' in backbone
    layer = 'backbone.blocks.{}.{}.' if davit else 'backbone.layers.{}.blocks.{}.'
    found, wanted = list(backbone['depths']), VARIANTS[variant]['depths']
    lost = [
        layer.format(stage, block)
        for stage, depth in enumerate(wanted)
        for block in range(found[stage] if stage < len(found) else 0, depth)
    ]
    wrong = [f'backbone depths {found} where {variant} has {wanted}'] if lost else []
    if backbone.get('block') == 'postnorm' and VARIANTS[variant]['block'] == 'dw':
        wrong.append(f'a backbone without the depthwise convolutions of {variant}')
        lost += ['backbone.layers.0.blocks.0.dw1.', 'backbone.layers.0.blocks.0.dw2.']
    return wrong, lost


def _start(backbone: Mapping) -> tuple[str, int]:
    """Kind and first width, which no loss of later stages changes."""
    if 'embed_dims' in backbone:
        return 'DaViT', backbone['embed_dims'][0]
    return 'FocalNet', backbone['embed_dim']


def _first(content: Mapping) -> str:
    return ', '.join(repr(key) for key in list(content)[:5])

"""CLIPs of the library open_clip: architectures by name or numbers, weights by tag or from files.

Weights always come whole: every tensor of the file has its place, and every place its tensor.
"""

import copy
import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmprompt.common.errors import UserError

HUB = 'hf-hub:'
ADDRESS = 'https://huggingface.co/'
#: What open_clip looks for in a repository of huggingface.co.
FILES = 'open_clip_model.safetensors or open_clip_pytorch_model.bin'


def load_clip(
    model: str | Mapping, pretrained: str | os.PathLike | None = None, random: bool = False
) -> nn.Module:
    """A CLIP in evaluation mode, without gradients.

    Args:
        model: a name of open_clip (``convnext_large_d_320``), ``hf-hub:OWNER/NAME``, or a mapping
            with an architecture of one's own, as in open_clip's model files: ``embed_dim``,
            ``vision_cfg``, ``text_cfg``.
        pretrained: a tag of open_clip (``laion2b_s29b_b131k_ft_soup``), fetched once into the
            library's cache, or a file (safetensors, .bin, .pt).
        random: random weights are meant, the same at each call. Of a mapping without `pretrained`
            they always are.

    Raises:
        UserError: there is no such model, or its weights cannot be had or do not fit.
    """
    config, file = clip_architecture(model, pretrained), clip_weights(model, pretrained, random)
    # Nobody else's random numbers change, and random weights are the same each time.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = build_clip(config)
    if file is not None:
        state = read_clip(file, model)
        check_clip(state, clip.state_dict(), file)
        clip.load_state_dict(state)
    return clip.requires_grad_(False).eval()


def clip_architecture(model: str | Mapping, pretrained: str | os.PathLike | None = None) -> dict:
    """The numbers of a model, with the activation that the weights of a tag were trained with.

    Raises:
        UserError: no model of that name, or one whose texts another library encodes.
    """
    clip = open_clip()
    if isinstance(model, Mapping):
        config = copy.deepcopy(model.to_dict() if hasattr(model, 'to_dict') else dict(model))
    elif str(model).startswith(HUB):
        config = _fetch(clip.get_model_config, model, repository=model[len(HUB) :])
    else:
        config = clip.get_model_config(_name(model))
    if config is None:
        close = difflib.get_close_matches(_name(model), clip.list_models(), n=3) or ['ViT-B-32']
        raise UserError(
            f'CLIP {model!r}: expected a name that open_clip knows, such as {", ".join(close)}, '
            f'{HUB}OWNER/NAME, or a mapping with embed_dim, vision_cfg and text_cfg, found none of '
            f'them. Correct the name.'
        )
    lacking = [key for key in ('embed_dim', 'vision_cfg', 'text_cfg') if key not in config]
    if lacking:
        raise UserError(
            f'CLIP {model!r}: expected an architecture in the words of open_clip, found one '
            f'without {", ".join(lacking)}. Add what is missing.'
        )
    foreign = [key for key in ('hf_model_name', 'hf_tokenizer_name') if key in config['text_cfg']]
    if foreign or 'multimodal_cfg' in config:
        raise UserError(
            f'CLIP {model!r}: expected one whose texts open_clip encodes by itself, found one that '
            f'asks for {foreign or "multimodal_cfg"}. Take another, such as convnext_large_d_320.'
        )
    tag = _tag(model, pretrained)
    if tag:
        config['quick_gelu'] = tag.get('quick_gelu', False)
    return config


def build_clip(config: Mapping) -> nn.Module:
    """The model of an architecture, with random weights; reads no file."""
    clip = open_clip()
    config = copy.deepcopy(dict(config))
    config['vision_cfg']['timm_model_pretrained'] = False
    kind = clip.CustomTextCLIP if config.pop('custom_text', False) else clip.CLIP
    return kind(**config)


def clip_weights(
    model: str | Mapping, pretrained: str | os.PathLike | None = None, random: bool = False
) -> Path | None:
    """The file with the weights, fetched if need be; None for random ones.

    Raises:
        UserError: there is none, none can be fetched, or nothing says that random ones are meant.
    """
    if pretrained is None:
        if isinstance(model, str) and model.startswith(HUB):
            from open_clip.pretrained import download_pretrained_from_hf as fetch

            return Path(_fetch(fetch, model[len(HUB) :], repository=model[len(HUB) :]))
        if random or isinstance(model, Mapping):
            return None
        raise UserError(
            f'CLIP {model!r}: expected its weights as pretrained, found none. Give one of the tags '
            f'{", ".join(_tags(model)) or "(there are none)"}, or a file.'
        )
    path, tag = Path(pretrained).expanduser(), _tag(model, pretrained)
    if path.is_file():
        return path
    if tag is None:
        raise UserError(
            f'{pretrained}: expected a file, or a tag of the weights of {model!r} '
            f'({", ".join(_tags(model)) or "it has none"}), found neither. Correct pretrained.'
        )
    from open_clip.pretrained import download_pretrained

    repository, name = os.path.split(tag.get('hf_hub') or tag['url'])
    return Path(_fetch(download_pretrained, tag, repository=repository, file=name))


def read_clip(file: str | os.PathLike, model: str | Mapping = '') -> dict[str, Tensor]:
    """The tensors of a CLIP's file, by open_clip's names; no code in it is run.

    Raises:
        UserError: it cannot be read.
    """
    open_clip()
    from open_clip.factory import load_state_dict

    try:
        state = load_state_dict(str(file), weights_only=True)
        return {str(name): tensor for name, tensor in state.items() if tensor is not None}
    except Exception as error:  # each format has errors of its own
        first = next(iter(str(error).strip().splitlines()), '')
        raise UserError(
            f'{file}: expected the weights of a CLIP as safetensors, .bin or .pt, found none that '
            f'can be read ({type(error).__name__}: {first}). Fetch the file of {model!r} again.'
        ) from error


def check_clip(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: str | os.PathLike
) -> None:
    """See that a file has the tensors of a model and no others, of the same shapes.

    Raises:
        UserError: naming the first that differ.
    """
    missing = [name for name in expected if name not in state]
    strange = [name for name in state if name not in expected]
    wrong = [
        f'{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}'
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if missing or strange or wrong:
        told = (('missing', missing), ('too much', strange), ('of another shape', wrong))
        found = '; '.join(
            f'{len(names)} {what}: {", ".join(names[:3])}' for what, names in told if names
        )
        raise UserError(
            f'{file}: expected the {len(expected)} tensors of this CLIP, found {found}. Give the '
            f'weights of the model that the config names, or the name of the model of these.'
        )


def open_clip():
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import open_clip as library
    except ImportError as error:
        raise UserError(
            'CLIP needs the library open_clip, which is not installed. Install it with `pip '
            'install open_clip_torch`, or give model.head.text a file of embeddings.'
        ) from error
    return library


def _name(model: str) -> str:
    return str(model).replace('/', '-')


def _tags(model: str | Mapping) -> list[str]:
    known = isinstance(model, str) and not model.startswith(HUB)
    return open_clip().list_pretrained_tags_by_model(_name(model)) if known else []


def _tag(model: str | Mapping, pretrained: str | os.PathLike | None) -> dict | None:
    """What open_clip knows of a tag; None for what is no tag of this model."""
    if not isinstance(pretrained, str) or not _tags(model):
        return None
    from open_clip.pretrained import get_pretrained_cfg

    return get_pretrained_cfg(_name(model), pretrained) or None


def _fetch(function, *arguments, repository: str, file: str = ''):
    """Call a function of open_clip that may need the network."""
    try:
        return function(*arguments)
    except Exception as error:  # of the library, of its hub, of the connection
        first = next(iter(str(error).strip().splitlines()), '').split('. ')[0]
        address = repository if '://' in repository else f'{ADDRESS}{repository}'
        raise UserError(
            f'{address}: expected to fetch the CLIP from there, found that it cannot be had '
            f'({type(error).__name__}: {first}). Where there is a network, download '
            f'{file or FILES} from that address, and give the path of that file: pretrained=FILE '
            f'(model.backbone.pretrained, model.head.text.pretrained).'
        ) from error

"""One name for each method: SSPrompt, its ablations and everything that it is compared with.

They share base, data, loop, loss and metric. ``model.method`` replaces both prompts of a config:

    python tools/train.py configs/ssprompt/nano_streets-fog_16shot.py \
        --cfg-options model.method=coop
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem.templates import BARE_TEMPLATES

_SPA, _SEM = dict(type='SpaPrompt'), dict(type='SemPrompt')
_FIXED = dict(weight='fixed')
#: What each method learns; what it does not name stays the frozen model's own.
METHODS: dict[str, dict[str, Any]] = {
    'zero-shot': {},
    'zero-shot-bare': dict(templates=BARE_TEMPLATES),  # the class name alone
    'zero-shot-grid': dict(spatial=dict(type='DefaultPrompt', source='grid')),
    'ssprompt': dict(spatial=_SPA, semantic=_SEM),
    'spaprompt': dict(spatial=_SPA),
    'semprompt': dict(semantic=_SEM),
    'ssprompt-embedding-only': dict(spatial=_SPA | _FIXED, semantic=_SEM | _FIXED),
    'spaprompt-embedding-only': dict(spatial=_SPA | _FIXED),
    'semprompt-embedding-only': dict(semantic=_SEM | _FIXED),
    'coop': dict(semantic=dict(type='CoOp')),
    'coop-m4': dict(semantic=dict(type='CoOp', num_tokens=4, init='a photo of a')),
    'coop-csc': dict(semantic=dict(type='CoOp', class_specific=True)),
    'locn': dict(semantic=dict(type='LOCN')),
    'vspl': dict(spatial=dict(type='VSPL')),
    'head': dict(tune='head'),
    # No row stands in for a query: the decoder's own are trained.
    'full': dict(tune='full', spatial=dict(type='DefaultPrompt', num_prompts=0, source='query')),
}


def plain_type(config: Mapping) -> str:
    """The class that a config names, without scope."""
    kind = config.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def choose(method: str, model: Mapping) -> dict:
    """The keys of an `SSPromptSegmentor` that a method changes, with their new values.

    A prompt that the config already has keeps its arguments (its source, its kind of weight); one
    of another type takes over the number of points alone. Without a spatial prompt the frozen rows
    stand at the input that the config names.

    Args:
        method: a key of `METHODS`.
        model: `decode_head`, `templates` and `feature_cache` of the segmentor; not changed.

    Raises:
        UserError: there is no such method.
    """
    if method not in METHODS:
        raise UserError(
            f'model.method: expected one of {", ".join(METHODS)}, found {method!r}. Correct it.'
        )
    chosen, head = METHODS[method], dict(model['decode_head'])
    configured = head.get('spatial_prompt') or {}
    place = {k: configured[k] for k in ('source', 'num_prompts') if k in configured}
    spatial = chosen.get('spatial', dict(type='DefaultPrompt'))
    if plain_type(spatial) not in ('DefaultPrompt', plain_type(configured)):
        place.pop('source', None)
    head['spatial_prompt'] = _merged(configured, {**place, **spatial})
    semantic = chosen.get('semantic', dict(type='DefaultPrompt'))
    head['semantic_prompt'] = _merged(head.get('semantic_prompt') or {}, semantic)
    head['tune'] = chosen.get('tune', 'prompts')
    if method in ('vspl', 'zero-shot-grid'):
        head['decoder'] = {**head['decoder'], 'object_tokens': True}
    changed = dict(decode_head=head)
    if 'templates' in chosen:
        changed['templates'] = chosen['templates']
    if method == 'full':
        changed['feature_cache'] = None  # features change at each step
    return changed


def _merged(configured: Mapping, chosen: Mapping) -> dict:
    same = plain_type(configured) == plain_type(chosen)
    return {**configured, **chosen} if same else dict(chosen)


def closed_form(method: str, head: nn.Module) -> int | None:
    """How many parameters a method trains, in closed form; None for 'full'.

    Args:
        method: a key of `METHODS`.
        head: the `SEEMPromptHead`, of which only sizes are read.
    """
    spatial, classes = head.spatial_prompt, head.num_classes
    dim, text_dim = head.decoder.class_embed.shape
    rows = spatial.num_prompts * spatial.source.copies
    own_weight = 0 if method.endswith('embedding-only') else 1
    semantic = head.semantic_prompt
    tokens = getattr(semantic, 'num_tokens', 0)
    encoder = getattr(semantic, 'text_encoder', None)
    width = 0 if encoder is None else encoder.lang_proj.shape[0]
    mask_embed = getattr(head.decoder, 'mask_embed', None)  # SAM has none
    mask_dim = mask_embed[-1].out_features if mask_embed else 0
    base = method.removesuffix('-embedding-only')
    return {
        'ssprompt': rows * (dim + own_weight) + classes * (text_dim + own_weight),
        'spaprompt': rows * (dim + own_weight),
        'semprompt': classes * (text_dim + own_weight),
        'coop': tokens * width,
        'coop-m4': tokens * width,
        'coop-csc': classes * tokens * width,
        'locn': classes * width,
        'vspl': 2 * rows,
        # class_embed, three linear maps, and the gain and bias of a norm
        'head': dim * text_dim + 2 * (dim + 1) * dim + (dim + 1) * mask_dim + 2 * dim,
        'full': None,
    }.get(base, 0)

"""Comparing the config of a model with the config that its weights were trained under.

Some constructor arguments leave no trace in names and shapes: attention heads, groups of a norm,
dilations. Weights then load and give other features without a word.
"""

import inspect
import json
from collections.abc import Mapping

from torch import nn

from mmprompt.common.errors import UserError

PARTS = ('backbone', 'pixel_decoder', 'decoder', 'text_encoder')
# What changes no output of a frozen model in eval mode: starting values, training alone, memory.
# object_tokens is a choice of the prompt's config, not of the base.
IGNORED = {
    'init_cfg',
    'pretrained',
    'logit_scale',
    'layer_scale',
    'drop_path_rate',
    'object_tokens',
    'norm_eval',
    'frozen_stages',
    'with_cp',
    'requires_grad',
}


def architecture(config: Mapping, module_type: type[nn.Module]) -> dict:
    """Plain values of a constructor dict, the defaults of `module_type` filled in.

    Args:
        config: the dict, with ``type``.
        module_type: the class that it builds.
    """
    kind = config.get('type', module_type)
    kind = kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]
    given = {**_defaults(module_type), **config, 'type': kind}
    return json.loads(json.dumps(_settled(given), default=str))


def _defaults(module_type: type) -> dict:
    """Defaults of the constructor; behind ``**kwargs`` stand those of the parent class."""
    defaults: dict = {}
    for owner in module_type.__mro__:
        if '__init__' not in vars(owner):
            continue
        parameters = inspect.signature(owner.__init__).parameters.values()
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                defaults.setdefault(parameter.name, parameter.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return defaults


def _settled(value):
    if isinstance(value, Mapping):
        return {str(k): _settled(v) for k, v in value.items() if k not in IGNORED}
    if isinstance(value, (list, tuple)):
        return [_settled(v) for v in value]
    return value


def check_architecture(
    own: Mapping[str, Mapping],
    modules: Mapping[str, nn.Module],
    trained: Mapping[str, Mapping],
    source: str,
    prefixes: Mapping[str, str] | None = None,
) -> None:
    """Compare the constructor dicts of a model with those of its weights, defaults filled in.

    Args:
        own: dicts of the model by the names in `PARTS`.
        modules: what they built.
        trained: dicts that the weights were trained under.
        source: what to call the weights in errors.
        prefixes: where a part stands in the config, such as 'decode_head.'.

    A part that either side lacks is not compared.

    Raises:
        UserError: naming the first key that differs and both values.
    """
    for part in PARTS:
        if not trained.get(part) or not own.get(part):
            continue
        kind = type(modules[part])
        wanted, found = architecture(trained[part], kind), architecture(own[part], kind)
        # Of another class than ours, arguments in one dict alone have a default nobody knows here.
        for key in sorted(wanted.keys() & found.keys(), key=lambda name: name != 'type'):
            if wanted[key] != found[key]:
                place = (prefixes or {}).get(part, '') + part
                raise UserError(
                    f'{source}: expected {part}.{key} {_shown(wanted[key])}, with which it was '
                    f'trained, found {_shown(found[key])} in the config. Correct {place}.{key}.'
                )


def _shown(value) -> str:
    """Short enough for a sentence: `token_ids` holds thousands."""
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:80]}…'

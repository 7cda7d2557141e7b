"""Child registries of mmprompt and `publish`, which makes every entry findable from any scope.

A child registry alone is not enough: a look-up climbs from a registry to its parents and never to a
sibling, so a config with default scope ``mmseg`` would not find ``SSPromptSegmentor``. `publish`
therefore also registers each entry in the mmengine root registry, under its plain name.
"""

from mmengine import registry as root
from mmengine.registry import Registry


def _child(name: str, parent: Registry) -> Registry:
    return Registry(name, parent=parent, scope='mmprompt', locations=['mmprompt'])


DATASETS = _child('dataset', root.DATASETS)
DATA_SAMPLERS = _child('data sampler', root.DATA_SAMPLERS)
HOOKS = _child('hook', root.HOOKS)
LOOPS = _child('loop', root.LOOPS)
METRICS = _child('metric', root.METRICS)
MODELS = _child('model', root.MODELS)
TASK_UTILS = _child('task util', root.TASK_UTILS)
TRANSFORMS = _child('transform', root.TRANSFORMS)
VISUALIZERS = _child('visualizer', root.VISUALIZERS)

CHILDREN = (
    *(DATASETS, DATA_SAMPLERS, HOOKS, LOOPS, METRICS),
    *(MODELS, TASK_UTILS, TRANSFORMS, VISUALIZERS),
)

# Nothing of ours lives in these. They exist because mmengine warns at every look-up in a scope
# without a registry of that kind.
_SILENT = tuple(
    _child(parent.name, parent)
    for parent in (
        root.EVALUATOR,
        root.LOG_PROCESSORS,
        root.MODEL_WRAPPERS,
        root.OPTIMIZERS,
        root.OPTIM_WRAPPERS,
        root.OPTIM_WRAPPER_CONSTRUCTORS,
        root.PARAM_SCHEDULERS,
        root.RUNNERS,
        root.VISBACKENDS,
        root.WEIGHT_INITIALIZERS,
    )
)


def publish() -> None:
    """Register every entry of every child registry in its mmengine parent as well.

    Calling it again is harmless.

    Raises:
        KeyError: if another package already owns one of the names in the root registry.
    """
    for child in CHILDREN:
        for name, component in child.module_dict.items():
            owner = child.parent.module_dict.get(name)
            if owner is component:
                continue
            if owner is not None:
                raise KeyError(
                    f'{name!r} of mmprompt cannot be published: the root registry '
                    f'{child.parent.name!r} already holds {owner.__module__}.{owner.__name__} '
                    f'under that name. Import only one of the two packages.'
                )
            child.parent.register_module(name=name, module=component)

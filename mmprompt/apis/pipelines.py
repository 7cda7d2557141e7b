"""Pipelines of configs, as lists of steps."""

from collections.abc import Mapping, Sequence

#: Steps that load what an image to predict has, too.
IMAGE, PATCHES = 'LoadImage', 'LoadPatches'
#: Steps that make truth of truth that was loaded.
OF_TRUTH = ('PanopticFromLabels',)


def steps_of(loader: Mapping | None) -> list[dict]:
    """The pipeline of a data loader's config, whatever wraps its data set; empty without one.

    Of several data sets in one it is that of the first.
    """
    dataset = (loader or {}).get('dataset')
    while isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            return list(dataset['pipeline'])
        dataset = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
    return []


def step_name(step: Mapping) -> str:
    """The type of a step without its scope."""
    kind = step.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def without_truth(
    steps: Sequence[Mapping], keep: Sequence[str] = (IMAGE, PATCHES)
) -> list[Mapping]:
    """The steps of a test pipeline for images whose truth nobody knows.

    Args:
        steps: of the config.
        keep: how the names of those begin that load something and stay.
    """
    kept = []
    for step in steps:
        name = step_name(step)
        loads = name.startswith('Load') and not name.startswith(tuple(keep))
        if not loads and name not in OF_TRUTH:
            kept.append(step)
    return kept

"""Which classes are counted one by one, by their names."""

from collections.abc import Mapping, Sequence

from mmprompt.common.errors import UserError
from mmprompt.common.plain_names import plain_name, plain_names
from mmprompt.common.text_bank import Names
from mmprompt.datasets.coco_classes import COCO_THINGS

#: Names of countable classes in COCO (80), Cityscapes, CamVid and Mapillary.
THINGS = frozenset(
    (*COCO_THINGS, 'rider', 'pedestrian', 'bicyclist', 'motorcyclist', 'caravan', 'trailer')
)
#: COCO counts them; Cityscapes, and so every list with a road, does not.
NOT_ON_STREETS = frozenset({'traffic light', 'stop sign', 'bench'})


def thing_indices(
    classes: Mapping[str, Names],
    things: Sequence[str] | None = None,
    learned: Mapping[str, Sequence[str] | None] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Indices of countable classes in each class list; capital letters and hyphens do not matter.

    Args:
        classes: class lists by name; a class with several names is a list of them.
        things: their names; None takes those of `learned`, and where it has none `THINGS`, in lists
            with a road without `NOT_ON_STREETS`.
        learned: names by list, as prompt files keep them.

    Raises:
        UserError: a name is in none of the lists.
    """
    plain = {key: [plain_names(each) for each in names] for key, names in classes.items()}
    if things is not None:
        known = set().union(*(each for names in plain.values() for each in names))
        unknown = [name for name in things if plain_name(name) not in known]
        if unknown:
            shown = {_shown(each) for names in classes.values() for each in names}
            raise UserError(
                f'things: expected names of classes, found {unknown[0]!r}. The classes are '
                f'{", ".join(sorted(shown))}.'
            )
    chosen = {}
    for key, names in plain.items():
        road = any('road' in each for each in names)
        wanted = THINGS - NOT_ON_STREETS if road else THINGS
        if (learned or {}).get(key) is not None:
            wanted = learned[key]
        wanted = plain_names(list(wanted if things is None else things))
        chosen[key] = tuple(i for i, each in enumerate(names) if each & wanted)
    return chosen


def _shown(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else f'{names[0]} ({", ".join(names[1:])})'

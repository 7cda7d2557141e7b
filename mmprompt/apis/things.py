"""Which classes are counted one by one, by their names."""

from collections.abc import Mapping, Sequence

from mmprompt.common.errors import UserError
from mmprompt.datasets.coco_classes import COCO_THINGS

#: Names of countable classes in COCO (80), Cityscapes, CamVid and Mapillary.
THINGS = frozenset(
    (*COCO_THINGS, 'rider', 'pedestrian', 'bicyclist', 'motorcyclist', 'caravan', 'trailer')
)
#: COCO counts them; Cityscapes, and so every list with a road, does not.
NOT_ON_STREETS = frozenset({'traffic light', 'stop sign', 'bench'})


def thing_indices(
    classes: Mapping[str, Sequence[str]],
    things: Sequence[str] | None = None,
    learned: Mapping[str, Sequence[str] | None] | None = None,
) -> dict[str, tuple[int, ...]]:
    """Indices of countable classes in each class list.

    Args:
        classes: class lists by name.
        things: their names; None takes those of `learned`, and where it has none `THINGS`, in lists
            with a road without `NOT_ON_STREETS`.
        learned: names by list, as prompt files keep them.

    Raises:
        UserError: a name is in none of the lists.
    """
    if things is not None:
        known = {name for names in classes.values() for name in names}
        unknown = [name for name in things if name not in known]
        if unknown:
            raise UserError(
                f'things: expected names of classes, found {unknown[0]!r}. The classes are '
                f'{", ".join(sorted(known))}.'
            )
    chosen = {}
    for key, names in classes.items():
        wanted = THINGS - NOT_ON_STREETS if 'road' in names else THINGS
        if (learned or {}).get(key) is not None:
            wanted = set(learned[key])
        wanted = wanted if things is None else set(things)
        chosen[key] = tuple(i for i, name in enumerate(names) if name in wanted)
    return chosen

"""Groups of classes whose means are reported apart, such as those that training has seen or not."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmprompt.common.errors import UserError

#: Means of some classes by the name of their group: ``dict(seen=[names], unseen=[names])``.
Groups = Mapping[str, Sequence[str]]
#: What the names of metrics end in already.
TAKEN = ('', 'th', 'st', 's', 'm', 'l', 'det')


def read_groups(groups: Groups | None, classes: Sequence[str], owner: str) -> dict[str, np.ndarray]:
    """Which classes are in which group, (C,) bool by name; a class may be in several or in none.

    Args:
        groups: names of classes by the name of the group; None for no groups.
        classes: the C names of the data set.
        owner: the metric, for errors.

    Raises:
        UserError: a group has a name that metrics have, or a class that the data set has not.
    """
    found = {}
    for group, names in (groups or {}).items():
        if group in TAKEN:
            raise UserError(
                f'{owner}.groups: expected another name for a group than {group!r}, in which the '
                f"names of metrics end already. Call it 'seen', 'unseen' or as you like."
            )
        unknown = [name for name in names if name not in classes]
        if isinstance(names, str) or unknown:
            raise UserError(
                f'{owner}.groups.{group}: expected a list of class names of the data set, found '
                f'{names if isinstance(names, str) else unknown}. Its {len(classes)} classes are '
                f'{", ".join(classes)}.'
            )
        found[group] = np.isin(list(classes), list(names))
    return found

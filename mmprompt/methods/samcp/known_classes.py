"""Which classes a training knew: told by all the names that were encoded, not by labels alone.

Data sets name the same thing differently ("sky-other-merged", "sky"), and what was learned depends
on a class through the embedding of its names only.
"""

from collections.abc import Iterable, Sequence

from mmprompt.common.plain_names import plain_name

Groups = Sequence[Sequence[str]]


def with_names(classes: Sequence[str], names: Groups | None) -> list[list[str]]:
    """Of each class its label and the names of its entries.

    Args:
        classes: C labels.
        names: of each class; None: the labels were encoded, or nothing says what was.
    """
    if names is None:
        return [[label] for label in classes]
    return [list(dict.fromkeys([label, *group])) for label, group in zip(classes, names)]


def flat(classes: Sequence[str], names: Groups | None) -> tuple[str, ...]:
    """The names with which a training knew its classes; `names` as in `with_names`."""
    return tuple(classes) if names is None else tuple(name for group in names for name in group)


def known_among(groups: Groups, known: Iterable[str]) -> list[bool]:
    """Of which groups any name is known, but for case, hyphens and underscores."""
    known = {plain_name(name) for name in known}
    return [any(plain_name(name) in known for name in group) for group in groups]

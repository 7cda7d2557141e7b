"""Names of classes as people write them: what is the same name but for its letters."""

from collections.abc import Sequence


def plain_name(name: str) -> str:
    """A name without capital letters, hyphens, underscores and needless space."""
    return ' '.join(name.casefold().replace('-', ' ').replace('_', ' ').split())


def plain_names(names: str | Sequence[str]) -> set[str]:
    """All names of a class in their plain form."""
    return {plain_name(name) for name in ([names] if isinstance(names, str) else names)}

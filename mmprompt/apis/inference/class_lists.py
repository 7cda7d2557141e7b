"""Lists of classes that a SAM-CP is asked for: their names and which of them are things."""

from collections.abc import Sequence
from typing import NamedTuple

from mmprompt.apis.inference.things import NOT_ON_STREETS, THINGS
from mmprompt.common.errors import UserError
from mmprompt.common.plain_names import plain_name, plain_names
from mmprompt.common.text_bank import Names
from mmprompt.methods.samcp import SAMCPHead
from mmprompt.methods.samcp.known_classes import with_names


class ClassList(NamedTuple):
    """What is asked for.

    Attributes:
        texts: C classes, each a name or several.
        things: indices of those that are counted one by one.
        own: whether the embeddings are those that the config has for its own classes.
    """

    texts: tuple[str | tuple[str, ...], ...]
    things: tuple[int, ...]
    own: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """The first name of each class."""
        return tuple(each if isinstance(each, str) else each[0] for each in self.texts)

    def with_things(self, names: set[str]) -> 'ClassList':
        """The classes of which any name is among these plain ones are things."""
        found = (i for i, each in enumerate(self.texts) if plain_names(each) & names)
        return self._replace(things=tuple(found))


def own_list(head: SAMCPHead, classes: Sequence[str]) -> ClassList:
    """The classes of a config, each with the further names whose embeddings the head has for it.

    Args:
        head: its things are those of the list.
        classes: their names in the config, which come first.
    """
    groups = with_names(classes, head.names)
    texts = tuple(tuple(group) if len(group) > 1 else group[0] for group in groups)
    return ClassList(texts, tuple(head.thing_classes.tolist()), own=True)


def list_of(texts: Names | None, things: Sequence[str] | None, own: ClassList) -> ClassList:
    """Texts and their things.

    Args:
        texts: classes, each a name or a list of names; None: those of `own`.
        things: names of those that are counted one by one, and of other classes; None: those that
            are things of `own`, and `things.THINGS` among names that it does not have.
        own: the classes of the config.

    Raises:
        UserError: the texts are one string, or two classes have the same name.
    """
    if texts is None:
        return own if things is None else own.with_things({plain_name(name) for name in things})
    asked = ClassList(_checked(texts), ())
    if things is not None:
        return asked.with_things({plain_name(name) for name in things})
    names = [plain_names(each) for each in own.texts]
    trained = set().union(*(names[i] for i in own.things))
    road = any('road' in plain_names(each) for each in asked.texts)
    known = THINGS - NOT_ON_STREETS if road else THINGS
    return asked.with_things(({plain_name(name) for name in known} - set().union(*names)) | trained)


def _checked(texts: Names) -> tuple[str | tuple[str, ...], ...]:
    if isinstance(texts, str):
        raise UserError(
            f'texts: expected a list of classes, found the string {texts!r}. Write [{texts!r}].'
        )
    checked = tuple(each if isinstance(each, str) else tuple(each) for each in texts)
    if () in checked:
        raise UserError(
            f'texts: expected a name or names for each class, found none for number '
            f'{checked.index(())}. Leave it out.'
        )
    first: dict[str, str] = {}
    for name in ClassList(checked, ()).classes:
        plain = plain_name(name)
        if plain in first:
            raise UserError(
                f'texts: expected classes of different names, found {first[plain]!r} and {name!r}. '
                f'Leave one out; further names of a class go with it, as one class.'
            )
        first[plain] = name
    return checked

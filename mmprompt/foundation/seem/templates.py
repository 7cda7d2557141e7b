"""The 81 sentences that SEEM puts around a class name, and how names are cleaned before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mmprompt.common.errors import UserError

NO_OBJECT_NAME = 'background'
BARE_TEMPLATES = ('{}',)
_SUFFIXES = ('-other', '-merged', '-stuff')


@lru_cache(maxsize=1)
def seem_templates() -> tuple[str, ...]:
    """'{}.' and the 80 sentences that CLIP uses on ImageNet (MMSegmentation ships them)."""
    from mmseg.utils.get_templates import get_predefined_templates

    return ('{}.', *get_predefined_templates('imagenet'))


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates as a tuple.

    Raises:
        UserError: there is none, or one has not exactly one place '{}' for the name.
    """
    if isinstance(templates, str) or not templates:
        raise UserError(
            f"templates: expected a list of sentences with one '{{}}' each, found {templates!r}. "
            f"Give a list such as ['{{}}', 'a photo of a {{}}.']."
        )
    for i, template in enumerate(templates):
        rest = template.replace('{}', '', 1) if isinstance(template, str) else '{'
        if rest == template or '{' in rest or '}' in rest:
            raise UserError(
                f"templates: expected a sentence with one '{{}}', where the class name goes, and "
                f"no other brace, found {template!r} (number {i + 1}). Write 'a photo of a {{}}.'"
            )
    return tuple(templates)


def clean_name(name: str) -> str:
    """Drop COCO's '-other', '-merged', '-stuff' from a class name."""
    for suffix in _SUFFIXES:
        name = name.replace(suffix, '')
    return name

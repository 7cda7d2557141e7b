"""The 81 sentences that SEEM puts around a class name, and how names are cleaned before."""

from __future__ import annotations

from functools import lru_cache

NO_OBJECT_NAME = 'background'
BARE_TEMPLATES = ('{}',)
_SUFFIXES = ('-other', '-merged', '-stuff')


@lru_cache(maxsize=1)
def seem_templates() -> tuple[str, ...]:
    """'{}.' and the 80 sentences that CLIP uses on ImageNet (MMSegmentation ships them)."""
    from mmseg.utils.get_templates import get_predefined_templates

    return ('{}.', *get_predefined_templates('imagenet'))


def clean_name(name: str) -> str:
    """Drop COCO's '-other', '-merged', '-stuff' from a class name."""
    for suffix in _SUFFIXES:
        name = name.replace(suffix, '')
    return name

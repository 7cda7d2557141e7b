"""Sentences around a class name, in lists that have names."""

from collections.abc import Sequence

from mmprompt.foundation.seem.templates import check_templates

_SIZES = ('small', 'medium', 'large')
#: The 14 sentences of ViLD that FC-CLIP averages over, in training and at test.
VILD = (
    'a photo of a {}.',
    'This is a photo of a {}',
    'There is a {} in the scene',
    'There is the {} in the scene',
    'a photo of a {} in the scene',
    *(f'a photo of a {size} {{}}.' for size in _SIZES),
    *(f'This is a photo of a {size} {{}}.' for size in _SIZES),
    *(f'There is a {size} {{}} in the scene.' for size in _SIZES),
)


def clip_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The sentences of a config.

    Args:
        templates: 'vild', FC-CLIP's; 'clip', the 80 of CLIP on ImageNet, which MMSegmentation
            ships; one sentence with '{}' for the name, or a list of such.

    Raises:
        UserError: another word, or a sentence without exactly one '{}'.
    """
    if templates == 'vild':
        return VILD
    if templates == 'clip':
        from mmseg.utils.get_templates import get_predefined_templates

        return tuple(get_predefined_templates('imagenet'))
    if isinstance(templates, str) and '{}' in templates:
        templates = [templates]
    return check_templates(templates)

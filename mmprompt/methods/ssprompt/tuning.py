"""What of the base is trained: nothing, the heads of its decoder, or all of it."""

from torch import nn

from mmprompt.common.freeze import freeze, freeze_except

TUNES = ('prompts', 'head', 'full')
#: What turns a query into a class vector and a mask vector.
HEAD_PARTS = ('decoder_norm', 'class_embed', 'mask_embed')
#: Inputs of drawn strokes: no label of an image ever sends them a gradient.
STROKE_PARTS = ('mask_spatial_embed', 'pn_indicator', 'memory_content', 'memory_position')


def freeze_decoders(tune: str, pixel_decoder: nn.Module, decoder: nn.Module) -> None:
    """Freeze what `tune` leaves frozen.

    Args:
        tune: 'prompts' freezes both; 'head' trains the `HEAD_PARTS` of the decoder; 'full' trains
            both but for the `STROKE_PARTS`.
        pixel_decoder: whole or not at all.
        decoder: a `SEEMDecoder`.

    Raises:
        ValueError: `tune` is none of `TUNES`.
    """
    if tune not in TUNES:
        raise ValueError(f'tune must be one of {TUNES}, found {tune!r}.')
    if tune != 'full':
        freeze(pixel_decoder)
    if tune == 'prompts':
        freeze(decoder)
    elif tune == 'head':
        freeze_except(decoder, HEAD_PARTS)
    else:
        parts = {name.split('.')[0] for name, _ in decoder.named_parameters()}
        freeze_except(decoder, parts - set(STROKE_PARTS))

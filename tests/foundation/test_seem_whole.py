"""A public state dict is whole, or what it lacks is told in public names."""

import re

import pytest
import torch
from foundation.test_seem_checkpoint import HEAD, on_meta, shapes_of

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, checkpoint
from mmprompt.foundation.seem.checkpoint import from_reference, save_weights

PIXELS, TEXT = 'sem_seg_head.pixel_decoder.', HEAD + 'lang_encoder.'


def without(variant: str, pattern: str) -> dict[str, torch.Tensor]:
    shapes = shapes_of(variant)
    left = {key: shape for key, shape in shapes.items() if not re.match(pattern, key)}
    assert 0 < len(left) < len(shapes)
    return on_meta(left)


@pytest.mark.parametrize(
    'part, named',
    [
        ('backbone.', 'no tensor whose name starts with "backbone."'),
        ('backbone.patch_embed.', "unknown backbone.*'backbone.layers.0.blocks.0."),
        ('backbone.layers.', "no 'backbone.layers.0.blocks.0."),
        (PIXELS, f"no '{PIXELS}input_proj.weight'"),
        (HEAD, f"no '{HEAD}query_feat.weight'"),
        (f'{HEAD}transformer_ffn_layers.', f"no '{HEAD}transformer_ffn_layers.0.linear1.weight'"),
        (TEXT + 'lang_proj', f"no '{TEXT}lang_proj'"),
        (TEXT + 'lang_encoder.token', f"no '{TEXT}lang_encoder.token_embedding.weight'"),
    ],
)
def test_a_part_is_missing(part, named):
    """Told in the names that the owner of the file sees in it."""
    with pytest.raises(UserError, match=named) as caught:
        SEEM.from_checkpoint(without('focalt', re.escape(part)))
    ours = ('backbone.stages', 'pixel_decoder.enc', 'text_encoder', ' decoder.', "'decoder.")
    assert not any(name in str(caught.value) for name in ours)


LAST = [
    ('focalt', HEAD + r'transformer_\w+_layers.8.', '8 of the 9 layers of the decoder', ''),
    ('focall', HEAD + r'transformer_\w+_layers.[78].', '7 of the 9 layers', 'attention_layers.7.'),
    ('focalt', PIXELS + 'transformer.encoder.layers.5.', '5 of the 6', 'transformer.encoder.lay'),
    ('focalt', TEXT + 'lang_encoder.resblocks.11.', '11 of the 12', 'lang_encoder.resblocks.11.'),
    ('focalt', 'backbone.layers.2.blocks.5.', r'depths \[2, 2, 5, 2\]', 'layers.2.blocks.5.'),
    ('focall', 'backbone.layers.3.', r'depths \[2, 2, 18\]', 'backbone.layers.3.blocks.0.'),
    ('focalt', r'backbone.*\.dw[12]\.', 'depthwise', 'backbone.layers.0.blocks.0.dw1.'),
    ('davitd3', 'backbone.blocks.2.8.', r'depths \[1, 1, 8, 1\]', 'backbone.blocks.2.8.'),
    ('davitd5', '(backbone.blocks|backbone.convs).3.', r'\[1, 1, 9\]', 'backbone.blocks.3.0.'),
]


@pytest.mark.parametrize('variant, pattern, found, missing', LAST)
def test_lost_last_layers_are_missed(variant, pattern, found, missing):
    """Counted by its names, what is left would be a whole, smaller model."""
    with pytest.raises(UserError, match=rf'{found}.*Missing are .*{re.escape(missing)}.*base file'):
        SEEM.from_checkpoint(without(variant, pattern))


def test_no_end_of_any_list_can_be_lost():
    """Whatever is numbered: without the tensors of its last number nothing loads."""
    last = {}
    for key in shapes_of('focalt'):
        for match in re.finditer(r'\.(\d+)(?=\.|$)', key):
            place = key[: match.start(1)]
            last[place] = max(last.get(place, 0), int(match[1]))
    # One list of each kind: the blocks of a backbone are alike.
    kinds = {re.sub(r'\d+', '#', place): place for place, count in last.items() if count}
    assert len(kinds) == 10
    for place in kinds.values():
        with pytest.raises(UserError):
            SEEM.from_checkpoint(without('focalt', rf'{re.escape(place)}{last[place]}(\.|$)'))


def test_a_smaller_model_of_ones_own_comes_as_a_base_file(tmp_path):
    cut = without('focalt', HEAD + r'transformer_\w+_layers.8.')
    tensors, config = from_reference(cut, 'mine.pt', text_encoder=False)
    tensors = {key: torch.zeros(value.shape) for key, value in tensors.items()}
    path = save_weights(tmp_path / 'mine.safetensors', tensors, config)
    assert len(SEEM.from_checkpoint(path).decoder.layers) == 8


def test_without_a_text_encoder_a_model_loads_but_not_silently(monkeypatch):
    said = []
    monkeypatch.setattr(checkpoint, 'print_log', lambda text, *_: said.append(text))
    mute = without('focalt', re.escape(TEXT + 'lang_'))
    assert SEEM.from_checkpoint(mute).text_encoder is None
    assert len(said) == 1 and 'no text encoder' in said[0] and TEXT in said[0]
    for state in (mute, without('focalt', re.escape(TEXT + 'lang_proj'))):
        assert SEEM.from_checkpoint(state, text_encoder=False).text_encoder is None
    SEEM.from_checkpoint(on_meta(shapes_of('focalt')))
    assert len(said) == 1

"""Decoding under many spatial prompts at once against one call of the decoder for each."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toy import DIM, QUERIES, stir, toy_seem

from mmprompt.foundation.seem import SEEM
from mmprompt.foundation.seem.many import decode_many


@pytest.fixture(scope='module')
def seem():
    torch.manual_seed(0)
    model = SEEM(**toy_seem(object_tokens=True)).double().eval()
    stir(model.decoder)
    return model.requires_grad_(False)


def rows(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, DIM, dtype=torch.float64, generator=generator)


PROMPTS = {
    'queries': [
        {},
        dict(content=rows(QUERIES - 1)),
        dict(position=rows(4), content=rows(QUERIES)),
        dict(position=rows(QUERIES)),
    ],
    'tokens': [dict(tokens=rows(3, 4), content=rows(QUERIES)), dict(tokens=-rows(3, 4))],
    'one': [{}],
}


@pytest.mark.parametrize('kind', PROMPTS)
def test_many_prompts_give_what_each_gives_alone(seem, kind):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=generator)
    features, semantic = seem.encode_image(image), rows(5)
    found = decode_many(seem.decoder, features, PROMPTS[kind])
    for prompt, output in zip(PROMPTS[kind], found, strict=True):
        alone = seem.decode(features, semantic, prompt)
        logits = seem.decoder.class_logits(output.queries, semantic)
        torch.testing.assert_close(output.pred_masks, alone.pred_masks, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(logits, alone.pred_logits, rtol=1e-12, atol=1e-12)
    answers = torch.stack([output.pred_masks for output in found])
    assert len(found) == 1 or (answers[0] - answers[1]).abs().max() > 0.1, 'the prompts do nothing'


def test_maps_are_prepared_once_for_all(seem):
    """Keys, values and pooled maps cost the same for eight prompts as for one."""
    features = seem.encode_image(torch.zeros(1, 3, 256, 256, dtype=torch.float64))

    def cost(count):
        prompts = [dict(content=rows(QUERIES) * n) for n in range(count)]
        with FlopCounterMode(display=False) as counter:
            decode_many(seem.decoder, features, prompts)
        return counter.get_total_flops()

    one, eight = cost(1), cost(8)
    with FlopCounterMode(display=False) as counter:
        for _ in range(8):
            seem.decode(features, rows(5))
    assert one < eight < 0.6 * counter.get_total_flops()


def test_unequal_numbers_of_tokens_are_refused(seem):
    features = seem.encode_image(torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    with pytest.raises(ValueError, match=r'equal numbers of tokens, found \[0, 4\]'):
        decode_many(seem.decoder, features, [{}, dict(tokens=rows(3, 4))])

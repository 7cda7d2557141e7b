"""SSPrompt on a toy SAM: exactness, what is compared with texts, cache, and what is refused."""

import math

import pytest
import torch
from mmengine.registry import MODELS
from prompt_files import prompt_of
from toy import CLASSES, PROMPTS, toy_batch
from toy_sam import SAM_DIM, toy_sam_segmentor

import mmprompt  # noqa: F401
from mmprompt.common.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMPROMPT_CACHE', str(tmp_path / 'cache'))
    torch.manual_seed(0)


def build(folder, method='ssprompt', **model):
    built = MODELS.build(toy_sam_segmentor(folder, method=method, **model)).eval()
    built.load_base()
    return built


def scores(model) -> list[torch.Tensor]:
    with torch.no_grad():
        return [sample.seg_logits.data for sample in model.test_step(toy_batch())]


@pytest.mark.parametrize('method', ['ssprompt', 'spaprompt', 'semprompt'])
def test_step_0_is_the_zero_shot_model_exactly(method, tmp_path):
    expected = scores(build(tmp_path, 'zero-shot'))
    found = scores(build(tmp_path, method))
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert expected[0].std() > 0


def test_zero_shot_points_are_sams_own(tmp_path):
    model = build(tmp_path, 'zero-shot')
    side = math.isqrt(PROMPTS)
    encoder = model.decode_head.decoder.prompt_encoder
    # Row by row over an image that is half as high as wide.
    centres = [((i + 0.5) / side, (j + 0.5) / side / 2) for j in range(side) for i in range(side)]
    expected = encoder.pe_layer(torch.tensor(centres)) + encoder.point_embeddings[1].weight
    torch.testing.assert_close(model.decode_head.spatial_prompt(), expected)


@torch.no_grad()
@pytest.mark.parametrize('centre', ['image', None])
def test_queries_are_averages_over_masks(centre, tmp_path):
    decoder = build(tmp_path, decoder=dict(centre=centre)).decode_head.decoder
    embeddings = torch.randn(2, SAM_DIM, 2, 4)
    found = decoder(embeddings, decoder.point_rows(PROMPTS))
    assert found.masks.shape == (2, PROMPTS, 8, 16)
    for image in range(2):
        for point in range(PROMPTS):
            total, weight = torch.zeros(SAM_DIM), 0.0
            for y in range(8):
                for x in range(16):
                    inside = found.masks[image, point, y, x].sigmoid()
                    total += inside * embeddings[image, :, y // 4, x // 4]
                    weight += inside
            expected = total / weight
            if centre == 'image':
                expected = expected - embeddings[image].flatten(1).mean(1)
            torch.testing.assert_close(found.queries[image, point], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_best_masks_have_the_highest_quality(tmp_path):
    decoder = build(tmp_path, decoder=dict(masks='best')).decode_head.decoder
    embedding, rows = torch.randn(SAM_DIM, 2, 4), decoder.point_rows(PROMPTS)
    prompts = decoder.prompt_encoder
    every = decoder.mask_decoder(
        embedding, prompts.cells((2, 4)), prompts.closed(rows[:, None]), prompts.dense()
    )
    found = decoder(embedding[None], rows).masks[0]
    for point in range(PROMPTS):
        best = 1 + max(range(3), key=lambda m: every.quality[point, 1 + m])
        torch.testing.assert_close(found[point], every.logits[point, best])


def test_logits_are_scaled_cosines(tmp_path):
    decoder = build(tmp_path).decode_head.decoder
    queries, rows = torch.randn(3, SAM_DIM), torch.randn(5, decoder.class_embed.shape[1])
    rows = rows / rows.norm(dim=1, keepdim=True)
    vectors = queries @ decoder.class_embed
    expected = torch.cosine_similarity(vectors[:, None], rows, dim=-1)
    expected = expected * decoder.logit_scale.exp()
    found = decoder.class_logits(queries[None], rows)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_chunks_change_neither_masks_nor_gradients(tmp_path):
    found = []
    for chunk in (PROMPTS, 2):
        decoder = build(tmp_path, decoder=dict(chunk=chunk)).decode_head.decoder
        rows = decoder.point_rows(PROMPTS).detach().requires_grad_()
        embeddings = torch.randn(2, SAM_DIM, 2, 4, generator=torch.Generator().manual_seed(1))
        decoded = decoder(embeddings, rows)
        (decoded.masks.square().mean() + decoded.queries.sum()).backward()
        found.append((decoded.masks, decoded.queries, rows.grad))
    assert found[0][2].abs().sum() > 0
    for whole, parts in zip(*found):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', ['ssprompt', 'coop'])
def test_what_is_frozen_is_computed_once(method, tmp_path):
    plain = build(tmp_path, method)
    model = build(tmp_path, method, feature_cache=dict(root=None))
    model.load_state_dict(plain.state_dict())
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append('encoder'))
    model.decode_head.decoder.register_forward_hook(lambda *_: calls.append('decoder'))
    first, second = scores(model), scores(model)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    for found, expected in zip(first, scores(plain)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert calls.count('encoder') == 2  # two images, once
    # One batch, twice, under learned points; else the masks of two images, once.
    order = dict(ssprompt=['encoder', 'encoder', 'decoder', 'decoder'])
    assert calls == order.get(method, ['encoder', 'decoder'] * 2)


def test_another_projection_is_another_base(tmp_path):
    prompt = prompt_of(build(tmp_path))
    build(tmp_path).load_prompt(prompt)
    other = build(tmp_path, decoder=dict(projection_seed=1))
    with pytest.raises(UserError, match='expected a prompt for the base model with fingerprint'):
        other.load_prompt(prompt)


@pytest.mark.parametrize('method', ['vspl', 'head', 'full', 'zero-shot-grid'])
def test_methods_without_a_place_in_sam(method, tmp_path):
    with pytest.raises(UserError, match=f"'{method}' is no method on SAM"):
        build(tmp_path, method)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(spatial_prompt=dict(type='SpaPrompt', num_prompts=9)), "must be 'points'"),
        (
            dict(spatial_prompt=dict(type='SpaPrompt', num_prompts=8, source='points')),
            'must be a square number',
        ),
        (dict(task='panoptic'), "task must be 'semantic'"),
        (dict(decoder=dict(type='SAMPointDecoder', masks='all')), 'masks must be in'),
    ],
)
def test_heads_that_cannot_be(head, message, tmp_path):
    head = dict(head)
    decoder = head.pop('decoder', {})
    with pytest.raises(ValueError, match=message):
        build(tmp_path, None, decode_head=head, decoder=decoder)


def test_texts_are_those_of_the_text_base(tmp_path):
    model = build(tmp_path, 'zero-shot')
    rows = model.decode_head.semantic_prompt()
    assert rows.shape[0] == len(CLASSES)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(CLASSES)))
    assert not torch.allclose(rows[0], rows[1])

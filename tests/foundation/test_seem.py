"""Properties of SEEM that need no reference numbers, at toy size."""

import pytest
import torch
from mmengine.registry import init_default_scope

from mmprompt.common.errors import UserError
from mmprompt.foundation.seem import SEEM, SEEMDecoder, SEEMFeatures, Strokes
from mmprompt.foundation.seem.layers import Attention
from mmprompt.foundation.seem.templates import seem_templates
from mmprompt.foundation.seem.tokenizer import collect_token_ids
from mmprompt.registry import MODELS

CLASSES = ('road', ('car', 'bus'))


def toy_config(**decoder) -> dict:
    ids = collect_token_ids(CLASSES, seem_templates())
    return dict(
        backbone=dict(
            type='mmprompt.FocalNet',
            embed_dim=8,
            depths=(1, 1, 1, 1),
            focal_levels=(1,) * 4,
            drop_path_rate=0.0,
            layer_scale=0.5,
        ),
        pixel_decoder=dict(
            type='mmprompt.TransformerFPN',
            in_channels=(8, 16, 32, 64),
            dim=16,
            mask_dim=12,
            num_layers=1,
            num_heads=2,
            ffn_dim=16,
            num_groups=4,
        ),
        decoder=dict(
            type='mmprompt.SEEMDecoder',
            dim=16,
            num_layers=4,
            num_heads=2,
            ffn_dim=16,
            num_queries=11,
            mask_dim=12,
            proj_dim=20,
            num_memory=3,
            **decoder,
        ),
        text_encoder=dict(
            type='mmprompt.SEEMTextEncoder',
            width=8,
            num_layers=1,
            num_heads=2,
            context_length=20,
            dim=20,
            token_ids=ids,
        ),
    )


def toy(**decoder) -> SEEM:
    torch.manual_seed(0)
    return SEEM(**toy_config(**decoder)).double().eval()


@pytest.fixture
def model():
    return toy()


@pytest.fixture
def semantic():
    rows = torch.randn(5, 20, generator=torch.Generator().manual_seed(1)).double()
    return torch.nn.functional.normalize(rows, dim=1)


@pytest.fixture
def x():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)).double()


def strokes_at(*rows: int) -> torch.Tensor:
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    for row in rows:
        mask[:, row : row + 3, 10:30] = True
    return mask


def assert_equal(a, b):
    torch.testing.assert_close(a.pred_logits, b.pred_logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.pred_masks, b.pred_masks, rtol=1e-12, atol=1e-12)


def test_shapes(model, semantic, x):
    features = model.encode_image(x)
    assert [tuple(m.shape) for m in features.multi_scale] == [
        (2, 16, 2, 3),
        (2, 16, 4, 6),
        (2, 16, 8, 12),
    ]
    assert features.mask_features.shape == (2, 12, 16, 24)
    out = model.decode(features, semantic)
    assert out.pred_logits.shape == (2, 11, 5)
    assert out.pred_masks.shape == (2, 11, 16, 24)
    assert len(out.aux) == 4 and not model.decode(features, semantic, aux=False).aux
    assert out.aux[0].pred_masks.shape == (2, 11, 16, 24)


def test_queries_start_apart(semantic, x):
    torch.manual_seed(0)
    config = toy_config()
    config['decoder']['num_layers'] = 6
    model = SEEM(**config).double().eval()
    spread = model(x, semantic).queries.std(1).mean()  # 1 for independent ones
    assert spread > 0.4  # at full strength: 0.05


def test_default_rows_given_explicitly_change_nothing(model, semantic, x):
    features = model.encode_image(x)
    decoder = model.decoder
    plain = model.decode(features, semantic)
    assert_equal(model.decode(features, semantic, decoder.query_feat[:10]), plain)
    rows = dict(content=decoder.query_feat[:10], position=decoder.query_embed[:10])
    assert_equal(model.decode(features, semantic, rows), plain)
    per_image = decoder.query_feat[:10].expand(2, -1, -1)
    assert_equal(model.decode(features, semantic, dict(content=per_image)), plain)


def test_rows_reach_the_outputs_and_the_last_query_stays(model, semantic, x):
    features = model.encode_image(x)
    plain = model.decode(features, semantic, aux=True)
    out = model.decode(features, semantic, torch.zeros(10, 16).double(), aux=True)
    assert not torch.allclose(out.pred_logits, plain.pred_logits)
    # Before the first layer queries have not met, so the last one must be untouched.
    torch.testing.assert_close(out.aux[0].pred_logits[:, 10], plain.aux[0].pred_logits[:, 10])
    assert not torch.allclose(out.aux[0].pred_logits[:, :10], plain.aux[0].pred_logits[:, :10])


def test_strokes_never_reach_the_object_queries_of_v0(model, semantic, x):
    """Not by a bit: they run apart."""

    def assert_equal(a, b):
        for one, other in zip([a, *a.aux], [b, *b.aux], strict=True):
            assert torch.equal(one.pred_logits, other.pred_logits)
            assert torch.equal(one.pred_masks, other.pred_masks)

    features = model.encode_image(x)
    plain = model.decode(features, semantic)
    out = model.decode(features, semantic, strokes=Strokes(strokes_at(8), strokes_at(40)))
    assert_equal(out, plain)
    assert not torch.allclose(out.strokes.pred_masks, plain.pred_masks)
    again = Strokes(strokes_at(8), strokes_at(40), previous=out.strokes.answer)
    second = model.decode(features, semantic, strokes=again)
    assert_equal(second, plain)
    assert not torch.allclose(second.strokes.pred_masks, out.strokes.pred_masks)


def test_the_stroke_answer_is_the_query_closest_to_the_points(model, semantic, x):
    out = model.decode(model.encode_image(x), semantic, strokes=strokes_at(8)).strokes
    score = torch.einsum('bqd,bd->bq', out.mask_embed, out.positive)
    for i, best in enumerate(score.argmax(1)):
        torch.testing.assert_close(out.answer[i, 0], out.pred_masks[i, best])


def test_empty_strokes_are_finite(model, semantic, x):
    out = model.decode(model.encode_image(x), semantic, strokes=strokes_at())
    assert torch.isfinite(out.strokes.pred_masks).all()
    assert (out.strokes.positive == 0).all()


def test_images_with_different_stroke_counts_do_not_mix(model, semantic, x):
    features = model.encode_image(x)
    mask = strokes_at(8)
    mask[1] = strokes_at(8, 30, 50)[1]
    both = model.decode(features, semantic, strokes=mask).strokes.pred_masks
    alone = SEEMFeatures([m[:1] for m in features.multi_scale], features.mask_features[:1])
    one = model.decode(alone, semantic, strokes=mask[:1]).strokes.pred_masks
    torch.testing.assert_close(both[:1], one, rtol=1e-10, atol=1e-10)


def test_object_tokens_variant(semantic, x):
    model = toy(object_tokens=True)
    features = model.encode_image(x)
    plain = model.decode(features, semantic)
    assert_equal(plain, toy().decode(features, semantic))  # no prompt: equal to v0
    stroked = model.decode(features, semantic, strokes=strokes_at(8))
    assert not torch.allclose(stroked.pred_logits, plain.pred_logits)
    assert torch.equal(stroked.strokes.pred_masks, stroked.pred_masks)
    tokens = torch.randn(4, 16).double()
    free = model.decode(features, semantic, dict(tokens=tokens))
    assert not torch.allclose(free.pred_logits, plain.pred_logits)
    assert_equal(free, model.decode(features, semantic, dict(tokens=tokens.expand(3, -1, -1))))
    assert_equal(free, toy().decode(features, semantic, dict(tokens=tokens)))  # tokens choose it
    with_both = model.decode(features, semantic, dict(tokens=tokens), strokes_at(8))
    assert not torch.allclose(with_both.pred_logits, free.pred_logits)


@pytest.mark.parametrize(
    'spatial, named',
    [
        (dict(points=torch.zeros(1)), 'points'),
        ([torch.zeros(4, 16)], 'list'),
        (dict(tokens=torch.zeros(2, 4, 16).double()), '3, T, 16'),
        (torch.zeros(16).double(), r'\(16,\)'),
        (torch.zeros(3, 4, 16).double(), 'B=2'),
        (torch.zeros(10, 15).double(), '15'),
        (torch.zeros(12, 16).double(), '12'),
    ],
)
def test_wrong_spatial_is_refused(model, semantic, x, spatial, named):
    with pytest.raises(ValueError, match=named):
        model.decode(model.encode_image(x), semantic, spatial)


@pytest.mark.parametrize(
    'strokes, named',
    [
        (torch.ones(2, 30, 30), '30'),
        (torch.ones(1, 64, 96), r'\(1, 64, 96\)'),
        ((torch.ones(2, 64, 96),), 'tuple'),
        (dict(pos=torch.ones(2, 64, 96)), 'pos'),
        (dict(negative=torch.ones(2, 64, 96)), 'positive'),
        (Strokes(torch.ones(2, 64, 96), previous=torch.zeros(2, 16, 24)), 'previous'),
    ],
)
def test_wrong_strokes_are_refused(model, semantic, x, strokes, named):
    with pytest.raises(UserError, match=named):
        model.decode(model.encode_image(x), semantic, strokes=strokes)


def test_forms_of_strokes(model, semantic, x):
    features, mask = model.encode_image(x), strokes_at(8)
    expected = model.decode(features, semantic, strokes=Strokes(mask, mask.flip(2))).strokes
    given = dict(positive=mask.numpy(), negative=mask.flip(2)[:, None])
    found = model.decode(features, semantic, strokes=given).strokes
    assert torch.equal(found.pred_masks, expected.pred_masks)


def test_what_are_no_class_embeddings_is_refused(model, semantic, x):
    for wrong in (semantic[0], semantic[None], semantic[:, :3], ['road']):
        with pytest.raises(UserError, match='semantic'):
            model.decode(model.encode_image(x), wrong)


def test_padding_to_32(model, semantic):
    x = torch.randn(1, 3, 50, 70).double()
    padded = torch.nn.functional.pad(x, (0, 26, 0, 14))
    assert_equal(model(x, semantic), model(padded, semantic))
    small = torch.randn(1, 3, 1, 1).double()
    assert torch.isfinite(model(small, semantic).pred_masks).all()


def test_an_image_does_not_depend_on_its_neighbour(model, semantic, x):
    both, one = model(x, semantic), model(x[:1], semantic)
    torch.testing.assert_close(both.pred_masks[:1], one.pred_masks, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('what', ['content', 'position', 'semantic'])
def test_gradient_against_finite_differences(model, semantic, x, what):
    with torch.no_grad():
        features = model.encode_image(x[:1])
    start = dict(content=model.decoder.query_feat[:10], position=model.decoder.query_embed[:10])
    start = {key: value.detach().clone() for key, value in start.items()}
    start['semantic'] = semantic.clone()
    weight = torch.randn(1, 11, 16, 24, generator=torch.Generator().manual_seed(3)).double()

    def loss(**changed):
        rows = {**start, **changed}
        out = model.decode(features, rows.pop('semantic'), rows)
        return out.pred_logits.square().mean() + (weight * out.pred_masks).mean()

    point = start[what].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(**{what: point}), point)
    step = 1e-6
    with torch.no_grad():
        for row, column in ((0, 0), (2, 7), (4, 15)):
            moved = torch.zeros_like(point)
            moved[row, column] = step
            difference = loss(**{what: point + moved}) - loss(**{what: point - moved})
            torch.testing.assert_close(
                gradient[row, column], difference / (2 * step), rtol=1e-4, atol=1e-9
            )


def test_fully_blocked_rows_give_zero_before_the_projection():
    attention = Attention(8, 2).double()
    x = torch.randn(1, 3, 8).double()
    allowed = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    allowed[:, :, 1] = False
    out = attention(x, x, x, allowed)
    torch.testing.assert_close(out[0, 1], attention.out_proj.bias)
    assert torch.isfinite(out).all()


def test_attention_equals_torch():
    ours = Attention(8, 2).double()
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    q, k = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    allowed = torch.rand(3, 5) > 0.4
    allowed[:, 0] = True
    expected = theirs(q, k, k, attn_mask=~allowed, need_weights=False)[0]
    torch.testing.assert_close(ours(q, k, k, allowed), expected)


@pytest.mark.parametrize('scope', ['mmseg', 'mmprompt'])
@pytest.mark.parametrize('prefix', ['', 'mmprompt.'])
def test_names_build_in_every_scope(scope, prefix):
    init_default_scope(scope)
    config = dict(toy_config()['decoder'], type=f'{prefix}SEEMDecoder')
    assert isinstance(MODELS.build(config), SEEMDecoder)


def test_resnet_stands_in_for_focalnet(semantic):
    backbone = dict(
        type='mmseg.ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN')
    )
    config = toy_config()
    config['pixel_decoder']['in_channels'] = (4, 8, 16, 32)
    model = SEEM(**dict(config, backbone=backbone)).eval()
    out = model(torch.randn(1, 3, 64, 64), semantic.float())
    assert out.pred_masks.shape == (1, 11, 16, 16)


def test_segment_tasks_from_rgb(model):
    rgb = torch.randint(0, 256, (3, 45, 70), generator=torch.Generator().manual_seed(4))
    array = rgb.permute(1, 2, 0).numpy().astype('uint8')
    labels = model.segment(rgb, classes=CLASSES)
    assert labels.shape == (45, 70) and labels.max() < 2
    assert torch.equal(labels, model.segment(array, classes=CLASSES))
    assert model.segment(rgb, classes=CLASSES, templates=('{}.',)).shape == (45, 70)
    small = model.segment(rgb, classes=CLASSES, short_side=32, output_size=(20, 30))
    assert small.shape == (20, 30)
    found = model.segment(rgb, 'panoptic', CLASSES, things=(1,), score_threshold=0.1)
    assert found.seg_map.shape == (45, 70)
    assert model.segment(rgb, 'instance', CLASSES, top_k=5).masks.shape[1:] == (45, 70)
    hint = Strokes(strokes_at(8)[:1])
    assert model.segment(rgb, 'stroke', CLASSES, strokes=hint).dtype == torch.bool
    with pytest.raises(UserError, match="'depth'"):
        model.segment(rgb, 'depth', CLASSES)

"""Algorithm 1, the quantised affinity, and one layer after the other."""

import pytest
import torch
from toy_samcp import CHANNELS, DIM, toy_features

from mmprompt.methods.samcp.affinity_decoder import AffinitySimilarity, SAMCPAffinityDecoder
from mmprompt.methods.samcp.layers import sine_boxes
from mmprompt.methods.samcp.queries import QuerySet
from mmprompt.methods.samcp.structures import PatchFeatures


def decoder(**options):
    torch.manual_seed(0)
    config = dict(dim=DIM, num_layers=3, num_heads=2, ffn_dim=24, in_channels=CHANNELS)
    return SAMCPAffinityDecoder(**{**config, **options}).double()


def given(batch=2, queries=5, patches=6, hidden=2):
    generator = torch.Generator().manual_seed(2)

    def rand(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first = torch.rand(batch, patches, 2, generator=generator, dtype=torch.float64) * 0.6
    boxes = torch.cat([first, first + 0.3], dim=-1)
    valid = torch.ones(batch, patches, dtype=torch.bool)
    valid[0, patches - hidden :] = False
    encoded = PatchFeatures(rand(batch, patches, DIM), rand(batch, patches, DIM), boxes, valid)
    where = rand(batch, queries, 4).sigmoid()
    asked = QuerySet(
        rand(batch, queries, DIM),
        where,
        torch.ones(batch, queries, dtype=torch.bool),
        torch.ones(batch, queries, queries, dtype=torch.bool),
        (0, queries, 0),
    )
    return asked, encoded


def no_enhancement(boxes, valid):
    raise AssertionError('query enhancement is off')


def run(model, asked, encoded, enhance=None, features=None):
    zeros = enhance or (lambda boxes, valid: torch.zeros(*valid.shape, DIM, dtype=torch.float64))
    return model(asked, encoded, features, zeros)


def test_similarity_of_algorithm_1():
    """Pair by pair and head by head."""
    torch.manual_seed(0)
    module = AffinitySimilarity(8, 2, 0, False, -1.5).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    queries, keys = torch.randn(1, 3, 8).double(), torch.randn(1, 4, 8).double()
    found = module(queries, keys)
    q, k = module.query(queries[0]), module.key(keys[0])
    layers = [module.mlp[i] for i in (0, 2, 4)]
    for m in range(3):
        for n in range(4):
            x = torch.stack([q[m, h : h + 4] @ k[n, h : h + 4] / 2 for h in (0, 4)])
            for index, layer in enumerate(layers):
                x = layer.weight @ (x.relu() if index else x) + layer.bias
            expected = x / module.log_scale.exp() + k[n] @ module.patch_bias + module.prior
            assert torch.allclose(found[0, m, n], expected[0], atol=1e-12)


def test_rectified_similarity_cannot_tell_negatives_apart():
    torch.manual_seed(0)
    queries = torch.randn(1, 1, 16)
    heads = queries.unflatten(-1, (8, 2))
    # Key 0 differs from the query in all heads, key 1 as well, twice as much.
    keys = torch.cat([-heads, -2 * heads], dim=1).flatten(-2)
    for rectified in (True, False):
        module = AffinitySimilarity(16, 8, 0, rectified, 0.0)
        for layer in list(module.mlp)[::-2]:
            torch.nn.init.normal_(layer.weight)
        for projection in (module.query, module.key):
            torch.nn.init.eye_(projection.weight)
            torch.nn.init.zeros_(projection.bias)
        found = module(queries, keys)[0, 0]
        assert torch.equal(found[0], found[1]) is rectified


@pytest.mark.parametrize(
    ('options', 'scores'),
    [
        (dict(), [0.01, 0.01, 0.01]),
        (dict(prior='every_layer'), [0.01, 1 / (1 + 99**2), 1 / (1 + 99**3)]),
        (dict(affinity_refinement=False), [0.01, 0.01, 0.01]),
        (dict(affinity_ffn_dim=24, affinity_rectified=True), [0.01, 0.01, 0.01]),
    ],
    ids=str,
)
def test_the_score_at_which_layers_start(options, scores):
    for output, score in zip(run(decoder(**options), *given()), scores):
        probs = output.affinity_logits.sigmoid()
        assert torch.allclose(probs, torch.full_like(probs, score), rtol=1e-6)


def test_affinity_refinement_adds_up_layers():
    asked, encoded = given()
    model = decoder(query_enhancement=False)
    for layer in model.layers:
        torch.nn.init.normal_(layer.affinity.mlp[-1].weight)
    alone = []
    for layer in model.layers:
        layer.affinity.register_forward_hook(lambda module, inputs, out: alone.append(out))
    outputs = run(model, asked, encoded, no_enhancement)
    total = 0
    for mine, output in zip(alone, outputs):
        total = total + mine
        assert torch.allclose(output.affinity_logits, total, atol=1e-12)
    alone.clear()
    model.affinity_refinement = False
    for mine, output in zip(alone, run(model, asked, encoded, no_enhancement)):
        assert torch.equal(output.affinity_logits, mine)


def test_a_gradient_of_the_last_affinity_reaches_the_first_layer():
    model = decoder(query_enhancement=False)
    for layer in model.layers:
        torch.nn.init.normal_(layer.affinity.mlp[-1].weight)
    run(model, *given(), no_enhancement)[-1].affinity_logits.sum().backward()
    assert model.layers[0].affinity.prior.grad != 0


def test_dynamic_attention_reads_high_patches_alone():
    """Layer 2 sees what layer 1 found; patches below change nothing, without DCA they do."""
    asked, encoded = given(batch=1, queries=1, patches=4, hidden=0)
    for dynamic, same in (('patch', True), (None, False)):
        model = decoder(num_layers=2, dynamic_attention=dynamic, query_enhancement=False)
        outputs = []
        for value in (0.0, 7.0):
            seen = []

            def first(module, inputs, seen=seen):
                seen.append(inputs[3])

            for layer in model.layers:
                layer.affinity.forward = lambda q, k: torch.tensor([[[5.0, 5, -5, -5]]]).double()
            content = encoded.content.clone()
            content[:, 2:] += value
            changed = PatchFeatures(content, encoded.position, encoded.boxes, encoded.valid)
            # The first layer sees all patches: let its attention say nothing.
            torch.nn.init.zeros_(model.layers[0].cross_attention.branch.out_proj.weight)
            hook = model.layers[1].cross_attention.branch.register_forward_pre_hook(first)
            outputs.append(run(model, asked, changed, no_enhancement)[-1].queries)
            hook.remove()
            expected = [True, True, False, False] if dynamic else [True] * 4
            assert seen[0].flatten().tolist() == expected
        assert torch.allclose(*outputs) is same


def test_the_mask_is_of_the_layer_before_or_of_the_same():
    """What each layer's attention may see, with affinities that change from layer to layer."""
    asked, encoded = given(batch=1, queries=1, patches=4, hidden=0)
    rows = [[5.0, 5, -5, -5], [-5, 5, 5, -5], [-5, -5, -5, 5]]
    high = [[value > 0 for value in row] for row in rows]
    for mask_from, expected in (('previous', [[True] * 4, *high[:2]]), ('own', high)):
        model = decoder(affinity_refinement=False, query_enhancement=False, mask_from=mask_from)
        seen = []
        for layer, row in zip(model.layers, rows):
            layer.affinity.forward = lambda q, k, row=row: torch.tensor([[row]]).double()
            layer.cross_attention.branch.register_forward_pre_hook(
                lambda module, inputs, seen=seen: seen.append(inputs[3].flatten().tolist())
            )
        outputs = run(model, asked, encoded, no_enhancement)
        assert seen == expected
        for output, chosen in zip(outputs, high):  # boxes are of the layer's own in both
            mine = encoded.boxes[0][torch.tensor(chosen)]
            assert torch.equal(output.boxes[0, 0, :2], mine[:, :2].amin(0))
    default = decoder()
    assert default.mask_from == 'previous'


def test_query_enhancement_is_the_mean_with_the_feature_of_the_union():
    asked, encoded = given()
    model, calls = decoder(num_layers=1), []

    def enhance(boxes, valid):
        calls.append((boxes, valid))
        return torch.full((*valid.shape, DIM), 4.0, dtype=torch.float64)

    inner = []
    model.layers[0].feed_forward.register_forward_hook(lambda m, i, out: inner.append(out))
    (output,) = run(model, asked, encoded, enhance)
    assert torch.allclose(output.queries, model.norm((inner[0] + 4) / 2))
    boxes, valid = calls[0]
    assert torch.equal(boxes, output.boxes) and torch.equal(valid, asked.valid)
    assert not boxes.requires_grad


def test_position_of_the_next_layer_is_that_of_the_union():
    asked, encoded = given()
    model, seen = decoder(), []
    model.position.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    outputs = run(model, asked, encoded)
    for boxes, found in zip([asked.boxes, *(o.boxes for o in outputs)], seen):
        assert torch.equal(sine_boxes(boxes, DIM), found)


def test_image_level_attention_reads_the_box():
    """A constant image is read as this constant; what lies far from the box is not seen."""
    model = decoder(num_layers=1, dynamic_attention='image', query_enhancement=False)
    attention = model.layers[0].cross_attention.branch
    features = toy_features((64, 64), dtype=torch.float64)
    for index, level in enumerate(features.groups[0]):
        level.fill_(0.0)
        if index < 2:  # on coarser maps a cell is nowhere far
            level[..., level.shape[-1] * 3 // 4 :] = 9.0
    boxes = torch.tensor([[[0.3, 0.3, 0.4, 0.4], [0.7, 0.3, 0.8, 0.4]]]).double()
    near, far = attention(torch.randn(1, 2, DIM).double(), boxes, features)[0]
    constant = attention.out(attention.value(torch.zeros(CHANNELS).double()))
    assert torch.allclose(near, constant) and not torch.allclose(far, constant)


@pytest.mark.parametrize('wrong', ['dynamic_attention', 'mask_rule', 'mask_from', 'prior'])
def test_refuses_other_words(wrong):
    with pytest.raises(ValueError, match=wrong):
        decoder(**{wrong: 'other'})

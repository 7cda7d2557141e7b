"""SAM's parts against closed forms, a plain reading of each layer, and the published code."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_sam import SAM_DIM, stirred_sam, to_public, toy_sam, write_sam

from mmprompt.common.errors import UserError
from mmprompt.foundation.sam import SAM, point_grid, read_sam
from mmprompt.foundation.sam.checkpoint import to_ours
from mmprompt.foundation.sam.prompt_encoder import BOX_END, BOX_START, FOREGROUND, NOTHING

SIDE = 4  # cells of a square toy image


def published(**weights):
    """The prompt encoder and mask decoder of the `segment_anything` package, at toy size."""
    modeling = pytest.importorskip('segment_anything.modeling')
    transformer = pytest.importorskip('segment_anything.modeling.transformer')
    pixels = (16 * SIDE, 16 * SIDE)
    encoder = modeling.PromptEncoder(SAM_DIM, (SIDE, SIDE), pixels, mask_in_chans=8)
    decoder = modeling.MaskDecoder(
        transformer_dim=SAM_DIM,
        transformer=transformer.TwoWayTransformer(2, SAM_DIM, 2, 16),
        iou_head_hidden_dim=SAM_DIM,
    )
    encoder.load_state_dict(weights['prompt_encoder'])
    decoder.load_state_dict(weights['mask_decoder'])
    return encoder, decoder


@pytest.mark.parametrize('prompt', ['points', 'box', 'mask'])
@torch.no_grad()
def test_masks_are_those_of_the_published_code(prompt):
    sam = stirred_sam()
    encoder, decoder = published(
        prompt_encoder=sam.prompt_encoder.state_dict(), mask_decoder=sam.mask_decoder.state_dict()
    )
    torch.manual_seed(1)
    embedding = torch.randn(1, SAM_DIM, SIDE, SIDE)
    pixels = torch.tensor([[[3.0, 50.0], [20.0, 9.0]], [[60.0, 60.0], [31.0, 7.0]]])
    labels = torch.tensor([[1, 0], [1, 1]])
    masks = torch.randn(2, 1, 4 * SIDE, 4 * SIDE) if prompt == 'mask' else None
    if prompt == 'box':
        sparse, dense = encoder(points=None, boxes=pixels.flatten(1), masks=None)
        labels = torch.tensor([[BOX_START, BOX_END]] * 2)
    else:
        sparse, dense = encoder(points=(pixels, labels), boxes=None, masks=masks)
    expected, quality = decoder.predict_masks(embedding, encoder.get_dense_pe(), sparse, dense)
    # The published code moves points to the centres of their pixels.
    found = sam.masks(embedding[0], (pixels + 0.5) / (16 * SIDE), labels, masks)
    assert expected.std() > 0.1
    for mine, theirs in ((found.logits, expected), (found.quality, quality)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@torch.no_grad()
def test_upscaling_is_that_of_its_convolutions():
    decoder = stirred_sam().mask_decoder
    cells, vectors = torch.randn(3, 2 * 5, SAM_DIM), torch.randn(3, 4, SAM_DIM // 8)
    maps = decoder.output_upscaling(cells.transpose(1, 2).unflatten(2, (2, 5)))
    expected = torch.einsum('nmd,ndhw->nmhw', vectors, maps)
    found = decoder.draw(cells, vectors, (2, 5))
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_fewer_masks_are_the_same_masks():
    sam = stirred_sam()
    prompts = sam.prompt_encoder
    inputs = (
        torch.randn(SAM_DIM, 2, 3),
        prompts.cells((2, 3)),
        torch.randn(2, 2, SAM_DIM),
        prompts.dense(),
    )
    every, some = sam.mask_decoder(*inputs), sam.mask_decoder(*inputs, slice(1, 3))
    torch.testing.assert_close(some.logits, every.logits[:, 1:3])
    torch.testing.assert_close(some.quality, every.quality[:, 1:3])


def test_positions_are_sines_of_a_projection():
    position = stirred_sam().prompt_encoder.pe_layer
    matrix = position.positional_encoding_gaussian_matrix.double().numpy()
    x, y = 0.3, 0.8
    phase = 2 * np.pi * ((2 * x - 1) * matrix[0] + (2 * y - 1) * matrix[1])
    expected = torch.tensor([*np.sin(phase), *np.cos(phase)], dtype=torch.float32)
    torch.testing.assert_close(position(torch.tensor([x, y])), expected, rtol=0, atol=1e-5)


def test_a_point_that_is_none_has_no_place():
    encoder = stirred_sam().prompt_encoder
    places = torch.tensor([[0.2, 0.9], [0.2, 0.9]])
    nothing, point = encoder.points(places, torch.tensor([NOTHING, FOREGROUND]))
    assert torch.equal(nothing, encoder.not_a_point_embed.weight[0])
    expected = encoder.pe_layer(places[1]) + encoder.point_embeddings[1].weight[0]
    torch.testing.assert_close(point, expected)


def test_cells_of_an_oblong_are_those_of_its_square():
    encoder = stirred_sam().prompt_encoder
    assert torch.equal(encoder.cells((3, 5)), encoder.cells((5, 5))[:, :3])


def test_grid_lies_in_the_image():
    expected = [[0.25, 0.125], [0.75, 0.125], [0.25, 0.375], [0.75, 0.375]]
    assert torch.equal(point_grid(2, (0.5, 1.0)), torch.tensor(expected))


@torch.no_grad()
def test_masks_of_a_grid_come_in_chunks():
    sam, embedding = stirred_sam(), torch.randn(SAM_DIM, SIDE, SIDE)
    chunks = list(sam.masks_of_grid(embedding, 3, chunk=4))
    assert [len(chunk.logits) for chunk in chunks] == [4, 4, 1]
    whole = sam.masks(embedding, point_grid(3)[:, None])
    torch.testing.assert_close(torch.cat([c.logits for c in chunks]), whole.logits)


@torch.no_grad()
def test_images_of_any_shape_at_stride_16():
    sam = stirred_sam()
    assert sam.encode(torch.randn(2, 3, 32, 80)).shape == (2, SAM_DIM, 2, 5)
    with pytest.raises(ValueError, match='multiples of 16'):
        sam.encode(torch.randn(1, 3, 33, 80))


def test_names_of_the_public_file():
    names = list(stirred_sam().state_dict())
    assert [to_ours(to_public(name)) for name in names] == names
    # As the published file spells them.
    assert {to_public(name) for name in names} >= {
        'image_encoder.patch_embed.seq.2.bn.running_mean',
        'image_encoder.layers.0.blocks.0.conv2.c.weight',
        'image_encoder.layers.0.downsample.conv1.c.weight',
        'image_encoder.layers.1.blocks.0.attn.attention_biases',
        'image_encoder.neck.3.bias',
        'prompt_encoder.pe_layer.positional_encoding_gaussian_matrix',
        'mask_decoder.transformer.layers.1.cross_attn_image_to_token.out_proj.weight',
    }


def test_loads_strictly(tmp_path):
    path = write_sam(tmp_path / 'sam.pt')
    model = SAM.from_checkpoint(path, **toy_sam())
    for name, tensor in stirred_sam().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    tensors = torch.load(path, weights_only=True)
    del tensors['mask_decoder.iou_token.weight']
    tensors['mask_decoder.more.weight'] = torch.ones(1)
    torch.save(tensors, path)
    with pytest.raises(UserError, match=r'missing 1: mask_decoder\.iou_token.*extra 1: mask_dec'):
        SAM.from_checkpoint(path, **toy_sam())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'none\.pt.*mobile_sam\.pt'):
        read_sam(tmp_path / 'none.pt')
    torch.save({'backbone.weight': torch.ones(1)}, tmp_path / 'other.pt')
    with pytest.raises(UserError, match='expected the tensors of a SAM.*found backbone'):
        read_sam(tmp_path / 'other.pt')


def mobile_sam() -> Path:
    path = Path(os.environ.get('MMPROMPT_WEIGHTS', '')) / 'mobile_sam.pt'
    if not path.is_file():
        pytest.skip('MMPROMPT_WEIGHTS names no folder with mobile_sam.pt')
    return path


@torch.no_grad()
def test_mobile_sam_finds_a_square():
    sam = SAM.from_checkpoint(mobile_sam())
    image = torch.full((1, 3, 512, 512), -1.0)
    image[..., 128:320, 192:384] = 1.5
    answer = sam.masks(sam.encode(image)[0], torch.tensor([[[0.5625, 0.4375]]]))
    best = answer.logits[0, answer.quality[0].argmax()] > 0  # (128, 128)
    truth = torch.zeros_like(best)
    truth[32:80, 48:96] = True
    assert (best & truth).sum() / (best | truth).sum() > 0.95


@torch.no_grad()
def test_mobile_sam_encodes_as_the_published_code():
    registry = pytest.importorskip('mobile_sam').sam_model_registry
    path = mobile_sam()
    kind = 'vit_t' if 'vit_t' in registry else 'mobile_sam'
    theirs = registry[kind](checkpoint=str(path)).eval().image_encoder
    image = torch.randn(1, 3, 1024, 1024)
    found = SAM.from_checkpoint(path).encode(image)
    torch.testing.assert_close(found, theirs(image), rtol=1e-4, atol=1e-4)

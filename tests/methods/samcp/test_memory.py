"""What a training step keeps for its gradients, against a count on paper."""

import torch
from toy_samcp import toy_levels, toy_sample

from mmprompt.methods.samcp.features import ImageFeatures
from mmprompt.registry import MODELS

CLASSES, THINGS, TEXT = 40, 20, 32
CHANNELS, DIM, FFN, HIDDEN, HEADS = 8, 64, 256, 128, 8
ENCODER, DECODER = 2, 3


def counted(patches: int, noised: int) -> int:
    """Numbers that the layers must keep; M queries, N patches, D channels."""
    n, m, d = patches, noised + CLASSES + patches, DIM
    roi = CHANNELS * 49 + HIDDEN + 2 * d  # input of each layer of the MLP and of the norm
    attention = 7 * d  # queries and keys with position, their projections, output, norm
    feed_forward = d + FFN + d
    encoder = n * (attention + feed_forward)
    pairs = 3 * HEADS + 3  # of every query and patch: inputs of the MLP over heads, and logits
    layer = m * (2 * attention + feed_forward + 4 * d + roi) + n * 3 * d + m * n * pairs
    losses = 4 * m * n + 3 * m * THINGS  # focal and Dice of every layer
    return n * roi + ENCODER * encoder + DECODER * (layer + losses)


def kept(patches: int) -> tuple[int, int]:
    """Numbers that autograd keeps, of storages that are no parameter; and denoising queries."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='SAMCPHead',
            num_classes=CLASSES,
            thing_classes=range(THINGS),
            text_dim=TEXT,
            in_channels=CHANNELS,
            dim=DIM,
            patch_encoder=dict(hidden=HIDDEN, num_layers=ENCODER, ffn_dim=FFN),
            decoder=dict(num_layers=DECODER, ffn_dim=FFN),
            denoising=dict(num_queries=100),
        )
    )
    model.set_text(torch.randn(CLASSES, TEXT))
    for layer in model.decoder.layers:  # so that queries differ in their boxes
        torch.nn.init.normal_(layer.affinity.mlp[-1].weight, std=3)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    samples = [toy_sample(patches, (64, 64))]
    features = ImageFeatures([(toy_levels(), [0], (64, 64))], torch.tensor([[64.0, 64.0]]))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = model.loss(features, samples)
    assert all(value.requires_grad for value in losses.values())
    return sum(found.values()), 200


def test_a_step_keeps_at_most_twice_what_is_counted():
    for patches in (20, 150):
        numbers, noised = kept(patches)
        ratio = numbers / counted(patches, noised)
        assert 0.5 < ratio < 2, ratio

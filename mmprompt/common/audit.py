"""How many parameters are trained, tensor by tensor."""

from torch import nn


def trained_parameters(model: nn.Module) -> dict[str, int]:
    """Number of elements of every tensor of `model` that asks for a gradient, by name."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def describe_audit(model: nn.Module) -> str:
    """The trained tensors, their sum, and how much stays frozen, as a few lines of text."""
    trained = trained_parameters(model)
    total = sum(p.numel() for p in model.parameters())
    lines = [f'  {count:>12,}  {name}' for name, count in trained.items()]
    learned = sum(trained.values())
    return '\n'.join([f'trained parameters: {learned:,} (frozen: {total - learned:,})', *lines])

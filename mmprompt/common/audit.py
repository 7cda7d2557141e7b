"""How many parameters are trained, tensor by tensor."""

from collections import Counter

from torch import nn

#: Above this many trained tensors the lines are sums over the modules that own them.
MANY = 24


def trained_parameters(model: nn.Module) -> dict[str, int]:
    """Number of elements of every tensor of `model` that asks for a gradient, by name."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def describe_audit(model: nn.Module) -> str:
    """The trained tensors, their sum, and how much stays frozen, as a few lines of text."""
    trained = trained_parameters(model)
    total, learned = sum(p.numel() for p in model.parameters()), sum(trained.values())
    depth = max((name.count('.') for name in trained), default=0) + 1
    lines = trained
    while len(lines) > MANY and depth > 1:
        depth -= 1
        lines = Counter()
        for name, count in trained.items():
            lines['.'.join(name.split('.')[:depth])] += count
    shown = [f'  {count:>12,}  {name}' for name, count in lines.items()]
    return '\n'.join([f'trained parameters: {learned:,} (frozen: {total - learned:,})', *shown])

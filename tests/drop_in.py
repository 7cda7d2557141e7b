"""What the drop-in tests of SPM share: other people's configs, made small and wrapped."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

import mmprompt  # noqa: F401

#: Height and width differ, and so do those of all maps.
HEIGHT, WIDTH = 64, 96
RESNET = ['layer1', 'layer2', 'layer3', 'layer4', 'out']


def shipped(package, name: str) -> Config:
    """A config file as it lies in the installed package."""
    path = Path(package.__path__[0], '.mim/configs', name)
    if not path.is_file():
        pytest.skip(f'{package.__name__} was installed without {name}')
    return Config.fromfile(path)


def prompted(backbone: dict, places: list[str], **matcher) -> ConfigDict:
    """Config of a wrapped backbone."""
    return ConfigDict(
        type='SPMBackbone',
        backbone=copy.deepcopy(backbone),
        prompt_at=places,
        num_classes=5,
        prompter=dict(type='SPM', channels=8, **matcher),
    )


def wrap(model: ConfigDict, places: list[str]) -> ConfigDict:
    """A copy of a model's config that differs in its backbone alone."""
    wrapped = copy.deepcopy(model)
    wrapped.backbone = prompted(wrapped.backbone, places)
    return wrapped


def build(config: dict, scope: str = 'mmseg') -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return MODELS.build(copy.deepcopy(config))


def for_inference(model: nn.Module) -> nn.Module:
    """Without gradients: PyTorch has other kernels for weights that want one, other bits."""
    model.eval()  # MMPretrain's backbones return nothing
    return model.requires_grad_(False)


def stir(model: nn.Module) -> dict[str, Tensor]:
    """Its state, all of random values: running statistics and what begins at zero too."""
    generator = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for value in state.values():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            fan = value[0].numel() if value.dim() else 1
            value.copy_(noise + 0.5 if value.dim() < 2 else (noise - 0.5) * (12 / fan) ** 0.5)
    return state


def same(first, second) -> bool:
    """Equal to the bit, and of equal types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    return len(first) == len(second) and all(map(same, first, second))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers that it saves."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def train(model: nn.Module, batch: dict, steps: int) -> tuple[set[str], set[str]]:
    """Names of the losses, and of the parameters that had a nonzero gradient in any step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    wrapper = OptimWrapper(optimiser)
    reached: set[str] = set()

    def zero_grad() -> None:  # the wrapper calls it after the step
        found = model.named_parameters()
        reached.update(n for n, p in found if p.grad is not None and p.grad.any())
        optimiser.zero_grad()

    wrapper.zero_grad = zero_grad
    model.train()
    for _ in range(steps):
        losses = model.train_step(copy.deepcopy(batch), wrapper)
        assert all(value.isfinite() for value in losses.values())
    return set(losses), reached


def parts(names, prefix: str) -> set[str]:
    return {name for name in names if name.startswith(prefix)}


def check_training(model: nn.Module, batch: dict, steps: int = 3) -> set[str]:
    """Train; every matcher's parameter learns, the wrapped backbone keeps its bytes.

    Returns:
        Names of the losses.
    """
    model.backbone.load_base()
    before = state_of(model.backbone.backbone)
    losses, reached = train(model, batch, steps)
    matchers = parts(dict(model.named_parameters()), 'backbone.matchers.')
    assert matchers and matchers <= reached
    assert not parts(reached, 'backbone.backbone.')
    assert same(state_of(model.backbone.backbone), before)
    return losses

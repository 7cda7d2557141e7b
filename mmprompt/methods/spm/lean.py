"""A graph through frozen layers that keeps only what the gradient of their input needs.

PyTorch keeps the input of every convolution and normalisation for the gradient of its weights,
also where the weights are frozen. A prompted backbone needs the gradient of feature maps alone: of
a convolution the weight, of a normalisation by stored statistics the scale. Nothing else is kept
here, which halves what a frozen ResNet keeps. Values are those of the layers to the last bit.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class LeanGraph(TorchFunctionMode):
    """While it is entered, frozen 2d convolutions and batch normalisations keep less.

    Everything else (trained layers, what has no gradient to pass on) is computed as ever.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.conv2d and (bound := _conv(*args, **kwargs)):
            return _FrozenConv.apply(*bound)
        if function is F.batch_norm and (bound := _norm(*args, **kwargs)):
            return _FrozenNorm.apply(*bound)
        return function(*args, **kwargs)


def lean_graph(module: nn.Module) -> AbstractContextManager:
    """`LeanGraph`, or nothing where it cannot be.

    Parts with activation checkpoints run again in the backward, outside of it, and must keep there
    what they kept before. A compiler decides by itself what is kept.
    """
    marks = ('with_cp', 'grad_checkpointing')
    again = any(getattr(part, mark, False) for part in module.modules() for mark in marks)
    return nullcontext() if again or torch._dynamo.is_compiling() else LeanGraph()


def _passes_on(x: Tensor, *weights: Tensor | None) -> bool:
    """Tell whether a gradient goes to the input and to nothing else."""
    frozen = all(w is None or not w.requires_grad for w in weights)
    return frozen and x.requires_grad and torch.is_grad_enabled()


def _conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> tuple | None:
    if isinstance(padding, str) or not _passes_on(x, weight, bias):
        return None
    pairs = [(n, n) if isinstance(n, int) else tuple(n) for n in (stride, padding, dilation)]
    return x, weight, bias, *pairs, groups


def _norm(
    x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> tuple | None:
    if training or not _passes_on(x, weight, bias):
        return None
    return x, running_mean, running_var, weight, bias, eps


class _FrozenConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation, groups):
        ctx.save_for_backward(weight)
        ctx.like = x.shape, x.dtype, _format_of(x)
        ctx.options = stride, padding, dilation, groups
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (weight,) = ctx.saved_tensors
        shape, dtype, memory_format = ctx.like
        stride, padding, dilation, groups = ctx.options
        # The values of the input are not read: this is room, not work.
        x = torch.empty(shape, dtype=slope.dtype, device=slope.device, memory_format=memory_format)
        weight = weight.to(slope.dtype)  # autocast convolves in less than float32
        slope_of_input, _, _ = torch.ops.aten.convolution_backward(
            slope, x, weight, None, stride, padding, dilation, False, (0, 0), groups,
            (True, False, False),
        )  # fmt: skip
        return slope_of_input.to(dtype), *[None] * 6


class _FrozenNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mean, var, weight, bias, eps):
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(scale if weight is None else scale * weight)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (scale,) = ctx.saved_tensors
        scale = scale.to(slope.dtype).view(1, -1, *[1] * (slope.dim() - 2))
        return slope * scale, *[None] * 5


def _format_of(x: Tensor) -> torch.memory_format:
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format

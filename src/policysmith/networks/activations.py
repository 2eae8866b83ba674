"""Mish at the price of one exponential, x tanh(ln(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2).

PyTorch's own kernel takes a logarithm and a hyperbolic tangent besides, and on a CPU costs as much as the
convolution before it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGE = 2**14
"""Elements from which the few passes over memory are cheaper than PyTorch's single slow one."""

_SATURATED = 20.0
"""Above this x, n / (n + 2) is 1 in float32 and in float64, and e^x would overflow further on."""


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)), any shape; differentiable any number of times, also under `torch.func`."""
    if x.numel() < _LARGE or x.device.type != "cpu":
        return F.mish(x)
    if not torch.is_grad_enabled():
        n = _exponential(x)[1]
        return n.div_(n + 2).mul_(x)
    return _Mish.apply(x)[0]  # type: ignore[index]


def _exponential(x: Tensor) -> tuple[Tensor, Tensor]:
    """(e^x, n) with x bounded so that nothing overflows."""
    e = x.clamp(max=_SATURATED).exp_()
    return e, (e + 2).mul_(e)


def _slope(x: Tensor) -> Tensor:
    """The derivative, n / (n + 2) + 4 x (n - e^x) / (n + 2)^2, in operations autograd can follow."""
    e = x.clamp(max=_SATURATED).exp()
    n = e * (e + 2)
    return n / (n + 2) + 4 * x * (n - e) / (n + 2).square()


class _Mish(torch.autograd.Function):
    """Computes the slope together with the value, while the exponential is at hand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        e, n = _exponential(x)
        rising = n - e
        above = n + 2
        gate = n.div_(above)
        rising.div_(above).div_(above)
        return x * gate, torch.addcmul(gate, x, rising, value=4)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:  # type: ignore[override]
        x, slope = ctx.saved_tensors
        # Recording: the slope must be a function of x for whoever differentiates again.
        return grad * (_slope(x) if torch.is_grad_enabled() else slope)

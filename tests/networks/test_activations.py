"""Mish against PyTorch's, for tensors large enough to take the other way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from policysmith.networks.activations import mish


def values(limit: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.linspace(-limit, limit, 2**14 + 1, dtype=dtype)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("limit", [1e-3, 5.0, 100.0, 1e30])
def test_mish_equals_pytorch_s_and_never_overflows(limit, mode):
    x = values(limit)
    with mode():
        torch.testing.assert_close(mish(x), F.mish(x), atol=1e-6, rtol=1e-6)


def test_its_slope_and_the_slope_of_its_slope_are_those_of_the_formula():
    x = values(60.0, torch.float64).requires_grad_()
    slopes = []
    for function in (mish, lambda x: x * torch.tanh(F.softplus(x, threshold=100))):
        (plain,) = torch.autograd.grad(function(x).sum(), x)
        (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        slopes.append((plain, first.detach(), second))
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-7)


def test_it_can_be_mapped_over_and_differentiated_by_torch_func():
    x = values(5.0).repeat(2, 1)
    per_row = torch.vmap(torch.func.grad(lambda row: mish(row).sum()))(x)
    expected = torch.func.grad(lambda rows: F.mish(rows).sum())(x)
    torch.testing.assert_close(per_row, expected, atol=1e-5, rtol=1e-5)

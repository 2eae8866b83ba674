"""Tall products: cut into blocks, the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from policysmith.networks import products
from policysmith.networks.products import evened, linear


@pytest.mark.parametrize("outputs", [8, 10, 3])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_in_blocks_is_the_product(monkeypatch, outputs, shape, with_bias):
    monkeypatch.setattr(products, "BLOCK", 4)
    monkeypatch.setattr(products, "TALL", 4)
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(shape, generator=rng), torch.randn(outputs, 5, generator=rng)
    bias = torch.randn(outputs, generator=rng) if with_bias else None
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


def test_gradients_flow_where_they_are_asked_for():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(products.TALL, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(2, 3))
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand(products.TALL, 3))


@pytest.mark.parametrize(("axis", "shape"), [(0, (8, 5)), (1, (3, 8))])
def test_an_evened_matrix_has_zeros_behind_it(axis, shape):
    weight = torch.ones(shape).narrow(axis, 0, 5 if axis == 1 else 3)
    more = evened(weight, axis)
    assert more.shape == shape
    assert float(more.sum()) == weight.numel()
    assert bool((more.narrow(axis, 0, weight.shape[axis]) == 1).all())


def test_an_even_matrix_is_left_as_it_is():
    weight = torch.ones(16, 3)
    assert evened(weight, 0) is weight

"""Encodings of scalars: the published numbers, what stays bounded, where gradients go."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.networks.embeddings import ScalarEncoding


def test_encoding_of_ten_in_six_entries():
    expected = torch.tensor([-0.54402111, -0.83907153, 0.44767083, 0.89419843, 0.02154268, 0.99976793])
    assert torch.allclose(ScalarEncoding(6, base=10_000)(torch.tensor(10.0)), expected, atol=1e-6)


def test_each_row_of_a_batch_is_encoded_alone():
    encoding = ScalarEncoding(4, base=100)
    values = torch.tensor([[0.0, 1.5, 3.0], [2.0, 2.5, -1.0]])
    encoded = encoding(values)
    assert encoded.shape == (2, 3, 4)
    assert torch.equal(encoded[1, 2], encoding(torch.tensor(-1.0)))
    # base^(2/4) = 10: the second pair turns a tenth as fast.
    expected = [math.sin(1.5), math.cos(1.5), math.sin(0.15), math.cos(0.15)]
    assert torch.allclose(encoded[0, 1], torch.tensor(expected))


def test_sine_and_cosine_of_a_pair_lie_on_the_unit_circle():
    encoded = ScalarEncoding(8)(torch.linspace(-50, 50, 101))
    assert torch.allclose(encoded.unflatten(-1, (4, 2)).square().sum(-1), torch.ones(101, 4), atol=1e-5)


def test_a_gradient_reaches_the_scalar():
    value = torch.tensor(1.0, requires_grad=True)
    ScalarEncoding(2)(value)[0].backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(torch.tensor(1.0).cos().item())


@pytest.mark.parametrize("size", [-2, 0, 5])
def test_an_odd_or_empty_encoding_is_refused(size):
    with pytest.raises(SettingError, match="encoding size must be even"):
        ScalarEncoding(size)


def test_a_base_that_does_not_slow_down_is_refused():
    with pytest.raises(SettingError, match="above 1"):
        ScalarEncoding(6, base=1.0)

"""Convolutions as matrix products against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError
from policysmith.networks.convolutions import Convolution, Doubling, Halving, frequency_matrices


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 20), half=st.integers(0, 4), seed=st.integers(0, 2**20))
def test_frequencies_convolve_exactly(length, half, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(length, generator=rng, dtype=torch.float64)
    w = torch.randn(2 * half + 1, generator=rng, dtype=torch.float64)
    analysis, kernel_analysis, synthesis = frequency_matrices(length, len(w))
    expected = F.conv1d(x.view(1, 1, -1), w.view(1, 1, -1), padding=half).view(-1)
    torch.testing.assert_close(synthesis @ ((analysis @ x) * (kernel_analysis @ w)), expected)


def test_sixteen_positions_under_a_kernel_of_five_take_26_products_instead_of_80():
    assert len(frequency_matrices(16, 5)[0]) == 26
    assert len(frequency_matrices(8, 5)[0]) == 14


@pytest.mark.parametrize("batch", [1, 200])
@pytest.mark.parametrize(
    ("length", "kernel", "before", "after"), [(16, 5, 32, 24), (7, 3, 4, 48), (1, 5, 8, 8)]
)
def test_a_convolution_equals_conv1d(length, kernel, before, after, batch):
    ours = Convolution(before, after, kernel, length=length)
    x = torch.randn(batch, length, before, generator=torch.Generator().manual_seed(0))
    weight = ours.weight.view(kernel, before, after).permute(2, 1, 0)
    expected = F.conv1d(x.mT, weight, ours.bias, padding=kernel // 2).mT
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=0)
    ours.frequency_batch = 1  # whatever pays, both ways give the same
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=0)


def test_frequencies_are_used_for_large_batches_only_and_never_where_they_do_not_pay():
    assert 8 < Convolution(64, 64, 5, length=16).frequency_batch < 128
    assert Convolution(4, 64, 5, length=16).frequency_batch == float("inf")


def test_halving_equals_a_convolution_of_stride_two():
    ours = Halving(6)
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    weight = ours.weight.view(3, 6, 6).permute(2, 1, 0)
    torch.testing.assert_close(ours(x), F.conv1d(x.mT, weight, ours.bias, stride=2, padding=1).mT)


def test_doubling_equals_a_transposed_convolution():
    ours = Doubling(6)
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    weight = ours.weight.view(6, 4, 6).permute(0, 2, 1)
    expected = F.conv_transpose1d(x.mT, weight, ours.bias, stride=2, padding=1).mT
    torch.testing.assert_close(ours(x), expected)


def test_weights_start_in_the_range_in_which_pytorch_s_start():
    for ours, plain in (
        (Convolution(16, 128, 5, length=8), torch.nn.Conv1d(16, 128, 5)),
        (Halving(128), torch.nn.Conv1d(128, 128, 3)),
        (Doubling(128), torch.nn.ConvTranspose1d(128, 128, 4)),
    ):
        for name in ("weight", "bias"):
            range_of_ours = float(getattr(ours, name).detach().abs().max())
            assert range_of_ours == pytest.approx(float(getattr(plain, name).detach().abs().max()), rel=0.25)


def test_an_even_kernel_is_refused():
    with pytest.raises(SettingError, match="odd width"):
        Convolution(4, 4, 4, length=8)

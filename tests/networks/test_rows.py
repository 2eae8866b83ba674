"""The denoiser of rows: its parts as the paper has them, and what it checks."""

from __future__ import annotations

import math

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.networks.embeddings import RandomFourierEmbedding
from policysmith.networks.rows import RowDenoiser

NOTHING = torch.empty(3, 0)


def test_random_fourier_features_are_the_value_its_sines_and_its_cosines():
    embed = RandomFourierEmbedding(4)
    embed.frequencies.copy_(torch.tensor([0.25, 1.0]))
    quarter = embed(torch.tensor([1.0, 0.5]))
    assert quarter[0].tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0, 1.0], abs=1e-6)
    half = math.sqrt(0.5)
    assert quarter[1].tolist() == pytest.approx([0.5, half, 0.0, half, -1.0], abs=1e-6)


def test_sixteen_features_make_seventeen_numbers_that_are_saved_and_not_learnt():
    embed = RandomFourierEmbedding(16)
    assert embed(torch.zeros(2, 3)).shape == (2, 3, 17)
    assert "frequencies" in embed.state_dict()
    assert not list(embed.parameters())


def test_an_odd_number_of_features_is_refused():
    with pytest.raises(SettingError, match="size 3"):
        RandomFourierEmbedding(3)


def test_without_layers_the_network_is_linear_where_the_hidden_units_are_on():
    network = RowDenoiser(2, width=3, depth=0, level_size=2)
    with torch.no_grad():
        network.widen.bias.fill_(100.0)
    x = torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(0))
    level = torch.zeros(3)
    middle = network((x + x.flip(0)) / 2, level, NOTHING)
    ends = network(x, level, NOTHING)
    assert torch.allclose(middle, (ends + ends.flip(0)) / 2, atol=1e-4)


def test_a_layer_adds_what_it_says_of_the_positive_part():
    network = RowDenoiser(1, width=2, depth=1, level_size=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.widen.bias.copy_(torch.tensor([2.0, -3.0]))
        network.layers[0].weight.copy_(torch.tensor([[1.0, 7.0], [2.0, 7.0]]))
        network.output.weight.copy_(torch.tensor([[1.0, 10.0]]))
    # (2, -3) + W relu(2, -3) = (2 + 2, -3 + 4), and then 4 + 10.
    assert network(torch.zeros(3, 1, 1), torch.zeros(3), NOTHING).flatten().tolist() == [14.0] * 3


def test_the_level_is_told():
    network = RowDenoiser(2, width=8, depth=2, level_size=4)
    x = torch.zeros(3, 1, 2)
    told = [network(x, torch.full((3,), level), NOTHING) for level in (-1.0, 1.0)]
    assert not torch.allclose(*told)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="action 2"):
        RowDenoiser(2, width=8, depth=1, level_size=4)(torch.zeros(3, 1, 5), torch.zeros(3), NOTHING)

"""How long the units of a memory remember to begin with."""

import pytest
import torch
from torch import nn

from policysmith.common.errors import SettingError
from policysmith.networks.bodies import spread_memory


def still(kind):
    """A cell of three units into which nothing comes, neither from outside nor from the others."""
    cell = kind(2, 3)
    for parameter in cell.parameters():
        nn.init.zeros_(parameter)
    return cell


def test_units_keep_shares_that_spread_from_half_to_one_less_one_step_in_so_many():
    cell = still(nn.GRUCell)
    spread_memory(cell, 4)  # T - 1 = 1, 2, 3
    after = cell(torch.zeros(1, 2), torch.ones(1, 3))
    assert after[0].tolist() == pytest.approx([1 / 2, 2 / 3, 3 / 4])


def test_of_an_lstm_what_is_kept_and_what_is_taken_in_add_up_to_one():
    cell = still(nn.LSTMCell)
    spread_memory(cell, 4)
    cell.bias_ih.data[6:9] = 100.0  # the candidate is 1
    _, kept = cell(torch.zeros(1, 2), (torch.zeros(1, 3), torch.ones(1, 3)))
    assert kept[0].tolist() == pytest.approx([1.0, 1.0, 1.0])
    _, taken = cell(torch.zeros(1, 2), (torch.zeros(1, 3), torch.zeros(1, 3)))
    assert taken[0].tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 4])


def test_gradient_reaches_back_over_a_memorys_span_and_hardly_at_all_without():
    def reach(spread):
        torch.manual_seed(0)
        cell = nn.GRUCell(2, 16)
        if spread:
            spread_memory(cell, 40)
        first = torch.zeros(1, 16, requires_grad=True)
        memory = first
        for _ in range(30):
            memory = cell(torch.zeros(1, 2), memory)
        (gradient,) = torch.autograd.grad(memory.sum(), first)
        return float(gradient.norm())

    assert reach(spread=True) > 0.1
    assert reach(spread=False) < 1e-4


def test_memories_of_a_single_step_are_refused():
    with pytest.raises(SettingError, match="1 steps"):
        spread_memory(nn.GRUCell(2, 3), 1)

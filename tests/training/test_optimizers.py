"""The lean optimiser takes the steps of PyTorch's, and may stand in its place."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from policysmith.training.optimizers import LeanAdam, adam


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def gradients(module: nn.Module, number: int, *, without_last: bool = False) -> None:
    rng = torch.Generator().manual_seed(number)
    weights = list(module.parameters())
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=rng)
    if without_last:
        weights[-1].grad = None


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"eps": 1e-5, "betas": (0.5, 0.9)}, {"weight_decay": 0.1}])
def test_steps_are_those_of_pytorchs_fused_adam_bit_for_bit(settings):
    ours, theirs = network(), network()
    lean = adam(ours, 1e-2, **settings)
    plain = torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True, **settings)
    for number in range(6):
        for module, optimizer in ((ours, lean), (theirs, plain)):
            gradients(module, number)
            optimizer.param_groups[0]["lr"] = 1e-2 / (number + 1)
            optimizer.step()
        assert same(ours, theirs)


def test_a_weight_without_a_gradient_stays_where_it_is_and_its_moments_too():
    ours, theirs = network(), network()
    lean, plain = adam(ours, 1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for number in range(6):
        for module, optimizer in ((ours, lean), (theirs, plain)):
            gradients(module, number, without_last=number in (0, 3))
            optimizer.step()
        assert same(ours, theirs)


def test_checkpoints_of_either_serve_the_other():
    ours, theirs = network(), network()
    lean, plain = adam(ours, 1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for number in range(3):
        gradients(theirs, number)
        plain.step()
    ours.load_state_dict(theirs.state_dict())
    lean.load_state_dict(deepcopy(plain.state_dict()))
    for number in range(3, 6):
        for module, optimizer in ((ours, lean), (theirs, plain)):
            gradients(module, number)
            optimizer.step()
        assert same(ours, theirs)
    again = LeanAdam(ours.parameters(), lr=1e-2)
    again.load_state_dict(lean.state_dict())
    assert torch.equal(again.state_dict()["state"][0]["exp_avg"], plain.state_dict()["state"][0]["exp_avg"])


def test_loading_in_the_middle_is_heeded_by_the_next_step():
    ours, theirs = network(), network()
    lean, plain = adam(ours, 1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    for number in range(3):
        gradients(ours, number)
        lean.step()
    ours.load_state_dict(theirs.state_dict())
    gradients(theirs, 9)
    plain.step()
    ours.load_state_dict(theirs.state_dict())
    lean.load_state_dict(deepcopy(plain.state_dict()))
    for module, optimizer in ((ours, lean), (theirs, plain)):
        gradients(module, 10)
        optimizer.step()
    assert same(ours, theirs)


def test_weights_of_two_groups_have_their_own_rates():
    ours, theirs = network(), network()

    def groups(module: nn.Module) -> list[dict]:
        first, *rest = module.parameters()
        return [{"params": [first], "lr": 1e-1}, {"params": rest}]

    lean, plain = LeanAdam(groups(ours), lr=1e-3), torch.optim.Adam(groups(theirs), lr=1e-3, fused=True)
    for number in range(4):
        for module, optimizer in ((ours, lean), (theirs, plain)):
            gradients(module, number)
            optimizer.step()
        assert same(ours, theirs)


def test_moments_that_are_taken_away_begin_anew():
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    lean, plain = LeanAdam([weights[0]], lr=0.1), torch.optim.Adam([weights[1]], lr=0.1, fused=True)
    for step in range(6):
        for weight, optimizer in zip(weights, (lean, plain), strict=True):
            weight.grad = torch.full((3,), float(step + 1))
            if step == 3:
                optimizer.state.clear()
            optimizer.step()
    assert torch.equal(*weights)

"""Exact preference games: worked steps, equilibria by two ways, guarantees, and bad tables."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.preference_games import (
    divergence,
    duality_gap,
    exploitability,
    geometric_mixture,
    nash_by_linear_programme,
    nash_md,
    regularised_nash,
    soft_policy_iteration,
    win_rate,
    win_rate_rewards,
)
from policysmith.objectives.preferences import soft_preference_loss

CYCLE = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]).double()
MU = torch.tensor([0.2, 0.5, 0.3]).double()


def random_game(seed: int, count: int) -> torch.Tensor:
    above = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)).double().triu(1)
    return (
        above
        + torch.where(torch.ones(count, count).tril(-1).bool(), 1 - above.t(), 0.0)
        + 0.5 * torch.eye(count, dtype=torch.double)
    )


def test_worked_steps_of_nash_md():
    path = nash_md(CYCLE, MU, tau=0.1, steps=2)
    assert path[1].tolist() == pytest.approx([0.471098, 0.433268, 0.095634], abs=1e-6)
    mixture = geometric_mixture(path[1], MU, weight=2 / 3)
    assert mixture.tolist() == pytest.approx([0.280784, 0.502977, 0.216239], abs=1e-6)
    assert path[2].tolist() == pytest.approx([0.579645, 0.304997, 0.115358], abs=1e-6)
    constant = nash_md(CYCLE, MU, tau=0.1, steps=1, eta=1.0)
    assert constant[1].tolist() == pytest.approx([0.222708, 0.503786, 0.273507], abs=1e-6)


def test_the_equilibria_of_a_cycle():
    assert nash_by_linear_programme(CYCLE).tolist() == pytest.approx([0.3, 0.3, 0.4], abs=1e-6)
    assert exploitability(CYCLE, nash_by_linear_programme(CYCLE)) == pytest.approx(0, abs=1e-6)
    limit = regularised_nash(CYCLE, MU, tau=0.1)
    assert limit.tolist() == pytest.approx([0.3396, 0.3493, 0.3112], abs=1e-4)
    fixed = torch.softmax(MU.log() + win_rate_rewards(CYCLE, limit) / 0.1, 0)
    assert torch.allclose(fixed, limit, atol=1e-8)
    assert duality_gap(CYCLE, MU, limit, tau=0.1) == pytest.approx(0, abs=1e-9)


def test_the_last_policy_of_nash_md_converges_at_least_as_fast_as_proven():
    limit = regularised_nash(CYCLE, MU, tau=0.1)
    path = nash_md(CYCLE, MU, tau=0.1, steps=1000)
    for step in (1, 10, 100, 1000):
        assert divergence(limit, path[step]) <= 8 / (0.1**2 * (step + 1))
    gaps = [divergence(limit, path[step]) for step in (10, 100, 1000)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-6


def test_an_outcome_comes_back_from_less_probability_than_a_number_can_hold():
    """In nats, each step's own eta times the wins on top of the shrunk ones before, MU's logs left aside."""
    path = nash_md(CYCLE, MU, tau=1e-4, steps=4)
    # eta 10000, wins against MU (0.61, 0.51, 0.41): (0, -1000, -2000)
    assert path[1].tolist() == pytest.approx([1, 0, 0], abs=1e-300)
    # a third of it, eta 6667, wins against the first (0.5, 0.1, 0.8): (3333, 333, 4667), the last is back
    assert path[2].tolist() == pytest.approx([0, 0, 1], abs=1e-300)
    # half of it, eta 5000, wins against the last (0.2, 0.8, 0.5): (333, 1833, 2500)
    assert float(path[3][1].log()) == pytest.approx(1833.3 - 2500, abs=2)
    # 0.6 of it, eta 4000: (-500, 2800, 2000)
    assert path[4].tolist() == pytest.approx([0, 1, 0], abs=1e-300)


def test_nash_md_without_a_penalty_to_speak_of_finds_every_outcome_of_a_cycle_again():
    path = nash_md(CYCLE, MU, tau=1e-4, steps=3000)
    assert bool(path.isfinite().all())
    assert torch.allclose(path.sum(1), torch.ones(3001).double())
    assert path[1:].mean(0).tolist() == pytest.approx([0.3, 0.3, 0.4], abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_a_small_penalty_is_nearly_none(seed):
    wins = random_game(seed, 6)
    uniform = torch.full((6,), 1 / 6).double()
    assert exploitability(wins, nash_by_linear_programme(wins)) < 1e-6
    near, far = (exploitability(wins, regularised_nash(wins, uniform, tau=tau)) for tau in (0.05, 0.5))
    assert near < far


@pytest.mark.parametrize("tau", [0.003, 0.01, 0.05, 0.1, 1.0])
@pytest.mark.parametrize("count", [3, 20, 50])
def test_an_equilibrium_is_found_under_any_penalty(count, tau):
    wins, uniform = random_game(count, count), torch.full((count,), 1 / count).double()
    policy = regularised_nash(wins, uniform, tau=tau)
    assert duality_gap(wins, uniform, policy, tau=tau) == pytest.approx(0, abs=1e-9)


def test_a_worked_step_of_soft_policy_iteration_and_its_guarantee():
    step = soft_policy_iteration(CYCLE, MU, eta=0.5)
    assert win_rate_rewards(CYCLE, MU).tolist() == pytest.approx([0.61, 0.51, 0.41])
    assert step.tolist() == pytest.approx([0.246773, 0.505102, 0.248125], abs=1e-6)
    won = win_rate(CYCLE, step, MU)
    assert won == pytest.approx(0.509865, abs=1e-6)
    assert won >= 0.5 + 0.5 * divergence(step, MU)
    assert 0.5 + 0.5 * divergence(step, MU) == pytest.approx(0.504941, abs=1e-6)


def test_the_step_is_where_the_regression_on_win_rates_is_least():
    step, wins = soft_policy_iteration(CYCLE, MU, eta=0.5), win_rate_rewards(CYCLE, MU)
    ratio = step.log() - MU.log()
    margin = ratio[:, None] - ratio[None]
    target = torch.sigmoid(wins[:, None] - wins[None])
    assert torch.allclose(torch.sigmoid(0.5 * margin), target, atol=1e-9)
    loss = soft_preference_loss(margin, target, beta=0.5)
    assert float(loss[0, 2]) == pytest.approx(0.688172, abs=1e-6)
    assert float(soft_preference_loss(0 * margin, target, beta=0.5)[0, 2]) == pytest.approx(
        0.693147, abs=1e-6
    )


def test_without_a_penalty_only_the_average_converges():
    policy, uniform = MU, []
    for _ in range(2000):
        policy = soft_policy_iteration(CYCLE, policy, eta=1.0)
        uniform.append(policy)
    assert exploitability(CYCLE, torch.stack(uniform).mean(0)) < 0.01
    assert exploitability(CYCLE, policy) > 0.2


def test_a_mixture_of_tokens():
    mixed = geometric_mixture(
        torch.tensor([2.0, 0, -1]).softmax(0), torch.tensor([0.0, 1, 0]).softmax(0), weight=0.25
    )
    assert mixed.tolist() == pytest.approx([0.718440, 0.205837, 0.075723], abs=1e-6)


def test_a_mixture_that_is_the_reference_has_outcomes_that_the_policy_excludes():
    excluding = torch.tensor([0.5, 0.5, 0.0]).double()
    assert geometric_mixture(excluding, MU, weight=1.0).tolist() == pytest.approx(MU.tolist())
    assert geometric_mixture(excluding, MU, weight=0.5)[2] == 0


def test_bad_tables_and_steps_are_said():
    with pytest.raises(DataError, match="sum to 1"):
        exploitability(torch.full((2, 2), 0.6), MU[:2])
    with pytest.raises(DataError, match=r"P\[0, 1\] is 1\.5"):
        exploitability(torch.tensor([[0.5, 1.5], [-0.5, 0.5]]), MU[:2])
    with pytest.raises(DataError, match="no probability"):
        nash_md(CYCLE, torch.tensor([0.5, 0.5, 0.0]), tau=0.1, steps=1)
    for wrong in ({"tau": 0.0}, {"tau": 0.5, "eta": 3.0}, {"tau": 0.1, "eta": 0.0}):
        with pytest.raises(SettingError, match="tau"):
            nash_md(CYCLE, MU, steps=1, **wrong)
    with pytest.raises(SettingError, match="weight"):
        geometric_mixture(MU, MU, weight=1.5)
    with pytest.raises(SettingError, match="eta"):
        soft_policy_iteration(CYCLE, MU, eta=0)

"""The experiment with games: what its rivals are, and that the claim can fail."""

import pytest
import torch

from policysmith.claims import nash_md as experiment
from policysmith.claims.common.games import cycle
from policysmith.common.stages import result_of
from policysmith.objectives.preference_games import duality_gap, regularised_nash


def test_a_cycle_has_no_outcome_that_none_beats():
    for seed in range(5):
        wins = cycle(seed)
        assert torch.allclose(wins + wins.t(), torch.ones(3, 3).double())
        assert bool(((wins >= 0.6).sum(1) == 1).all())


def test_the_fitted_reward_is_right_where_preferences_have_one():
    reward = torch.tensor([1.0, 0.0, -2.0]).double()
    wins = torch.sigmoid(reward[:, None] - reward[None])
    found = experiment.fitted_reward(wins, torch.tensor([0.2, 0.5, 0.3]).double())
    assert torch.allclose(found - found[1], reward, atol=1e-4)


def test_only_nash_md_comes_to_the_equilibrium(tmp_path):
    found = result_of(experiment.reproduce(seeds=range(8), folder=tmp_path))
    gap = experiment.gap_in(experiment.CYCLE)
    at = {arm.name: arm.summary[gap].value for arm in found.arms}
    assert at[experiment.NASH_MD] < 1e-5 < 1e-3 < at[experiment.BEST_ANSWER]
    reference = experiment.start_of(0, 3)
    goal = regularised_nash(cycle(0), reference, tau=experiment.TAU)
    assert duality_gap(cycle(0), reference, goal, tau=experiment.TAU) == pytest.approx(0, abs=1e-9)
    assert experiment.plot(found)[1].axes


def test_too_few_steps_do_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "STEPS", 1)
    assert result_of(experiment.reproduce(seeds=range(8), folder=tmp_path)).verdict != "holds"

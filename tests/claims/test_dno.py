"""The experiment with games: the regression, what a step gains, where steps end, and that it can fail."""

import pytest
import torch

from policysmith.claims import dno as experiment
from policysmith.claims.common.games import at_random
from policysmith.common.stages import result_of
from policysmith.objectives.preference_games import soft_policy_iteration


def test_the_regression_is_a_step_of_policy_iteration():
    wins = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]).double()
    policy = torch.tensor([0.2, 0.5, 0.3]).double()
    found = experiment.regressed(wins, policy, eta=0.5)
    assert found.tolist() == pytest.approx([0.246773, 0.505102, 0.248125], abs=1e-5)


def test_a_step_that_is_not_the_closed_form_gains_less_than_promised(monkeypatch):
    wins, start = at_random(0, 10), torch.full((10,), 0.1).double()
    monkeypatch.setattr(experiment, "STEPS", 5)
    assert experiment.played(wins, start)[1] == 0
    away = lambda wins, policy, eta: 2 * policy - soft_policy_iteration(wins, policy, eta=eta)  # noqa: E731
    monkeypatch.setattr(experiment, "soft_policy_iteration", away)
    assert experiment.played(wins, start)[1] > 1e-3


def test_the_average_is_unbeaten_and_the_last_policy_of_a_cycle_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "STEPS", 600)
    found = result_of(experiment.reproduce(seeds=range(4), folder=tmp_path))
    at = {arm.name: arm.summary for arm in found.arms}
    metric = f"{experiment.EXPLOITED}, cycle"
    assert at[experiment.AVERAGE][metric].value < 0.03 < 0.1 < at[experiment.LAST][metric].value
    assert experiment.plot(found)[1].axes

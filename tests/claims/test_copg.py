"""The experiment on bandits: exact regret, pairs as they are drawn, and where losses come to rest."""

import pytest
import torch

from policysmith.claims import copg as experiment
from policysmith.common.stages import result_of


def test_regret_is_that_of_the_paper_at_the_start_and_none_at_the_optimum():
    bandits = experiment.small([0])
    start = torch.zeros_like(bandits.reward)
    assert float(bandits.regret(start)) == pytest.approx(0.29187, abs=1e-5)
    best = torch.tensor([[0.705385, 0.259496, 0.035119]]).double()
    assert float(bandits.regret((3 * best).log())) == pytest.approx(0, abs=1e-6)


def test_pairs_are_drawn_by_the_writers_and_labelled_by_the_rewards():
    bandits = experiment.small([0])
    expected = torch.tensor(experiment.FIRST)[:, None] * torch.tensor(experiment.SECOND)
    assert torch.allclose(bandits.drawn[0].float(), expected, atol=0.02)
    assert float(bandits.drawn.sum()) == pytest.approx(1)
    share = float(bandits.won[0, 0, 2] / bandits.drawn[0, 0, 2])
    assert share == pytest.approx(float(torch.sigmoid(torch.tensor(1.5))), abs=0.05)


def test_losses_come_to_rest_where_the_record_says(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "STEPS", 700)
    monkeypatch.setattr(experiment, "large", experiment.small)
    found = result_of(experiment.reproduce(seeds=[0, 1, 2], folder=tmp_path, evaluate=0))
    at = {arm.name: arm.summary[experiment.SMALL].value for arm in found.arms}
    assert at[experiment.COPG] < 1e-3
    assert at[experiment.IPO] == pytest.approx(0.1525, rel=0.1)
    assert at[experiment.PLAIN] > at["before"]
    assert found.verdict == "holds"
    _, figure = experiment.plot(found)
    assert figure.axes

"""The experiment on wrong labels: its problems, its fits, and a verdict from a few of them."""

import torch

from policysmith.claims import robust_dpo as experiment
from policysmith.common.stages import result_of


def test_many_clean_pairs_find_the_truth_and_the_gap_is_exact():
    problem = experiment.Problem.draw(0)
    assert abs(float(problem.truth.norm()) - experiment.NORM) < 1e-9
    assert problem.gap(problem.truth) == 0
    found = experiment.fit(experiment.losses(0.0)[experiment.DPO], problem.pairs(8000, 0.0, 0))
    assert problem.gap(found) < 0.01 < problem.gap(torch.zeros(experiment.FEATURES).double())


def test_pairs_are_turned_round_at_the_rate_that_is_asked_for():
    problem = experiment.Problem.draw(1)
    clean, noisy = (problem.pairs(4000, rate, 1) for rate in (0.0, 0.4))
    turned = (clean == -noisy).all(1).float().mean()
    assert 0.37 < float(turned) < 0.43
    assert torch.equal(clean.abs(), noisy.abs())


def test_the_correction_is_nearer_than_its_rivals_at_the_sizes_of_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "RATES", (0.0, 0.2, 0.4))
    found = result_of(experiment.reproduce(seeds=[0, 1, 2, 3], folder=tmp_path, evaluate=0))
    assert [one.verdict for one in found.comparisons[:4]] == ["holds"] * 4
    caption, figure = experiment.plot(found)
    assert "40%" in caption
    assert len(figure.axes[0].lines) >= len(found.arms)

"""Reports on pairs: accuracy, calibration and accuracy by gap, by hand and in their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.evaluation.preference_reports import pair_report, preference_findings, reliability_figure


def logit(p):
    return math.log(p / (1 - p))


def test_accuracy_counts_ties_as_half():
    report = pair_report([1.0, 2.0, -1.0, 0.0])
    assert report.accuracy.value == pytest.approx(0.625)
    assert report.accuracy.low < 0.5 < 0.625 < report.accuracy.high
    assert report.pairs == 4


def test_the_loss_is_that_of_bradley_and_terry():
    margin = [1.5, -0.5]
    expected = (math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(0.5))) / 2
    assert pair_report(margin).loss == pytest.approx(expected)
    assert math.isfinite(pair_report([-1e4]).loss)


def test_calibration_by_hand():
    # Bins of confidence [.5, .75) and [.75, 1]: two of three right at 0.6, one of two right at 0.9.
    margin = [logit(0.6), logit(0.6), -logit(0.6), logit(0.9), -logit(0.9)]
    report = pair_report(margin, bins=2)
    low, high = report.reliability
    assert (low.low, low.high, low.pairs) == (0.5, 0.75, 3)
    assert (low.expected, low.right.value) == (pytest.approx(0.6), pytest.approx(2 / 3))
    assert (high.expected, high.right.value) == (pytest.approx(0.9), pytest.approx(0.5))
    expected = 3 / 5 * abs(2 / 3 - 0.6) + 2 / 5 * abs(0.5 - 0.9)
    assert report.calibration_error == pytest.approx(expected)


def test_pairs_drawn_by_their_own_probabilities_are_calibrated_and_surer_ones_are_not():
    rng = np.random.default_rng(0)
    margin = rng.normal(size=20_000) * 1.5
    right = rng.random(20_000) < 1 / (1 + np.exp(-np.abs(margin)))
    signed = np.where(right, np.abs(margin), -np.abs(margin))
    assert pair_report(signed).calibration_error < 0.015
    assert pair_report(3 * signed).calibration_error > 0.1
    assert pair_report(3 * signed).accuracy.value == pair_report(signed).accuracy.value


def test_a_certain_margin_falls_into_the_last_bin():
    (part,) = pair_report([50.0, 60.0]).reliability
    assert (part.high, part.pairs, part.expected) == (1.0, 2, pytest.approx(1.0))


def test_accuracy_by_gap_has_parts_of_equal_numbers():
    gap = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.7])
    margin = torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    near, far = pair_report(margin, gap=gap, parts=2).by_gap
    assert (near.low, near.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert (far.low, far.high) == (pytest.approx(0.7), pytest.approx(0.9))
    assert (near.right.value, far.right.value) == (pytest.approx(1 / 3), 1.0)
    assert len(pair_report([1.0], gap=[0.5], parts=4).by_gap) == 1
    assert pair_report(margin).by_gap == ()


def test_chance_is_told_from_a_model_that_has_learnt():
    assert pair_report([1.0, -1.0] * 50).untrained
    assert pair_report([0.0] * 1000).untrained
    assert not pair_report([1.0, 1.0, 1.0, -1.0] * 50).untrained


@pytest.mark.parametrize(
    ("given", "error", "what"),
    [
        ({"margin": []}, DataError, "no pairs"),
        ({"margin": [0.0, math.nan]}, DataError, "margin is nan(.|\n)*pair 1"),
        ({"margin": [[0.0]]}, ShapeError, r"\[1, 1\]"),
        ({"margin": [0.0], "gap": [1.0, 2.0]}, ShapeError, "2 gaps for 1 margins"),
        ({"margin": [0.0], "gap": [math.inf]}, DataError, "gap is inf"),
        ({"margin": [0.0], "bins": 0}, SettingError, "0 bins"),
    ],
)
def test_what_cannot_be_reported_on_is_named(given, error, what):
    with pytest.raises(error, match=what):
        pair_report(given.pop("margin"), **given)


def test_findings_say_what_to_be_careful_about():
    good = preference_findings(pair_report([1.0, 1.0, 1.0, -1.0] * 50, gap=[1.0] * 200), title="a model")
    assert good.notices == []
    assert [table.caption for table in good.tables] == ["Pairs by confidence", "Pairs by gap"]
    assert good.summary["pairs"] == 200
    chance = preference_findings(pair_report([4.0, -4.0] * 50), title="a model")
    assert "no better than chance" in chance.notices[0]
    assert "surer than it is right" in chance.notices[1]
    shy = preference_findings(pair_report([0.1] * 50), title="a model")
    assert "less sure than it is right" in shy.notices[0]
    assert good.to_json()["accuracy"]["value"] == pytest.approx(0.75)


def test_the_reliability_diagram_has_a_point_for_every_bin():
    report = pair_report([logit(0.6)] * 3 + [logit(0.9)] * 2, bins=2)
    axes = reliability_figure(report).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in points] == pytest.approx([0.6, 0.9])
    assert [float(line.get_ydata()[0]) for line in points] == [1.0, 1.0]

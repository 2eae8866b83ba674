"""The experiment of FamO2O: what its arms share, how the best balance is found, what decides the verdict."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics")

from policysmith.claims import famo2o as experiment
from policysmith.claims.common import fine_tuning
from policysmith.claims.common.imitation import Task
from policysmith.common.stages import result_of
from policysmith.experience.demonstrations import Demonstrations
from policysmith.systems import famo2o

MARKS = (10, 11, 12)


def returns(**levels):
    """Arms whose return is the same in every run, time and episode."""
    rng = np.random.default_rng(0)
    return {name: level + 0.01 * rng.standard_normal((3, len(MARKS), 4)) for name, level in levels.items()}


def arms_of(ours, at_random=-80.0, singles=(-90.0, -60.0, -75.0)):
    named = dict(zip(map(experiment._single, experiment.BALANCES), singles, strict=True))
    return returns(**named, **{experiment.OURS: ours, experiment.RANDOM: at_random})


def verdicts(found, apart=2.0):
    halves = {experiment.OURS: [(5.0, 5.0 + apart), (5.0, 5.1 + apart), (5.0, 4.9 + apart)]}
    return {one.name: one.verdict for one in experiment._comparisons(found, halves)}


def test_single_balances_and_the_family_share_all_but_the_balance():
    arms = experiment.arms()
    family = dataclasses.asdict(arms[experiment.OURS][1])
    assert family["balance_range"] == (min(experiment.BALANCES), max(experiment.BALANCES))
    for balance in experiment.BALANCES:
        module, config = arms[experiment._single(balance)]
        assert module is fine_tuning
        settings = dataclasses.asdict(config)
        assert settings.pop("beta") == balance
        assert settings == {name: family[name] for name in settings}
    assert arms[experiment.RANDOM][1] == dataclasses.replace(arms[experiment.OURS][1], random_balances=True)


def test_the_claim_holds_where_the_family_is_as_good_as_the_best_and_better_than_the_rest():
    assert set(verdicts(arms_of(-58.0)).values()) == {"holds"}
    assert set(verdicts(arms_of(-64.0)).values()) == {"holds"}, "four steps below the best are within five"


def test_it_fails_where_the_best_single_balance_is_clearly_better():
    found = verdicts(arms_of(-70.0))
    assert found["final return as good as the best balance's"] == "fails"
    assert found["final return above the balances' mean"] == "holds"


def test_it_fails_where_balances_at_random_are_better_or_the_halves_are_treated_alike():
    assert verdicts(arms_of(-58.0, at_random=-50.0))["above balances at random"] == "fails"
    assert verdicts(arms_of(-58.0), apart=0.0)["balances differ between the halves"] == "fails"


def test_the_area_leaves_out_what_was_measured_before_acting():
    curve = np.array([[[-100.0], [-60.0], [-50.0]]])
    assert experiment._area(curve).tolist() == [[-55.0]]
    assert experiment._final(curve).tolist() == [[-50.0]]


def test_the_whole_experiment_at_a_tests_size(tmp_path, monkeypatch):
    data = Task(Demonstrations(experiment.MAZE, episodes=8, only_successful=False, limit=60), limit=60)
    monkeypatch.setattr(experiment, "DATA", data)
    monkeypatch.setattr(experiment, "MARKS", 2)
    tiny = dataclasses.replace(
        famo2o.PRESETS["tiny"], offline_steps=4, online_steps=8, balance_range=(1.0, 10.0)
    )
    monkeypatch.setitem(famo2o.PRESETS, "bench", tiny)
    real = experiment.arms
    monkeypatch.setattr(experiment, "arms", lambda budget=tiny: real(budget))
    found = result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=1))
    assert [arm.name for arm in found.arms][-3:] == [experiment.OURS, experiment.RANDOM, experiment.MEAN]
    ours = found.arms[3]
    assert "return after 4 steps" in ours.summary
    assert 1 <= ours.runs[0].metrics["balance, careless half"] <= 10
    at_random = found.arms[4].runs[0].metrics
    assert at_random["balance, careless half"] == at_random["balance, careful half"] == 5.5
    _, figure = experiment.plot(found)
    assert len(figure.axes[0].lines) == 5
    again = result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=1))
    assert [arm.runs for arm in again.arms] == [arm.runs for arm in found.arms]

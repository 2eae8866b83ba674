"""SERL's experiment at a test's size: its arms, its looks at runs, and a verdict from the numbers."""

from dataclasses import replace

import numpy as np
import pytest

from policysmith.claims import serl as experiment
from policysmith.claims.common.imitation import Task
from policysmith.common.stages import result_of
from policysmith.evaluation import record
from policysmith.experience.demonstrations import Demonstrations
from policysmith.systems import behaviour_cloning, serl


@pytest.fixture
def tiny(monkeypatch):
    """The experiment on a point that walks to its goal, in seconds."""
    task = Task(Demonstrations("point-reach", episodes=3), limit=15)
    small = replace(serl.PRESETS["tiny"], environment_steps=20)
    monkeypatch.setattr(experiment, "DRAWER", task)
    monkeypatch.setattr(experiment, "EVERY", 10)
    monkeypatch.setattr(experiment, "WATCHED", 3)
    monkeypatch.setitem(serl.PRESETS, "bench", small)
    monkeypatch.setitem(behaviour_cloning.PRESETS, "bench", behaviour_cloning.PRESETS["tiny"])


def test_the_arms_differ_from_rlpd_in_one_thing_each():
    rlpd, *others = (arm.config for arm in experiment.arms(ablations=True) if arm.module is serl)
    plain = vars(rlpd)
    changed = [{name for name, value in vars(other).items() if value != plain[name]} for other in others]
    assert changed == [
        {"demonstration_share"},
        {"layer_norm"},
        {"updates", "policy_every"},
        {"members"},
        {"reward"},
    ]


def test_it_runs_is_recorded_and_takes_finished_runs_from_the_cache(tiny, tmp_path):
    first = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=4))
    again = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=4))
    assert [arm.runs for arm in first.arms] == [arm.runs for arm in again.arms]
    assert {"success", "success after 10", "success after 20"} == set(first.arms[0].runs[0].metrics)
    record.save(first, tmp_path / "serl.json")
    assert record.load(tmp_path / "serl.json").verdict == first.verdict
    caption, figure = experiment.plot(first)
    assert "learning" in caption
    assert len(figure.axes[0].lines) >= 4  # one for each arm that acts


def found(rlpd, alone, cloning):
    flags = {experiment.RLPD: rlpd, experiment.ALONE: alone, experiment.CLONING: cloning}
    rng = np.random.default_rng(0)
    outcomes = {name: (rng.random((3, 50)) < rate).astype(float) for name, rate in flags.items()}
    return [one.verdict for one in experiment._comparisons(outcomes)]


def test_the_verdicts_follow_from_the_rates():
    assert found(1.0, 0.0, 0.6) == ["holds", "holds", "holds"]
    assert found(0.5, 0.6, 0.6) == ["fails", "fails", "fails"]
    assert found(1.0, 0.0, 0.86)[2] != "holds"

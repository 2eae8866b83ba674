"""The experiment of C-MORL: what its arms share and differ in, what is exact, and what decides."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

pytest.importorskip("mo_gymnasium")

from policysmith.claims import c_morl as experiment
from policysmith.claims.c_morl import (
    ALONE,
    DEEP_SEA,
    EXTENDED,
    FOUND,
    RANDOM,
    VOLUME,
    WORLDS,
    arms,
    compared,
    exact_front,
    reached,
    volume_of,
)
from policysmith.common.stages import result_of
from policysmith.objectives.pareto import nondominated
from policysmith.systems import c_morl
from policysmith.worlds import registry


def test_the_exact_front_is_the_worlds_own():
    theirs = registry.make(DEEP_SEA).unwrapped.pareto_front(gamma=0.99)
    assert torch.allclose(torch.tensor(exact_front()), torch.tensor([p.tolist() for p in theirs]), atol=1e-4)


def test_eight_of_ten_treasures_are_best_for_no_weights():
    points = torch.tensor(exact_front(), dtype=torch.double)
    weights = torch.linspace(0, 1, 1001, dtype=torch.double)
    best = (points @ torch.stack([weights, 1 - weights])).argmax(0).unique()
    assert best.tolist() == [0, 9]
    assert nondominated(points).all()
    assert volume_of(exact_front()) > 1.3 * volume_of([exact_front()[0], exact_front()[-1]])


def test_treasures_are_counted_once_and_only_by_their_shortest_way():
    front = exact_front()
    points = torch.tensor([front[0], front[0], front[4], (front[4][0] * 0.99, front[4][1] - 1)])
    assert reached(points) == 2


def test_all_arms_have_as_many_steps_and_evaluations_and_differ_in_one_word():
    ours, alone, random = arms(WORLDS[0])
    differences = {
        arm.name: {key for key, value in asdict(arm.config).items() if value != asdict(ours.config)[key]}
        for arm in (alone, random)
    }
    assert differences == {ALONE: {"initial_steps"}, RANDOM: {"selection"}}
    assert ours.config.evaluate_every == 1
    assert c_morl.schedule(alone.config, 2).initial == ours.config.steps


def verdicts(ours, alone, random):
    deep = {arm.name: arm for arm in arms(WORLDS[0])}
    for name, volumes in ((EXTENDED, ours), (ALONE, alone), (RANDOM, random)):
        deep[name].metrics = [{VOLUME: volume} for volume in volumes]
    return [one.verdict for one in compared(deep)]


def test_runs_are_paired_and_the_interval_decides():
    assert verdicts([1100, 1001, 902], [1090, 990, 893], [1100, 1001, 902]) == ["holds", "holds"]
    assert verdicts([1090, 990, 893], [1100, 1001, 902], [1100, 1001, 902]) == ["fails", "fails"]
    assert verdicts([1100, 1000, 900], [1090, 1010, 890], [1099, 1001, 899])[0] == "undecided"


def test_the_experiment_runs_from_beginning_to_record(tmp_path, monkeypatch):
    few = {"environment_steps": 96, "evaluate_every": 1, "episode_limit": 20}
    tiny = replace(c_morl.PRESETS["tiny"], reference=(-1e3, -1e3), **few)
    monkeypatch.setattr(experiment, "WORLDS", (replace(WORLDS[0], config=tiny),))
    record = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path))
    assert [arm.name for arm in record.arms] == [f"deep sea: {name}" for name in (EXTENDED, ALONE, RANDOM)]
    assert all(0 <= run.metrics[FOUND] <= 10 for arm in record.arms for run in arm.runs)
    caption, figure = experiment.plot(record)
    assert "seed 0" in caption
    assert len(figure.axes[0].lines) == 4

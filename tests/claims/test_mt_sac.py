"""The experiment on tasks learnt together: equal budgets, what each policy is shown, and its verdict."""

from functools import partial

import numpy as np
import pytest

from policysmith.claims import mt_sac as experiment
from policysmith.common.stages import result_of
from policysmith.systems import mt_sac, mtmh_sac, sac
from policysmith.worlds import registry


@pytest.fixture
def tiny(monkeypatch):
    """Two points that walk to their goals, in place of the arm's five tasks."""
    monkeypatch.setattr(experiment, "TASKS", ("near-v3", "far-v3"))
    monkeypatch.setattr(
        experiment, "make_task", lambda name: partial(registry.make, "point-reach", horizon=len(name))
    )
    small = {"environment_steps": 12, "random_steps": 4, "hidden": (8,), "batch_size": 4}
    monkeypatch.setattr(experiment, "BUDGET", small)


def test_every_side_has_equal_steps_and_gradient_steps_of_every_task(tiny):
    runs = experiment.arms()
    alone, together, heads = (runs[label][0].config for label in runs)
    for config in (together, heads):
        assert config.steps == alone.steps
        assert config.updates == alone.updates
        assert config.batch_size == alone.batch_size  # of every task
    assert [run.tasks for run in runs[experiment.ALONE]] == [(0,), (1,)]
    assert [len(runs[label]) for label in runs] == [2, 1, 1]
    assert [runs[label][0].module for label in runs] == [sac, mt_sac, mtmh_sac]


def test_a_policy_of_several_tasks_is_told_which_one_it_plays(tiny):
    together = experiment.arms()[experiment.TOGETHER][0]
    seen, _ = together.seen(1)().reset(seed=0)
    assert seen[-2:].tolist() == [0, 1]
    alone = experiment.arms()[experiment.ALONE][1]
    assert alone.seen(1)().reset(seed=0)[0].shape == (4,)


def test_it_runs_and_takes_finished_runs_from_the_cache(tiny, tmp_path):
    first, again = (result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=3)) for _ in range(2))
    assert [arm.runs for arm in first.arms] == [arm.runs for arm in again.arms]
    assert set(first.arms[0].summary) == {"success", "success at near-v3", "success at far-v3"}
    assert "task" in experiment.plot(first)[0]


def test_the_verdicts_follow_from_the_rates():
    def verdicts(*rates):
        rng = np.random.default_rng(0)
        labels = (experiment.ALONE, experiment.TOGETHER, experiment.HEADS)
        outcomes = {
            label: (rng.random((3, 5, 40)) < rate).astype(float)
            for label, rate in zip(labels, rates, strict=True)
        }
        return [one.verdict for one in experiment._comparisons(outcomes)]

    assert verdicts(0.95, 0.4, 0.7) == ["holds", "holds", "holds"]
    assert verdicts(0.5, 0.9, 0.7) == ["fails", "fails", "fails"]

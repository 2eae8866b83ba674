"""The experiment on data quality: what its comparisons make of outcomes, and that it goes on where it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policysmith.claims import data_quality as experiment
from policysmith.claims.common import noisy
from policysmith.claims.common.noisy import LENGTH, SIMILARITY, VARIANCE, SetResult
from policysmith.common.stages import result_of
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.claim import overall
from policysmith.evaluation.record import from_json, to_json

torch.set_num_threads(1)


def outcomes(rate, seeds=3, episodes=40, seed=0):
    """Per seed the outcomes of episodes, of exactly this rate."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.arange(episodes) < round(rate * episodes)) for _ in range(seeds)]


def results(rates, *, variance=(-2.0, -1.0), similarity=(-1.0, -1.0)):
    """Sets of all tasks; `rates` maps (kind, size) to the success rate per task."""
    found = []
    for number, task in enumerate(experiment.TASKS):
        for kind, level in task.trained:
            which = 0 if kind == "system" else 1
            quality = {VARIANCE: variance[which], SIMILARITY: similarity[which], LENGTH: 50.0}
            one = SetResult(task, kind, level, [dict(quality) for _ in range(3)])
            for size in experiment.SIZES:
                rate = rates.get((kind, size), [0.5] * 4)[number]
                for played in task.played:
                    one.success[size, played] = outcomes(rate, seed=number)
            found.append(one)
    return found


CLAIMED = {("system", size): [0.9, 0.9, 0.5, 0.5] for size in experiment.FEW} | {
    ("policy", size): [0.4, 0.4, 0.5, 0.5] for size in experiment.FEW
}


def verdicts(found):
    return [one.verdict for one in experiment._comparisons(found)]


def test_it_holds_where_two_of_four_tasks_are_won_for_sure():
    assert verdicts(results(CLAIMED))[0] == "holds"
    one = {key: [rates[0], 0.5, 0.5, 0.5] for key, rates in CLAIMED.items()}
    assert verdicts(results(one))[0] == "undecided"  # the ties may be wins too small to see


def test_it_fails_where_policy_noise_wins():
    swapped = {({"system": "policy", "policy": "system"}[kind], n): r for (kind, n), r in CLAIMED.items()}
    lost = {key: [rates[0]] * 3 + [0.5] for key, rates in swapped.items()}
    assert verdicts(results(lost))[0] == "fails"


def test_more_demonstrations_close_the_gap_where_the_claim_is_true():
    """0.5 everywhere with many: policy noise gains what system noise had already."""
    rates = {key: [values[0]] * 4 for key, values in CLAIMED.items()}
    assert verdicts(results(rates))[1] == "holds"
    widening = rates | {("system", 50): [1.0] * 4, ("policy", 50): [0.1] * 4}
    assert verdicts(results(widening))[1] == "fails"


def test_the_metrics_of_the_sets_are_compared():
    assert verdicts(results(CLAIMED))[2:] == ["holds", "holds"]
    assert verdicts(results(CLAIMED, variance=(-1.0, -2.0)))[2] == "fails"
    assert verdicts(results(CLAIMED, similarity=(-1.5, -1.0)))[3] == "fails"


def test_a_task_with_more_sets_counts_no_more():
    system = [one for one in results(CLAIMED) if one.kind == "system"]
    assert experiment._by_task(system, experiment.FEW) == pytest.approx(np.tile([0.9, 0.9, 0.5, 0.5], (3, 1)))


def test_bands_of_one_standard_error_are_those_of_the_seeds():
    found = results(CLAIMED)
    assert experiment._bands_apart(found, experiment.TASKS[0], 10)
    assert not experiment._bands_apart(found, experiment.TASKS[2], 10)


@pytest.fixture
def small(monkeypatch):
    """One task, two ways of collecting it, a network of nothing."""
    task = replace(
        noisy.OBSTACLE, trained=(("system", 0.02), ("policy", 0.02)), played=(0.01, 0.02), limit=60
    )
    monkeypatch.setattr(experiment, "TASKS", (task,))
    monkeypatch.setattr(experiment, "SIZES", (2, 4))
    monkeypatch.setattr(experiment, "FEW", (2,))
    monkeypatch.setattr(experiment, "MANY", 4)
    learner = replace(experiment.LEARNER, hidden=(16,), steps=20, batch_size=32)
    monkeypatch.setattr(experiment, "LEARNER", learner)


def test_the_experiment_runs_and_goes_on_where_it_was(small, tmp_path, monkeypatch):
    stages = []

    def run():
        steps = experiment.reproduce(seeds=[0, 1], folder=tmp_path, evaluate=3)
        while True:
            try:
                stages.append(next(steps))
            except StopIteration as end:
                return end.value

    first = run()
    assert {stage.label.split()[0] for stage in stages} == {"record", "train", "play"}
    assert first.verdict == overall(one.verdict for one in first.comparisons)
    assert [arm.name for arm in first.arms][:2] == ["system noise, all tasks", "policy noise, all tasks"]
    assert len(first.arms) == 2 + 2 * 2
    assert set(first.arms[2].summary) >= {"success at 0.01", "success at 0.02", VARIANCE, SIMILARITY}
    assert from_json(to_json(first)) == first
    caption, figure = experiment.plot(first)
    assert "noise of the collection" in caption
    assert [axes.get_title() for axes in figure.axes if axes.lines] == ["point-obstacle"]

    stages.clear()
    monkeypatch.setattr(CachedRun, "policy", lambda self: pytest.fail("played again"))
    again = run()
    assert not stages
    assert again.arms == first.arms


def test_curation_is_compared_with_chance_on_the_same_mixture(small, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "MIXED", (4, 2))
    arms = result_of(experiment._curation(seeds=[0], folder=tmp_path, evaluate=2))
    assert [arm.name for arm in arms] == ["curation, all", "curation, curated", "curation, random"]


def test_both_kinds_of_noise_are_equal_pushes():
    system, policy = (
        noisy.OBSTACLE.collection(kind, 0.02, episodes=1, seed=0).demonstrations
        for kind in ("system", "policy")
    )
    assert (system.options, system.action_noise) == ({"sigma_system": 0.02}, 0.0)
    assert (policy.options, policy.action_noise) == ({}, 0.5)
    system, policy, clean = (
        noisy.ARM_TASKS[0].collection(kind, level, episodes=1, seed=0).demonstrations
        for kind, level in (("system", 0.6), ("policy", 0.6), ("clean", 0.0))
    )
    assert (system.system_noise, system.action_noise) == (0.6, 0.0)
    assert (policy.system_noise, policy.action_noise) == (0.0, 0.6)
    assert (clean.system_noise, clean.action_noise) == (0.0, 0.0)


def test_simulators_are_built_once_and_never_given_twice_at_a_time(monkeypatch):
    class Built:
        def __init__(self):
            import gymnasium

            self.action_space = gymnasium.spaces.Box(-1, 1, (1,))

    monkeypatch.setattr(noisy.registry, "make", lambda name: Built())
    monkeypatch.setattr(noisy, "SystemNoise", lambda env, level: env)
    make = noisy.ARM_TASKS[0].maker(rows=5)
    ten = [[make(0.0)() for _ in range(count)] for count in (3, 5, 5, 2, 5)]
    assert all(len(set(map(id, some))) == len(some) for some in ten)
    assert len({id(env) for some in ten for env in some}) == 5

"""The experiment on adapting within a trial: equal budgets, whose memory lasts, and what is concluded."""

from dataclasses import replace

import numpy as np
import pytest

from policysmith.claims import rl2 as experiment
from policysmith.common.stages import result_of
from policysmith.evaluation.playing import Start
from policysmith.systems import rl2
from policysmith.worlds import registry


@pytest.fixture
def tiny(monkeypatch):
    """Points that walk to their goals, in place of the arm."""
    monkeypatch.setattr(experiment, "make_task", lambda: registry.make("point-reach", horizon=5))
    monkeypatch.setattr(experiment, "test_starts", lambda goals: [Start(seed) for seed in range(goals)])
    small = replace(rl2.PRESETS["tiny"], episodes=experiment.EPISODES, environment_steps=80, rollout_steps=20)
    monkeypatch.setattr(experiment, "CONFIG", small)


def test_both_learn_from_as_many_steps_and_one_forgets_after_each_episode(tiny):
    lasting, emptied = experiment.sides().values()
    assert lasting.steps == emptied.steps
    assert replace(emptied, episodes=lasting.episodes) == lasting
    assert emptied.episodes == 1


def test_without_a_lasting_memory_all_episodes_of_a_goal_are_alike(tiny):
    policy = experiment._untrained(0)
    policy.head.mean.weight.data *= 100  # so that it acts on what it remembers
    starts = experiment.test_starts(3)
    kept, emptied = (experiment._play(policy, starts, lasts=lasts) for lasts in (True, False))
    assert np.ptp(emptied.reward, axis=1).max() < 1e-6
    assert np.ptp(kept.reward, axis=1).max() > 1e-3
    assert kept.reward[:, 0] == pytest.approx(emptied.reward[:, 0])


def test_it_is_tested_on_held_out_goals_of_ml1_with_the_goal_hidden():
    pytest.importorskip("metaworld")
    env = experiment.make_test()
    first, second = experiment.test_starts(2)
    seen, _ = env.reset(options=first.options)
    assert np.array_equal(env.unwrapped.placement, first.options["placement"])
    assert seen.shape == (4 + 6,)
    assert env.unwrapped.goal_visible is False
    assert not np.array_equal(first.options["placement"], second.options["placement"])


def test_it_runs_and_takes_finished_runs_from_the_cache(tiny, tmp_path):
    first, again = (result_of(experiment.reproduce(seeds=[0], folder=tmp_path, evaluate=3)) for _ in range(2))
    assert [arm.runs for arm in first.arms] == [arm.runs for arm in again.arms]
    assert [arm.name for arm in first.arms] == [experiment.LASTING, experiment.EMPTIED, experiment.UNTRAINED]
    assert "goals" in experiment.plot(first)[0]


def test_the_verdicts_follow_from_the_gains():
    def verdicts(gain, other):
        rng = np.random.default_rng(0)

        def played(gain):
            reward = rng.normal(5, 0.3, (3, 40, experiment.EPISODES)) + np.linspace(
                0, gain, experiment.EPISODES
            )
            return experiment.Played(reward, np.zeros_like(reward))

        outcomes = {experiment.LASTING: played(gain), experiment.EMPTIED: played(other)}
        return [one.verdict for one in experiment._comparisons(outcomes)]

    assert verdicts(1.0, 0.0) == ["holds", "holds"]
    assert verdicts(1.0, 1.5) == ["holds", "fails"]
    assert verdicts(-1.0, 0.0) == ["fails", "fails"]

"""Levels of data from one training run: which snapshots they are of, and what is written down of it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.experience.levels import (
    RandomActions,
    Recorder,
    Snapshot,
    medium_and_expert,
    normalised,
    record_steps,
    shortened,
)
from policysmith.worlds.registry import make


def history(*returns):
    return [Snapshot((100 * (i + 1),), value, f"agent {i}") for i, value in enumerate(returns)]


def played(env, *, seed, steps):
    """Play random actions for a while, beginning episodes as they end."""
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    actions = []
    for _ in range(steps):
        actions.append(rng.uniform(-0.1, 0.1, 2).astype(np.float32))
        _, _, terminated, truncated, _ = env.step(actions[-1])
        if terminated or truncated:
            env.reset(seed=int(rng.integers(1000)))
    return actions


# ---- which agent is of which level ---------------------------------------------------------------------


def test_random_is_zero_and_the_best_is_one():
    assert normalised(-50.0, random=-50.0, best=10.0) == 0
    assert normalised(10.0, random=-50.0, best=10.0) == 1
    assert normalised(-30.0, random=-50.0, best=10.0) == pytest.approx(1 / 3)


def test_medium_is_the_first_agent_a_third_of_the_way_up_and_expert_the_best():
    medium, expert = medium_and_expert(history(-48, -40, -29, -45, 10, 4), random_return=-50)
    assert (medium.steps, medium.policy) == ((300,), "agent 2")
    assert (expert.steps, expert.mean_return) == ((500,), 10)


def test_an_agent_that_is_the_best_at_once_is_both():
    medium, expert = medium_and_expert(history(5, 4), random_return=0)
    assert medium is expert


def test_an_agent_that_never_learns_has_no_levels():
    with pytest.raises(DataError, match="train longer"):
        medium_and_expert(history(-60, -50), random_return=-50)


# ---- recording -------------------------------------------------------------------------------------------


def test_as_many_steps_are_recorded_as_were_asked_for_and_the_last_episode_counts_as_cut():
    env = make("point-reach", horizon=30)
    recorded = list(record_steps(env, RandomActions(env.action_space), steps=100, seed=0))
    episodes = Episodes.from_arrays(recorded)
    assert episodes.lengths.sum() == 100
    assert len(recorded[-1]["observation"]) == len(recorded[-1]["action"]) + 1
    ends = episodes.steps["terminated"] | episodes.steps["truncated"]
    assert bool(ends[episodes.starts + episodes.lengths - 1].all())


def test_no_steps_are_refused():
    env = make("point-reach")
    with pytest.raises(SettingError, match="at least 1"):
        next(record_steps(env, RandomActions(env.action_space), steps=0, seed=0))


def test_random_actions_fill_the_box_and_repeat_with_their_seed():
    random = RandomActions(gymnasium.spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32)))
    random.reset(3)
    drawn = np.stack([random.act(None) for _ in range(2000)])
    assert np.allclose(drawn.min(0), [-2, 0], atol=0.02)
    assert np.allclose(drawn.max(0), [2, 1], atol=0.02)
    random.reset(3)
    assert np.array_equal(random.act(None), drawn[0])


def test_random_choices_take_every_number_alike():
    random = RandomActions(gymnasium.spaces.Box(np.zeros(1, np.int64), np.full(1, 2), dtype=np.int64))
    random.reset(0)
    counts = np.bincount([int(random.act(None)[0]) for _ in range(3000)])
    assert len(counts) == 3
    assert (np.abs(counts / 3000 - 1 / 3) < 0.04).all()


def test_actions_without_limits_cannot_be_random():
    with pytest.raises(SettingError, match="without limits"):
        RandomActions(gymnasium.spaces.Box(-np.inf, np.inf, (2,)))


# ---- what an agent did while it learnt -----------------------------------------------------------------


def test_the_recorder_writes_down_every_step_in_order():
    env = Recorder(make("point-reach", horizon=20))
    actions = played(env, seed=0, steps=70)
    episodes = Episodes.from_arrays(env.until(env.steps))
    assert np.array_equal(episodes.steps["action"].numpy(), np.stack(actions))
    assert env.steps == 70
    assert int(episodes.lengths.max()) == 20
    # An observation after an action is the one before the next.
    first = env.until(20)[0]
    assert len(first["observation"]) == len(first["action"]) + 1


def test_what_was_done_until_a_time_is_a_beginning_of_all_that_was_done():
    env = Recorder(make("point-reach", horizon=20))
    actions = played(env, seed=0, steps=70)
    episodes = Episodes.from_arrays(env.until(33))
    assert np.array_equal(episodes.steps["action"].numpy(), np.stack(actions[:33]))
    assert bool(episodes.steps["truncated"][-1])
    assert not bool(episodes.steps["terminated"][-1])


def test_an_episode_that_was_broken_off_counts_as_truncated():
    env = Recorder(make("point-reach", horizon=20))
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    env.reset(seed=1)
    env.step(np.zeros(2, np.float32))
    first, second = env.until(2)
    assert first["truncated"].tolist() == second["truncated"].tolist() == [True]


def test_shortening_leaves_a_shorter_episode_as_it_is():
    env = Recorder(make("point-reach", horizon=5))
    played(env, seed=0, steps=5)
    whole = env.until(5)[0]
    assert shortened(whole, 5) is whole
    cut = shortened(whole, 2)
    assert len(cut["action"]) == 2
    assert len(cut["observation"]) == 3
    assert cut["truncated"].tolist() == [False, True]
    assert not whole["truncated"][:-1].any()

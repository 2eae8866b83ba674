"""Acting in several environments: ends, seeds, faults, and coming back to where one was."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from policysmith.common.errors import CapabilityError, NotFiniteError, SettingError
from policysmith.common.observations import parts_of
from policysmith.common.rng import derive
from policysmith.experience.environments import InThisProcess
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import environments_of
from policysmith.experience.workers import InProcesses
from policysmith.worlds import registry


class Counting(gymnasium.Env):
    """Shows the episode's seed and how many steps it is old; ends at `end`, or is cut there."""

    def __init__(self, end: int = 3, cut: bool = False, bad_at: int = -1, reward_bad: bool = False) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1, 1, (1,), np.float32)
        self.end, self.cut, self.bad_at, self.reward_bad = end, cut, bad_at, reward_bad

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed_number, self.age = seed % 1000, 0
        return self._seen(), {}

    def step(self, action):
        self.age += 1
        reward = np.nan if self.reward_bad and self.age == self.bad_at else float(action[0])
        over = self.age == self.end
        return self._seen(), reward, over and not self.cut, over and self.cut, {"success": over}

    def _seen(self):
        bad = not self.reward_bad and self.age == self.bad_at
        return np.array([self.seed_number, np.inf if bad else self.age], np.float32)


def interaction(*ends: int, **settings) -> Interaction:
    return Interaction(InThisProcess([partial(Counting, end, **settings) for end in ends]), seed=5)


def act(rows: int, value: float = 0.5) -> np.ndarray:
    return np.full((rows, 1), value, np.float32)


def test_what_was_seen_at_an_end_is_kept_apart_from_the_next_beginning():
    acting = interaction(2, 3)
    acting.start()
    first = derive(5, "episode", 0, 0) % 1000
    second = derive(5, "episode", 0, 1) % 1000
    assert acting.observation[:, 1].tolist() == [0, 0]
    acting.step(act(2))
    found = acting.step(act(2))
    assert found.terminated.tolist() == [True, False]
    assert found.next_observation[0].tolist() == [first, 2]
    assert acting.observation[0].tolist() == [second, 0]
    assert acting.begins.tolist() == [True, False]
    found = acting.step(act(2))
    assert found.terminated.tolist() == [False, True]
    assert acting.episode_seeds == [derive(5, "episode", 0, 1), derive(5, "episode", 1, 1)]
    assert acting.count == 6


def test_returns_lengths_and_successes_are_of_whole_episodes():
    acting = interaction(2, 4)
    for _ in range(4):
        acting.step(act(2))
    assert [(float(a), b, c) for a, b, c in acting.finished] == [
        (1.0, 2, True),
        (1.0, 2, True),
        (2.0, 4, True),
    ]
    assert acting.metrics()["return"] == pytest.approx(4 / 3)
    assert acting.metrics()["success"] == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_returns_of_a_vector_of_rewards_are_a_vector(count):
    acting = Interaction(environments_of("point-effort", count), seed=0)
    paid = [acting.step(np.full((count, 2), 0.5, np.float32)).reward for _ in range(30)]
    assert len(acting.finished) == count
    assert np.allclose(acting.finished[-1][0], np.sum(paid, axis=0)[-1], atol=1e-5)
    assert acting.metrics()["return/1"] == pytest.approx(30 * 0.75)


def test_actions_are_clipped_to_the_limits():
    acting = interaction(5)
    assert acting.step(act(1, 7.0)).reward.tolist() == [1.0]


def test_a_cut_episode_is_truncated_and_not_terminated():
    found = interaction(1, cut=True).step(act(1))
    assert (found.truncated.tolist(), found.terminated.tolist()) == ([True], [False])
    assert found.ended.tolist() == [True]


@pytest.mark.parametrize("reward_bad", [False, True])
def test_numbers_that_are_not_finite_name_environment_step_and_episode(reward_bad):
    acting = interaction(9, 9, bad_at=2, reward_bad=reward_bad)
    acting.step(act(2))
    with pytest.raises(NotFiniteError, match="reward" if reward_bad else "observation") as caught:
        acting.step(act(2))
    assert (
        caught.value.where == f"environment 0, step 2 of the episode with seed {derive(5, 'episode', 0, 0)}"
    )


def test_environments_that_break_gymnasiums_rules_are_told_apart():
    class Old(Counting):
        def step(self, action):
            return super().step(action)[:4]

    class Older(Counting):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0]

    with pytest.raises(CapabilityError, match="tuple of 4"):
        Interaction(InThisProcess([Old]), seed=0).step(act(1))
    with pytest.raises(CapabilityError, match=r"reset\(\)"):
        Interaction(InThisProcess([Older]), seed=0).start()


def test_environments_of_other_spaces_are_not_stepped_together():
    with pytest.raises(CapabilityError, match="environment 1"):
        InThisProcess([partial(registry.make, "point-reach"), partial(registry.make, "CartPole-v1")])


# ---- coming back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CartPole-v1", "point-reach"])
def test_a_restored_interaction_goes_on_to_the_same_numbers(name):
    def fresh() -> Interaction:
        return Interaction(InThisProcess([partial(registry.make, name)] * 3), seed=1)

    draw = np.random.default_rng(0)
    size = fresh().action_space.size
    one = fresh()
    actions = (
        draw.integers(0, 2, (60, 3, size))
        if one.action_space.discrete
        else draw.uniform(-1, 1, (60, 3, size))
    )
    for action in actions[:33]:
        one.step(action)
    saved = one.state_dict()
    other = fresh()
    other.load_state_dict(saved)
    assert other.inexact == ""
    for action in actions[33:]:
        mine, theirs = one.step(action), other.step(action)
        assert np.array_equal(mine.next_observation, theirs.next_observation)
        assert np.array_equal(mine.reward, theirs.reward)
        assert np.array_equal(one.observation, other.observation)
    assert one.metrics() == other.metrics()


def test_environments_with_a_will_of_their_own_are_said_to_be_inexact():
    class Moody(Counting):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=np.random.randint(1000))

    one, other = (Interaction(InThisProcess([Moody]), seed=0) for _ in range(2))
    one.step(act(1))
    other.load_state_dict(one.state_dict())
    assert "environment 0 did not come back" in other.inexact


# ---- processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"goal": True}])
def test_worker_processes_see_what_this_process_sees(options):
    makers = [partial(registry.make, "point-reach", **options)] * 3
    apart = InProcesses(makers, workers=2)
    try:
        one, other = Interaction(InThisProcess(makers), seed=1), Interaction(apart, seed=1)
        for action in np.random.default_rng(0).uniform(-1, 1, (60, 3, 2)):
            mine, theirs = one.step(action), other.step(action)
            for a, b in (
                (mine.next_observation, theirs.next_observation),
                (one.observation, other.observation),
            ):
                for name, part in parts_of(a).items():
                    assert np.array_equal(part, parts_of(b)[name])
    finally:
        apart.close()


def test_a_killed_worker_is_restarted_and_its_steps_are_reported_as_lost():
    makers = [partial(registry.make, "CartPole-v1")] * 3
    apart = InProcesses(makers, workers=2)
    try:
        acting = Interaction(apart, seed=1)
        forward = np.ones((3, 1), int)
        for _ in range(3):
            acting.step(forward)
        before = acting.episode_seeds
        os.kill(apart.process_ids[0], signal.SIGKILL)
        lost = []
        for _ in range(3):
            found = acting.step(forward)
            lost += found.lost
            assert all(found.truncated[row] and found.reward[row] == 0 for row in found.lost)
        assert sorted(lost) == [0, 1]
        assert apart.restarted == 1
        assert acting.lost == 8  # two episodes of three steps and the one that did not happen
        assert acting.episode_seeds[0] != before[0]
        assert acting.episode_seeds[2] == before[2]
        assert acting.metrics()["environment_steps"] == 16
    finally:
        apart.close()


def test_an_environment_that_keeps_crashing_ends_the_run():
    apart = InProcesses([partial(registry.make, "CartPole-v1")], workers=1, restarts=0)
    try:
        acting = Interaction(apart, seed=1)
        acting.start()
        os.kill(apart.process_ids[0], signal.SIGKILL)
        time.sleep(0.2)
        with pytest.raises(CapabilityError, match="died once more"):
            acting.step(np.ones((1, 1), int))
    finally:
        apart.close()


def test_an_error_of_the_environment_reaches_the_caller():
    apart = InProcesses([partial(Counting, bad_at=0)], workers=1)
    try:
        with pytest.raises(NotFiniteError):
            Interaction(apart, seed=0).start()
    finally:
        apart.close()


# ---- what is an environment --------------------------------------------------------------------------


def test_environments_come_by_name_by_function_and_as_objects():
    assert environments_of("CartPole-v1", 2).count == 2
    assert environments_of(Counting, 2).count == 2
    assert environments_of(Counting(), 1).count == 1
    assert environments_of(gymnasium.make("CartPole-v1"), 2).count == 2
    with pytest.raises(SettingError, match="2 are wanted"):
        environments_of(Counting(), 2)


@pytest.mark.parametrize(
    ("space", "vector", "played"),
    [
        (Discrete(3, start=2), [1], 3),
        (MultiDiscrete([2, 3]), [1, 2], [1, 2]),
        (MultiBinary(3), [1, 0, 1], [1, 0, 1]),
    ],
)
def test_choices_reach_the_environment_in_its_own_form(space, vector, played):
    class Choosing(Counting):
        def __init__(self):
            super().__init__()
            self.action_space = space

        def step(self, action):
            assert space.contains(action)
            assert np.array_equal(action, played)
            return self._seen(), 1.0, False, False, {}

    acting = Interaction(environments_of(Choosing, 1), seed=0)
    assert acting.step(np.array([vector])).reward.tolist() == [1]


def test_numbers_among_choices_are_seen_as_ones_among_zeros():
    class Numbered(Counting):
        def __init__(self):
            super().__init__()
            self.observation_space = Discrete(4)

        def _seen(self):
            return self.age

    acting = Interaction(environments_of(Numbered, 1), seed=0)
    acting.step(act(1))
    assert torch.equal(acting.tensors, torch.tensor([[0.0, 1, 0, 0]]))

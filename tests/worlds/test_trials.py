"""Trials: episodes run into one another, the task stays, and only the last one ends what is seen."""

import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.worlds.point import PointExpert, PointReach
from policysmith.worlds.trials import EPISODE, Feedback, Trials


class Counting(gymnasium.Env):
    """Shows (task drawn from the seed, step); pays the step; ends after three steps, the second a success."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.options = dict(options or {})
        self.task = self.options.get("task", self.np_random.integers(1000))
        self.steps = 0
        return np.array([self.task, 0], np.float32), {}

    def step(self, action):
        self.steps += 1
        seen = np.array([self.task, self.steps], np.float32)
        return seen, float(self.steps), self.steps == 3, False, {"success": self.steps == 2}


def trial(env, **reset):
    seen, _ = env.reset(**reset)
    rows = [(seen, None, False, False, {})]
    while not rows[-1][2]:
        rows.append(env.step(np.array([0.5], np.float32)))
        assert len(rows) < 50
    return rows


def test_a_trial_is_its_episodes_end_to_end_and_terminates_with_the_last():
    rows = trial(Trials(Counting(), 2), seed=0)
    assert [row[0][1] for row in rows] == [0, 1, 2, 0, 1, 2, 3]
    assert [row[1] for row in rows[1:]] == [1, 2, 3, 1, 2, 3]
    assert [row[2] for row in rows[1:]] == [False] * 5 + [True]
    assert not any(row[3] for row in rows)


def test_a_trial_terminates_also_where_its_last_episode_is_truncated():
    rows = trial(Trials(gymnasium.wrappers.TimeLimit(Counting(), 2), 2), seed=0)
    assert [row[2] for row in rows[1:]] == [False] * 3 + [True]
    assert not any(row[3] for row in rows)


def test_the_task_is_the_same_through_a_trial_and_another_in_the_next():
    env = Trials(Counting(), 3)
    tasks = [{row[0][0] for row in trial(env, seed=seed)} for seed in (0, 1, 0, None)]
    assert all(len(found) == 1 for found in tasks)
    assert tasks[0] == tasks[2]
    assert len({*tasks[0], *tasks[1], *tasks[3]}) == 3


def test_trials_without_a_seed_go_on_from_the_last_one():
    def three():
        env = Trials(Counting(), 1)
        return [trial(env, seed=seed)[0][0][0] for seed in (7, None, None)]

    assert three() == three()


def test_options_hold_for_every_episode_of_the_trial():
    rows = trial(Trials(Counting(), 2), seed=0, options={"task": 5})
    assert {row[0][0] for row in rows} == {5}


def test_later_episodes_are_told_their_number():
    env = Trials(Counting(), 2)
    env.reset(seed=0)
    assert env.unwrapped.options == {}
    for _ in range(3):
        env.step(np.array([0.5], np.float32))
    assert env.unwrapped.options == {EPISODE: 1}


def test_each_step_says_its_episode_and_an_end_whether_it_succeeded():
    infos = [row[4] for row in trial(Trials(Counting(), 2), seed=0)[1:]]
    assert [info["episode_of_trial"] for info in infos] == [0, 0, 0, 1, 1, 1]
    assert [info.get("episode_success") for info in infos] == [None, None, 1.0] * 2


def test_feedback_tells_action_reward_and_end_and_nothing_at_a_start():
    env = Feedback(Counting())
    for _ in range(2):  # nor of the trial before
        seen, _ = env.reset(seed=0)
        assert seen[2:].tolist() == [0, 0, 0]
        ends = [env.step(np.array([0.5], np.float32))[0][2:].tolist() for _ in range(3)]
        assert ends == [pytest.approx([0.5, reward / 10, float(reward == 3)]) for reward in (1, 2, 3)]


def test_what_ended_an_episode_is_told_with_the_first_observation_of_the_next():
    within = trial(Trials(Feedback(Counting()), 2), seed=0)
    assert within[0][0][2:].tolist() == [0, 0, 0]
    assert within[3][0][1] == 0
    assert within[3][0][2:].tolist() == pytest.approx([0.5, 0.3, 1])


def test_an_episode_that_was_cut_from_outside_is_told_to_be_over():
    env = Feedback(Counting())
    env.reset(seed=0)
    env.step(np.array([0.5], np.float32))
    assert env.reset(seed=0, options={EPISODE: 1})[0][2:].tolist() == pytest.approx([0.5, 0.1, 1])


def test_a_trial_of_one_episode_is_that_episode():
    alone, whole = PointReach(), Trials(PointReach(), 1)
    seen, other = alone.reset(seed=3)[0], whole.reset(seed=3)[0]
    over = False
    while not over:
        action = PointExpert().act(seen)
        seen, reward, terminated, truncated, _ = alone.step(action)
        other, other_reward, other_over, _, _ = whole.step(action)
        assert np.array_equal(seen, other)
        assert reward == other_reward
        over = terminated or truncated
        assert over == other_over


def test_unfit_numbers_and_environments_are_refused():
    with pytest.raises(SettingError, match="0 episodes"):
        Trials(Counting(), 0)
    with pytest.raises(CapabilityError, match="vectors"):
        Feedback(gymnasium.make("CartPole-v1"))

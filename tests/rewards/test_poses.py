"""The reward of a pose: paid within the box, once, and never for a gripper that cannot decide."""

import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import SettingError, ShapeError
from policysmith.rewards.poses import PoseReward, at_pose

TARGET = np.array([0.5, 0.0, 0.1, np.pi, 0.0, 0.0])
THRESHOLD = np.array([0.003, 0.003, 0.001, 0.1, 0.1, 0.1])


class Shown(gymnasium.Env):
    """Shows the pose that the action asks for, with a gripper behind it."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-10, 10, (6,), np.float64)
        self.action_space = gymnasium.spaces.Box(-10, 10, (7,), np.float64)

    def reset(self, *, seed=None, options=None):
        return np.zeros(6), {}

    def step(self, action):
        return action[:6], 5.0, False, False, {"other": 1}


def paid(env, pose, gripper=0.0):
    return env.step(np.append(pose, gripper))


def environment(**options):
    settings = {"pose": lambda seen: seen, "target": TARGET, "threshold": THRESHOLD} | options
    env = PoseReward(Shown(), **settings)
    env.reset()
    return env


def test_every_axis_has_to_be_under_its_own_threshold():
    assert at_pose(TARGET, TARGET, THRESHOLD)
    for axis in range(6):
        off = TARGET.copy()
        off[axis] += 0.99 * THRESHOLD[axis]
        assert at_pose(off, TARGET, THRESHOLD)
        off[axis] += 0.02 * THRESHOLD[axis]
        assert not at_pose(off, TARGET, THRESHOLD)


def test_an_angle_just_past_half_a_turn_is_near():
    assert at_pose(TARGET * [1, 1, 1, -1, 1, 1], TARGET, THRESHOLD)


def test_the_target_pays_one_and_ends_the_episode():
    env = environment()
    assert paid(env, np.zeros(6))[1:] == (0.0, False, False, {"other": 1, "success": 0.0})
    assert paid(env, TARGET)[1:] == (1.0, True, False, {"other": 1, "success": 1.0})


def test_the_limit_cuts_an_episode_and_success_at_the_limit_is_an_end():
    env = environment(limit=2)
    assert [paid(env, np.zeros(6))[2:4] for _ in range(2)] == [(False, False), (False, True)]
    env.reset()
    paid(env, np.zeros(6))
    assert paid(env, TARGET)[2:4] == (True, False)


def test_a_change_of_the_grippers_mind_costs():
    env = environment(gripper_penalty=0.1)
    rewards = [paid(env, np.zeros(6), gripper)[1] for gripper in (1, 1, 0, -1, -1, 0, 1)]
    assert rewards == pytest.approx([0, 0, 0, -0.1, 0, 0, -0.1])
    env.reset()
    assert paid(env, TARGET, -1)[1] == 1.0


def test_targets_and_thresholds_that_make_no_sense_are_refused():
    with pytest.raises(ShapeError, match="target"):
        environment(target=TARGET[:3])
    with pytest.raises(SettingError, match="thresholds above 0"):
        environment(threshold=0 * THRESHOLD)
    with pytest.raises(SettingError, match="limit"):
        environment(limit=0)

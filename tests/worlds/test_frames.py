"""Relative frames: what is seen does not hang on where the robot stands; actions go where the tool points."""

import gymnasium
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.worlds.frames import RelativeFrame
from policysmith.worlds.poses import adjoint

QUARTER = np.sqrt(0.5)


class Arm(gymnasium.Env):
    """A tool that is moved as its controller is told, in the axes of the base; a gripper, and a force."""

    def __init__(self, start=(0.0, 0.0, 0.0), turn=0.0, most=10.0):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (15,), np.float32)
        self.action_space = gymnasium.spaces.Box(-most, most, (7,), np.float32)
        self.start, self.turn = np.array(start), turn

    def reset(self, *, seed=None, options=None):
        self.position, self.rotation = self.start.copy(), Rotation.from_euler("z", self.turn)
        return self.seen(np.zeros(6)), {}

    def seen(self, twist):
        told = [[7.0], self.position, self.rotation.as_quat(), twist, [self.turn]]
        return np.concatenate(told).astype(np.float32)

    def step(self, action):
        self.sent = action
        self.position = self.position + action[:3]
        self.rotation = Rotation.from_rotvec(action[3:6]) * self.rotation
        return self.seen(action[:6]), 0.0, False, False, {}


def framed(arm, **options):
    return RelativeFrame(arm, pose=range(1, 8), velocity=range(8, 14), **options)


ACTIONS = np.random.default_rng(0).uniform(-0.3, 0.3, (5, 7)).astype(np.float32)


def told(env):
    """What the policy is told of the tool under fixed actions: pose and velocity."""
    seen = [env.reset()[0]] + [env.step(action)[0] for action in ACTIONS]
    return np.stack(seen)[:, 2:]


def test_the_episode_begins_at_the_origin():
    seen, _ = framed(Arm((1, 2, 3), 0.5)).reset()
    assert seen.tolist() == pytest.approx([7, 0.5] + [0] * 12, abs=1e-6)


def test_what_is_seen_does_not_depend_on_where_the_robot_stands():
    here, there = (told(framed(Arm(*at), convention="axes")) for at in (((0, 0, 0), 0), ((3, -1, 2), 2.2)))
    assert here == pytest.approx(there, abs=1e-5)


def test_the_frame_of_an_untouched_environment_would_depend_on_it():
    plain = [Arm(*at) for at in (((0, 0, 0), 0), ((3, -1, 2), 2.2))]
    seen = [np.stack([arm.reset()[0]] + [arm.step(a)[0] for a in ACTIONS]) for arm in plain]
    assert np.abs(seen[0] - seen[1]).max() > 1


def test_a_forward_action_goes_where_the_tool_points():
    arm = Arm((1, 2, 3), np.pi / 2)
    env = framed(arm)
    env.reset()
    *_, info = env.step(np.array([0.1, 0, 0, 0, 0, 0, 0.4], np.float32))
    assert arm.sent == pytest.approx([0, 0.1, 0, 0, 0, 0, 0.4], abs=1e-6)
    assert info["sent"] == pytest.approx(arm.sent)


@pytest.mark.parametrize("convention", ["textbook", "authors", "axes"])
def test_what_was_sent_can_be_told_in_the_tools_frame_again(convention):
    env = framed(Arm((1, 2, 3), 0.7), convention=convention)
    env.reset()
    env.step(ACTIONS[0])
    sent = env.to_base(ACTIONS[1])
    assert env.to_tool(sent) == pytest.approx(ACTIONS[1], abs=1e-5)


@pytest.mark.parametrize("convention", ["textbook", "authors"])
def test_the_velocity_seen_is_the_inverse_adjoint_of_the_bases(convention):
    arm = Arm((1, 2, 3), 0.7)
    env = framed(arm, convention=convention)
    env.reset()
    seen = env.step(ACTIONS[0])[0]
    pose = np.concatenate([arm.position, arm.rotation.as_quat()])
    assert adjoint(pose, convention=convention) @ seen[8:14] == pytest.approx(arm.sent[:6], abs=1e-5)


def test_what_is_sent_stays_within_the_environments_limits():
    arm = Arm((1, 2, 3), 0.7, most=0.05)
    env = framed(arm)
    env.reset()
    env.step(ACTIONS[0])
    assert np.abs(arm.sent).max() <= np.float32(0.05)


def test_unfit_environments_and_entries_are_refused():
    with pytest.raises(CapabilityError, match="vectors"):
        RelativeFrame(gymnasium.make("CartPole-v1"), pose=range(7))
    with pytest.raises(SettingError, match="seven and six"):
        RelativeFrame(Arm(), pose=range(6))
    with pytest.raises(SettingError, match="each named once"):
        RelativeFrame(Arm(), pose=range(1, 8), velocity=range(7, 13))

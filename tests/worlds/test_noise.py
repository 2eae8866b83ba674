"""System noise: what is played differs from what was chosen, and a seed determines by how much."""

import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.worlds.noise import SystemNoise


class Listener(gymnasium.Env):
    """Keeps what it was told."""

    def __init__(self):
        self.action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.played = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert action.dtype == np.float32
        self.played.append(action)
        return np.zeros(1, np.float32), 0.0, False, False, {}


def played(env, seed, steps, action=(0.0, 0.0, 0.0)):
    env.reset(seed=seed)
    env.unwrapped.played.clear()
    for _ in range(steps):
        env.step(np.array(action))
    return np.stack(env.unwrapped.played)


def test_noise_has_the_deviation_it_was_given_and_no_mean():
    noise = played(SystemNoise(Listener(), 0.2), seed=0, steps=4000)
    assert noise.std(axis=0) == pytest.approx([0.2] * 3, rel=0.05)
    assert np.abs(noise.mean(axis=0)).max() < 0.02


def test_a_seed_determines_the_noise():
    env = SystemNoise(Listener(), 0.2)
    first, other, again = (played(env, seed, 5) for seed in (1, 2, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_played_stays_in_the_action_space():
    noise = played(SystemNoise(Listener(), 3.0), seed=0, steps=50)
    assert np.abs(noise).max() == 1.0


def test_a_gripper_can_be_left_alone():
    env = SystemNoise(Listener(), 0.2, untouched=(2,))
    noise = played(env, seed=0, steps=20, action=(0.0, 0.0, 0.7))
    assert noise[:, 2] == pytest.approx(np.full(20, 0.7))
    assert np.abs(noise[:, :2]).min() > 0


def test_without_deviation_nothing_changes():
    assert not played(SystemNoise(Listener(), 0.0), seed=0, steps=5).any()


def test_unfit_environments_and_deviations_are_refused():
    with pytest.raises(CapabilityError, match="Box"):
        SystemNoise(gymnasium.make("CartPole-v1"), 0.1)
    with pytest.raises(SettingError, match=r"deviation -0\.1"):
        SystemNoise(Listener(), -0.1)

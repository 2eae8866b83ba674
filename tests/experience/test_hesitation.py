"""Experts who hesitate: slower and standing still, never in another direction."""

from __future__ import annotations

import numpy as np
import pytest

from policysmith.common.errors import SettingError
from policysmith.experience.hesitation import HesitantExpert


class Steady:
    """Always the same action; keeps the seeds it was reset with."""

    def __init__(self, action=(0.6, 0.8, 0.5)):
        self.action, self.seeds = np.array(action, np.float32), []

    def reset(self, seed=None):
        self.seeds.append(seed)

    def act(self, observation):
        return self.action


def acted(expert, steps, seed=0):
    expert.reset(seed)
    return np.stack([expert.act(None) for _ in range(steps)])


def test_speed_only_shrinks_and_the_direction_stays():
    actions = acted(HesitantExpert(Steady((0.6, 0.8)), speed_noise=0.3), 2000)
    speed = np.linalg.norm(actions, axis=1)
    assert speed.max() <= 1.0 + 1e-6
    assert speed.min() == 0.0
    moving = speed > 1e-3
    assert actions[moving] / speed[moving, None] == pytest.approx(
        np.tile([0.6, 0.8], (moving.sum(), 1)), abs=1e-4
    )
    # 1 - E|N(0, 0.3)|, nothing being cut off but in the far tail.
    assert speed.mean() == pytest.approx(1 - 0.3 * np.sqrt(2 / np.pi), abs=0.02)


def test_stops_last_two_to_seven_steps():
    still = acted(HesitantExpert(Steady(), stop_probability=0.02), 5000)[:, 0] == 0
    edges = np.flatnonzero(np.diff(np.r_[False, still, False]))
    lengths = np.diff(edges)[::2]
    assert set(lengths[:-1]) >= {2, 3, 4, 5, 6, 7}
    assert lengths.min() == 2
    assert 0.02 * 0.8 < len(lengths) / (~still).sum() < 0.02 * 1.2


def test_a_gripper_is_left_alone():
    actions = acted(HesitantExpert(Steady(), speed_noise=0.5, stop_probability=0.1, untouched=(2,)), 100)
    assert (actions[:, 2] == 0.5).all()
    assert len(set(actions[:, 0])) > 10


def test_a_seed_determines_the_episode_and_reaches_the_expert():
    inner = Steady()
    expert = HesitantExpert(inner, speed_noise=0.3, stop_probability=0.1)
    first, other, again = (acted(expert, 30, seed) for seed in (1, 2, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert inner.seeds == [1, 2, 1]


def test_without_hesitation_the_expert_acts_as_ever():
    assert (acted(HesitantExpert(Steady()), 5) == Steady().action).all()


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingError, match="speed noise -1"):
        HesitantExpert(Steady(), speed_noise=-1)
    with pytest.raises(SettingError, match="probability 2"):
        HesitantExpert(Steady(), stop_probability=2)

import numpy as np
import pytest

from policysmith.worlds import registry
from policysmith.worlds.point import PointExpert


def played(act, seed=0):
    """The sum of rewards of an episode."""
    env = registry.make("point-effort")
    seen, _ = env.reset(seed=seed)
    total, ended = np.zeros(2), False
    while not ended:
        seen, reward, terminated, truncated, _ = env.step(act(seen))
        total, ended = total + reward, terminated or truncated
    return total


def test_a_step_pays_closeness_and_ease():
    env = registry.make("point-effort")
    env.reset(seed=0)
    env.unwrapped._position, env.unwrapped._goal = np.array([0.5, 0.5]), np.array([0.9, 0.5])
    _, reward, *_ = env.step(np.array([1.0, -0.5], np.float32))
    assert reward.dtype == np.float32
    assert reward.tolist() == pytest.approx([1 - np.hypot(0.3, 0.05), 1 - (1 + 0.25) / 2])
    assert env.unwrapped.reward_space.contains(reward)


def test_whoever_hurries_is_close_and_whoever_rests_has_it_easy():
    hurry, rest = played(PointExpert().act), played(lambda _: np.zeros(2, np.float32))
    half = played(lambda seen: PointExpert().act(seen) / 4)
    assert rest[1] == 30
    assert hurry[0] > half[0] > rest[0]
    assert hurry[1] < half[1] < rest[1]


def test_it_lasts_to_its_horizon_though_the_goal_is_reached():
    env = registry.make("point-effort", horizon=12)
    seen, _ = env.reset(seed=3)
    flags = []
    for _ in range(12):
        seen, _, terminated, truncated, info = env.step(PointExpert().act(seen))
        flags.append((terminated, truncated))
    assert info["success"] == 1.0
    assert flags == [(False, False)] * 11 + [(False, True)]

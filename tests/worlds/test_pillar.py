import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics")

from policysmith.worlds.pillar import PILLAR
from policysmith.worlds.pointmaze import two_ways
from policysmith.worlds.registry import expert, make

NAME = "point-maze-pillar"


def test_every_pair_of_cells_is_joined_by_two_ways_of_sixteen_moves_together():
    free = {(r, c) for r, row in enumerate(PILLAR) for c, cell in enumerate(row) if cell == 0}
    assert len(free) == 16
    for start in sorted(free):
        for goal in sorted(free - {start}):
            first, second = two_ways(start, goal, free)
            assert len(first) + len(second) - 2 == 16


def test_an_episode_ends_within_half_a_cell_of_the_goal_and_not_before():
    env = make(NAME)
    driver = expert(NAME, env)
    observation, _ = env.reset(seed=0)
    driver.reset(0)
    terminated = truncated = False
    while not terminated and not truncated:
        observation, reward, terminated, truncated, info = env.step(driver.act(observation))
        achieved, desired = observation[:2], observation[2:4]
        assert terminated == info["success"] == bool(reward) == (np.linalg.norm(achieved - desired) <= 0.5)
    assert terminated


def test_the_radius_and_the_horizon_can_be_chosen():
    env = make(NAME, radius=100.0)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[2]
    env = make(NAME, horizon=3, radius=0.0)
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]


def test_in_play_only_the_state_is_seen_and_nothing_is_a_success():
    env = make(f"{NAME}-play", horizon=200)
    driver = expert(f"{NAME}-play", env)
    observation, _ = env.reset(seed=1)
    driver.reset(1)
    assert observation.shape == (4,)
    for step in range(200):
        observation, reward, terminated, truncated, info = env.step(driver.act(observation))
        assert (reward, terminated, info["success"]) == (0.0, False, False)
        assert truncated == (step == 199)


def test_the_same_seed_resets_to_the_same_pair():
    env, other = make(NAME), make(NAME)
    assert np.array_equal(env.reset(seed=4)[0], other.reset(seed=4)[0])
    assert not np.array_equal(env.reset(seed=4)[0], env.reset(seed=5)[0])

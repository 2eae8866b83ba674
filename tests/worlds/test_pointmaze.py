import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import CapabilityError
from policysmith.worlds.pointmaze import PointMazeExpert, distances_from

pytest.importorskip("gymnasium_robotics")

from policysmith.worlds.registry import make

RING = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]


def drive(env, expert, seed, **options):
    """Whether the goal was reached, and the cells passed, under the expert."""
    observation, _ = env.reset(seed=seed, **options)
    expert.reset(seed=seed)
    cells, done = [], False
    while not done:
        cells.append(expert._cell(expert._read(observation)[0]))
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        done = terminated or truncated or info["success"]
    return info["success"], list(dict.fromkeys(cells))


def test_distances_count_moves_around_walls():
    free = {(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (9, 9)}
    distance = distances_from((0, 0), free)
    assert distance[(2, 0)] == 6
    assert (9, 9) not in distance


@pytest.mark.parametrize("maze", ["UMaze", "Medium"])
def test_the_expert_reaches_every_goal(maze):
    env = make(f"gymnasium_robotics:PointMaze_{maze}-v3")
    expert = PointMazeExpert(env)
    assert all(drive(env, expert, seed)[0] for seed in range(6))


def test_the_flat_observation_and_the_dictionary_give_the_same_action():
    env = make("gymnasium_robotics:PointMaze_UMaze-v3")
    expert = PointMazeExpert(env)
    flat, _ = env.reset(seed=0)
    named, _ = env.unwrapped.reset(seed=0)
    assert np.array_equal(expert.act(flat), expert.act(named))


def test_between_two_equal_ways_the_seed_chooses():
    env = make("gymnasium_robotics:PointMaze_UMaze-v3", maze_map=RING)
    expert = PointMazeExpert(env)
    corners = {"options": {"reset_cell": np.array([1, 1]), "goal_cell": np.array([3, 3])}}
    ways = [(1, 3) in drive(env, expert, seed, **corners)[1] for seed in range(12)]
    assert any(ways)
    assert not all(ways)
    assert ways[:3] == [(1, 3) in drive(env, expert, seed, **corners)[1] for seed in range(3)]


def test_another_environment_is_refused():
    with pytest.raises(CapabilityError, match="not a point maze"):
        PointMazeExpert(gymnasium.make("CartPole-v1"))

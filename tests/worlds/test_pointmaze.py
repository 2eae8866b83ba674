import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import CapabilityError
from policysmith.worlds.pointmaze import PlayExpert, PointMazeExpert, distances_from, two_ways

pytest.importorskip("gymnasium_robotics")

from policysmith.worlds.registry import make

RING = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]


def drive(env, expert, seed, **options):
    """Whether the goal was reached, and the cells passed, under the expert."""
    observation, _ = env.reset(seed=seed, **options)
    expert.reset(seed=seed)
    cells, done = [], False
    while not done:
        cells.append(expert._cell(expert._state(observation)[:2]))
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


# ---- two ways, and play ------------------------------------------------------------------------------


def ring(maze_map):
    return {(r, c) for r, row in enumerate(maze_map) for c, cell in enumerate(row) if cell == 0}


def test_around_a_pillar_there_are_two_ways_that_share_their_ends_alone():
    first, second = two_ways((1, 1), (1, 3), ring(RING))
    assert first == [(1, 1), (1, 2), (1, 3)]
    assert second == [(1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (1, 3)]


def test_next_door_the_second_way_goes_all_around():
    first, second = two_ways((1, 1), (1, 2), ring(RING))
    assert first == [(1, 1), (1, 2)]
    assert len(second) == 8
    assert second[1] == (2, 1)


def test_where_a_second_way_does_not_exist_there_is_one_and_none_where_the_goal_is_cut_off():
    corridor = {(0, 0), (0, 1), (0, 2)}
    assert two_ways((0, 0), (0, 2), corridor) == [[(0, 0), (0, 1), (0, 2)]]
    assert two_ways((0, 0), (5, 5), corridor | {(5, 5)}) == []


def play(env, expert, seed, steps):
    """The cells passed, in order."""
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    cells = []
    for _ in range(steps):
        cells.append(expert._cell(expert._state(observation)[:2]))
        observation = env.step(expert.act(observation))[0]
    return [cell for i, cell in enumerate(cells) if i == 0 or cell != cells[i - 1]]


def test_play_goes_on_from_target_to_target_both_ways_around_and_repeats_with_its_seed():
    env = make("point-maze-pillar-play")
    expert = PlayExpert(env)
    passed = [play(env, expert, seed, 200) for seed in range(8)]
    assert min(len(set(cells)) for cells in passed) >= 5
    turns = [(cells[1][0] - cells[0][0], cells[1][1] - cells[0][1]) for cells in passed]
    assert len(set(turns)) > 1
    assert play(env, expert, 3, 200) == passed[3]

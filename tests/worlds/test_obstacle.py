"""The point and its obstacle: who may enter the circle, and how the expert goes around it."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policysmith.common.errors import NotFiniteError, SettingError, ShapeError
from policysmith.experience.collect import record
from policysmith.worlds import registry
from policysmith.worlds.obstacle import (
    CENTRE,
    RADIUS,
    ObstacleExpert,
    OneSidedObstacleExpert,
    PointObstacle,
    first_meeting,
    way_point,
)


def at(position, **options):
    env = PointObstacle(**options)
    env.reset(seed=0)
    env._position = np.array(position)
    return env


def play(env, expert, seed):
    observation, _ = env.reset(seed=seed)
    expert.reset(seed)
    path, ended, info = [observation[:2]], False, {}
    while not ended:
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        path.append(observation[:2])
        ended = terminated or truncated
    return np.stack(path), bool(info["success"])


def test_it_is_a_gymnasium_environment():
    check_env(PointObstacle(render_mode="rgb_array"), skip_render_check=True)
    check_env(PointObstacle(obstacle=False, sigma_system=0.02), skip_render_check=True)


def test_a_step_beside_the_circle_goes_on_and_one_into_it_fails():
    after, _, terminated, *_ = at([0.38, 0.5]).step(np.array([0.25, 0.0]))
    assert after[:2] == pytest.approx([0.39, 0.5])
    assert not terminated
    after, _, terminated, _, info = at([0.38, 0.5]).step(np.array([1.0, 0.0]))
    assert after[:2] == pytest.approx([0.42, 0.5])
    assert terminated
    assert info["success"] == 0.0


def test_without_the_obstacle_nothing_is_in_the_way():
    after, _, terminated, *_ = at([0.38, 0.5], obstacle=False).step(np.array([1.0, 0.0]))
    assert after == pytest.approx([0.42, 0.5, 0.9, 0.9])
    assert not terminated


def test_noise_alone_never_enters_the_circle():
    env = PointObstacle(sigma_system=0.2)
    env.reset(seed=1)
    for _ in range(500):
        env._position = np.array([0.38, 0.5])
        _, _, terminated, *_ = env.step(np.zeros(2))
        assert not terminated


def test_a_push_towards_the_circle_stops_at_nine_tenths_of_the_way():
    env = at([0.3, 0.5])
    assert first_meeting(np.array([0.3, 0.5]), np.array([0.2, 0.0])) == pytest.approx(0.5)
    assert env._pushed(np.array([0.2, 0.0])) == pytest.approx([0.39, 0.5])
    # A push through the circle to beyond it stops too; one that ends before it does not.
    assert env._pushed(np.array([0.6, 0.0])) == pytest.approx([0.39, 0.5])
    assert env._pushed(np.array([0.09, 0.0])) == pytest.approx([0.39, 0.5])
    assert env._pushed(np.array([0.0, 0.3])) == pytest.approx([0.3, 0.8])
    assert env._pushed(np.array([-0.2, 0.0])) == pytest.approx([0.1, 0.5])
    assert env._pushed(np.zeros(2)) == pytest.approx([0.3, 0.5])


def test_the_noise_is_in_units_of_the_square():
    env = PointObstacle(sigma_system=0.03)
    env.reset(seed=0)
    ends = []
    for _ in range(3000):
        env._position = np.array([0.2, 0.8])
        ends.append(env.step(np.zeros(2))[0][:2])
    assert np.std(ends, axis=0) == pytest.approx([0.03, 0.03], rel=0.05)


def test_success_is_within_a_hundredth_of_the_goal_and_ends_the_episode():
    _, _, terminated, _, info = at([0.88, 0.9]).step(np.array([0.3, 0.0]))
    assert terminated
    assert info["success"] == 1.0
    _, _, terminated, _, info = at([0.88, 0.9]).step(np.array([0.2, 0.0]))
    assert not terminated
    assert info["success"] == 0.0


def test_episodes_are_cut_after_200_steps_and_after_50_without_the_obstacle():
    assert (PointObstacle().horizon, PointObstacle(obstacle=False).horizon) == (200, 50)
    env = at([0.1, 0.1], horizon=3)
    assert [env.step(np.zeros(2))[3] for _ in range(3)] == [False, False, True]


def test_the_square_holds_the_point():
    after, *_ = at([0.99, 0.01]).step(np.array([5.0, -5.0]))
    assert after[:2] == pytest.approx([1.0, 0.0])


def test_a_seed_determines_the_noise():
    paths = [play(PointObstacle(sigma_system=0.02), ObstacleExpert(), seed)[0] for seed in (3, 3, 4)]
    assert np.array_equal(paths[0], paths[1])
    assert paths[0].shape != paths[2].shape or not np.array_equal(paths[0], paths[2])


def test_way_points_lie_half_way_to_the_wall_at_a_right_angle():
    start = np.array([0.1, 0.1])
    assert way_point(start, CENTRE, 1.0) == pytest.approx([0.25, 0.75])
    assert way_point(start, CENTRE, -1.0) == pytest.approx([0.75, 0.25])
    assert way_point(np.array([0.5, 0.1]), CENTRE, 1.0) == pytest.approx([0.25, 0.5])


def test_the_expert_goes_around_both_sides_at_full_speed():
    sides = set()
    for seed in range(12):
        path, success = play(PointObstacle(), ObstacleExpert(), seed)
        assert success
        assert np.linalg.norm(path - CENTRE, axis=1).min() > RADIUS
        speed = np.linalg.norm(np.diff(path, axis=0), axis=1)
        # Full speed but for the last step to the way-point and to the goal.
        assert np.sort(speed)[2:] == pytest.approx(np.full(len(speed) - 2, 0.04), abs=1e-6)
        sides.add(bool(path[len(path) // 2, 1] > path[len(path) // 2, 0]))
    assert sides == {True, False}


def test_the_one_sided_expert_always_goes_the_same_way():
    paths = [play(PointObstacle(), OneSidedObstacleExpert(), seed)[0] for seed in range(5)]
    assert all(np.array_equal(paths[0], path) for path in paths)
    assert paths[0][len(paths[0]) // 2] == pytest.approx([0.25, 0.75], abs=0.05)


def test_without_the_obstacle_the_expert_goes_straight():
    path, success = play(PointObstacle(obstacle=False), ObstacleExpert(), 0)
    assert success
    assert path[:, 0] == pytest.approx(path[:, 1], abs=1e-6)


def test_equal_noise_in_world_and_policy_is_an_equal_push():
    """The spread of where a step ends, whichever of the two the noise is in."""
    rng = np.random.default_rng(0)
    env = PointObstacle(obstacle=False, horizon=10_000)
    env.reset(seed=0)
    ends = []
    for _ in range(3000):
        env._position = np.array([0.5, 0.5])
        ends.append(env.step((0.01 / 0.04) * rng.standard_normal(2))[0][:2])
    assert np.std(ends, axis=0) == pytest.approx([0.01, 0.01], rel=0.05)


def test_it_is_made_and_demonstrated_by_name():
    env = registry.make("point-obstacle", sigma_system=0.02)
    assert env.unwrapped.sigma_system == 0.02
    expert = registry.expert("point-obstacle", env)
    assert isinstance(expert, ObstacleExpert)
    episode = next(record(env, expert, episodes=1, seed=0, only_successful=True))
    assert episode["success"][-1]
    assert "point-obstacle" in registry.known_names()


def test_wrong_numbers_are_refused():
    with pytest.raises(SettingError, match="sigma_system is -1"):
        PointObstacle(sigma_system=-1)
    env = at([0.1, 0.1])
    with pytest.raises(ShapeError, match=r"\[2\]"):
        env.step(np.zeros(3))
    with pytest.raises(NotFiniteError, match="not finite"):
        env.step(np.array([np.nan, 0.0]))


def test_a_picture_shows_obstacle_goal_and_point():
    env = PointObstacle(render_mode="rgb_array")
    env.reset(seed=0)
    colours = {tuple(pixel) for pixel in env.render().reshape(-1, 3)}
    assert colours == {(255, 255, 255), (150, 150, 150), (60, 170, 90), (40, 90, 200)}
    assert PointObstacle().render() is None

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policysmith.common.errors import NotFiniteError, ShapeError
from policysmith.worlds.point import PointExpert, PointReach


def rollout(env, seed, actions):
    observations = [env.reset(seed=seed)[0]]
    observations += [env.step(action)[0] for action in actions]
    return np.stack(observations)


def test_it_is_a_gymnasium_environment():
    check_env(PointReach(render_mode="rgb_array"), skip_render_check=True)


def test_a_step_moves_by_a_tenth_of_the_action():
    env = PointReach()
    before, _ = env.reset(seed=0)
    env._position = np.array([0.5, 0.5])
    after, reward, *_ = env.step(np.array([1.0, -0.5], dtype=np.float32))
    assert after[:2] == pytest.approx([0.6, 0.45])
    assert after[2:] == pytest.approx(before[2:])
    assert reward == pytest.approx(-np.hypot(*(before[2:] - [0.6, 0.45])), abs=1e-6)


def test_walls_and_the_action_bounds_hold_the_point():
    env = PointReach(terminate_on_success=False)
    env.reset(seed=0)
    env._position = np.array([0.95, 0.5])
    after, *_ = env.step(np.array([5.0, -5.0]))
    assert after[:2] == pytest.approx([1.0, 0.4])


def test_the_same_seed_gives_the_same_episode_whatever_ran_before():
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2)).astype(np.float32)
    used = PointReach(terminate_on_success=False)
    rollout(used, 7, actions)
    assert np.array_equal(rollout(used, 3, actions), rollout(PointReach(), 3, actions))
    assert not np.array_equal(rollout(used, 3, actions), rollout(used, 4, actions))


def test_the_goal_is_never_reached_at_the_start():
    env = PointReach()
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(200)])
    assert np.linalg.norm(starts[:, :2] - starts[:, 2:], axis=1).min() >= 0.3


def test_the_expert_always_succeeds_and_success_ends_the_episode():
    env, expert = PointReach(), PointExpert()
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        done = False
        while not done:
            observation, _, terminated, truncated, info = env.step(expert.act(observation))
            done = terminated or truncated
        assert terminated
        assert info["success"] == 1.0


def test_an_episode_without_success_is_truncated_at_the_horizon():
    env = PointReach(horizon=30)
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, dtype=np.float32))[2:4] for _ in range(30)]
    assert ends[:29] == [(False, False)] * 29
    assert ends[29] == (False, True)


def test_the_picture_shows_the_point_where_it_is():
    env = PointReach(render_mode="rgb_array")
    env.reset(seed=0)
    env._position, env._goal = np.array([0.25, 0.75]), np.array([0.75, 0.25])
    frame = env.render()
    assert frame.shape == (96, 96, 3)
    assert frame[24, 24].tolist() == [40, 90, 200]
    assert frame[72, 24].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("action", "error"), [(np.zeros(3), ShapeError), (np.array([0.0, np.nan]), NotFiniteError)]
)
def test_actions_that_make_no_sense_are_refused(action, error):
    env = PointReach()
    env.reset(seed=0)
    with pytest.raises(error):
        env.step(action)

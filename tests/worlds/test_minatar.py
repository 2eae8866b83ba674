"""MinAtar's games: what a seed determines, what is seen, and what is refused."""

from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import pytest

from policysmith.common.errors import SettingError, UnknownNameError
from policysmith.common.spaces import planes_of
from policysmith.policies.actors import body_for
from policysmith.worlds.minatar import GAMES, MinAtarGame
from policysmith.worlds.registry import make

needs_minatar = pytest.mark.skipif(importlib.util.find_spec("minatar") is None, reason="needs minatar")


def played(env, seed, steps=60):
    """Observations and rewards of one episode under fixed actions, from a reset with `seed`."""
    rng = np.random.default_rng(0)
    seen, total = [env.reset(seed=seed)[0]], []
    for _ in range(steps):
        observation, reward, terminated, *_ = env.step(rng.integers(len(env.actions)))
        seen.append(observation)
        total.append(reward)
        if terminated:
            break
    return np.stack(seen), total


@needs_minatar
@pytest.mark.parametrize("game", GAMES)
def test_a_seed_determines_the_episode_whatever_was_played_before(game):
    fresh, used = MinAtarGame(game=game), MinAtarGame(game=game)
    played(used, seed=3)
    used._game.last_action = 1  # an episode that ended on another action
    (a, rewards_a), (b, rewards_b) = played(fresh, seed=7), played(used, seed=7)
    assert np.array_equal(a, b)
    assert rewards_a == rewards_b
    assert not np.array_equal(a, played(fresh, seed=8)[0])


@needs_minatar
def test_without_a_seed_episodes_differ_and_their_order_is_determined_by_the_last_seed():
    runs = []
    for _ in range(2):
        env = MinAtarGame(game="asterix")
        env.reset(seed=5)
        runs.append([played(env, seed=None)[0] for _ in range(2)])
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))
    assert not np.array_equal(*[run[:20] for run in runs[0]])


@needs_minatar
def test_an_observation_is_the_games_planes_row_by_row():
    env = MinAtarGame(game="breakout")
    seen, _ = env.reset(seed=0)
    assert planes_of(env.observation_space) == (10, 10, 4)
    assert seen.dtype == np.float32
    assert env.observation_space.contains(seen)
    planes = seen.reshape(10, 10, 4)
    assert np.argwhere(planes[..., 0]).tolist() == [[9, 4]]  # the paddle
    assert planes[1:4, :, 3].all()  # the bricks


@needs_minatar
def test_a_body_for_the_game_begins_with_convolutions_and_the_space_survives_a_pipe():
    space = make("minatar/breakout").observation_space
    assert body_for(space).convolutions is not None
    assert planes_of(pickle.loads(pickle.dumps(space))) == (10, 10, 4)
    assert planes_of(make("CartPole-v1").observation_space) == ()
    assert body_for(make("CartPole-v1").observation_space).convolutions is None


@needs_minatar
def test_only_moves_that_do_something_are_offered_unless_all_are_asked_for():
    assert make("minatar/breakout").unwrapped.actions == [0, 1, 3]
    assert len(make("minatar/breakout", all_actions=True).unwrapped.actions) == 6


@needs_minatar
def test_a_horizon_truncates_where_the_game_goes_on():
    env = MinAtarGame(game="freeway", horizon=2)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]


@needs_minatar
def test_the_picture_shows_the_paddle_in_the_first_colour():
    env = MinAtarGame(game="breakout", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (160, 160, 3)
    assert frame[150, 70].tolist() == [230, 80, 60]
    assert frame[100, 100].tolist() == [0, 0, 0]


def test_what_is_no_game_or_no_setting_is_refused():
    with pytest.raises(UnknownNameError, match="MinAtar has no game"):
        MinAtarGame(game="pong")
    with pytest.raises(SettingError, match="probability"):
        MinAtarGame(game="breakout", sticky=1.0)
    with pytest.raises(SettingError, match="horizon"):
        MinAtarGame(game="breakout", horizon=0)


@needs_minatar
def test_a_misspelt_game_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="minatar/breakout"):
        make("minatar/brekout")

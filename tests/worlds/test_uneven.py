"""The uneven maze: where its driver keeps to the way, where it does not, and that it arrives all the same."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics")

from policysmith.common.errors import SettingError
from policysmith.experience.collect import record
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.worlds.pointmaze import PointMazeExpert
from policysmith.worlds.registry import expert, make
from policysmith.worlds.uneven import UnevenDriver

NAME = "point-maze-uneven"
LOWER = {(2, 3), (3, 1), (3, 2), (3, 3)}


def recorded(driver, env, episodes=30):
    return Episodes.from_arrays(record(env, driver, episodes=episodes, seed=0))


def off_the_way(episodes, env):
    """Per step, whether the action is not the one towards the goal, and whether the cell is careless."""
    driver, careless = PointMazeExpert(env), UnevenDriver(env)
    driver.reset(None)
    seen = [observation.numpy() for observation in episodes.steps["observation"]]
    wanted = np.stack([driver.act(one) for one in seen])
    other = np.abs(episodes.steps["action"].numpy() - wanted).max(1) > 1e-4
    return other, np.array([careless.is_careless(one) for one in seen])


def test_the_careless_cells_are_the_lower_half():
    driver = expert(NAME, make(NAME))
    assert isinstance(driver, UnevenDriver)
    assert driver.careless == LOWER


def test_seven_tenths_of_the_actions_are_random_in_the_careless_half_and_none_in_the_other():
    env = make(NAME)
    other, careless = off_the_way(recorded(UnevenDriver(env), env), env)
    assert not other[~careless].any()
    share, count = other[careless].mean(), careless.sum()
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / count)
    assert count > 500


def test_random_actions_fill_the_range_of_the_force():
    env = make(NAME)
    episodes = recorded(UnevenDriver(env, share=1.0), env, episodes=10)
    _, careless = off_the_way(episodes, env)
    action = episodes.steps["action"].numpy()[careless]
    assert np.abs(action).max() <= 1
    assert np.abs(action.mean(0)).max() < 0.1
    assert np.allclose(action.std(0), 1 / np.sqrt(3), atol=0.05)


def test_the_careless_driver_arrives_later_than_the_careful_one():
    env = make(NAME)
    careful = recorded(UnevenDriver(env, share=0.0), env)
    assert bool(careful.succeeded.all())
    assert recorded(UnevenDriver(env), env).lengths.sum() > 1.3 * careful.lengths.sum()


def test_the_same_seed_gives_the_same_episode_and_the_recording_goes_by_its_name():
    first, again = (
        Episodes.from_arrays(Demonstrations(NAME, episodes=3, only_successful=False, limit=60).record())
        for _ in range(2)
    )
    assert first.fingerprint == again.fingerprint


def test_impossible_drivers_are_refused():
    env = make(NAME)
    with pytest.raises(SettingError, match=r"share of 1\.5"):
        UnevenDriver(env, share=1.5)
    with pytest.raises(SettingError, match=r"\(0, 0\)"):
        UnevenDriver(env, careless={(0, 0), (1, 1)})

"""Pictures in place of what a simulator knows: what policies see, what experts see, what is refused."""

from __future__ import annotations

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from policysmith.common.errors import CapabilityError, SettingError, UnknownNameError
from policysmith.worlds import registry
from policysmith.worlds.cameras import WithCameras
from policysmith.worlds.rendering import configure

needs_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs metaworld")


@pytest.fixture
def drawing():
    try:
        configure()
    except CapabilityError as error:
        pytest.skip(str(error))


class Rendered(gymnasium.Env):
    """Knows three numbers; draws, in its own size, a picture whose left half is as bright as the first."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.full(3, self.t, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(3, self.t, np.float32), 0.0, False, False, {}

    def render(self):
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, :30] = 50 * self.t
        return picture


@pytest.fixture
def rendered(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("Rendered-v0", entry_point=Rendered)
    monkeypatch.setitem(gymnasium.registry, "Rendered-v0", spec)
    return "Rendered-v0"


def test_the_walker_knows_where_it_is_and_has_to_look_for_the_goal():
    env = registry.make("point-reach", pictures={"camera": (20, 24)})
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    whole, _ = registry.make("point-reach").reset(seed=3)
    assert seen["state"].tolist() == whole[:2].tolist()
    green = (seen["camera"] == (60, 170, 90)).all(-1)
    y, x = np.argwhere(green).mean(0)
    # The ring is hollow, and at the edge cut off: half a radius is near enough.
    assert abs((x + 0.5) / 24 - whole[2]) < 0.05
    assert abs(1 - (y + 0.5) / 20 - whole[3]) < 0.05


def test_pictures_are_of_the_moment_of_their_observation(rendered):
    env = registry.make(rendered, pictures={"camera": (40, 60)})
    env.reset()
    for _ in range(2):
        seen, *_ = env.step(np.zeros(1, np.float32))
    assert seen["state"].tolist() == [2, 2, 2]  # no dimension is said to be its own: all are kept
    assert seen["camera"][0, 0, 0] == 100


def test_a_rendering_is_brought_to_the_size_by_averaging(rendered):
    env = registry.make(rendered, pictures={"camera": (10, 12)})
    env.reset()
    seen, *_ = env.step(np.zeros(1, np.float32))
    assert seen["camera"].shape == (10, 12, 3)
    assert seen["camera"][:, :6].min() == seen["camera"][:, :6].max() == 50
    assert seen["camera"][:, 6:].max() == 0


def test_an_expert_acts_on_all_that_the_environment_knows():
    def actions(**options):
        env = registry.make("point-reach", **options)
        expert = registry.expert("point-reach", env)
        assert expert is not None
        observation, _ = env.reset(seed=1)
        expert.reset(1)
        done, taken = False, []
        while not done:
            taken.append(expert.act(observation))
            observation, _, terminated, truncated, _ = env.step(taken[-1])
            done = terminated or truncated
        return np.stack(taken)

    assert np.array_equal(actions(), actions(pictures={"camera": (16, 16)}))


def test_an_environment_with_these_cameras_stays_as_it_is(monkeypatch):
    class Sighted(Rendered):
        observation_space = Dict(state=Box(-1, 1, (2,)), front=Box(0, 255, (8, 9, 3), np.uint8))

    spec = gymnasium.envs.registration.EnvSpec("Sighted-v0", entry_point=Sighted)
    monkeypatch.setitem(gymnasium.registry, "Sighted-v0", spec)
    env = registry.make("Sighted-v0", pictures={"front": (8, 9)})
    assert not isinstance(env, WithCameras)
    assert env.observation_space["front"].shape == (8, 9, 3)


@pytest.mark.parametrize("name", ["point-reach", "Rendered-v0"])
def test_a_camera_that_is_not_there_is_named(name, rendered):
    with pytest.raises(UnknownNameError, match="no camera 'side'"):
        registry.make(name, pictures={"side": (16, 16)}).reset()


def test_pictures_too_small_to_see_anything_are_refused():
    with pytest.raises(SettingError, match="4 x 16 pixels from 'camera'"):
        registry.make("point-reach", pictures={"camera": (4, 16)})


def test_without_pictures_nothing_changes():
    assert registry.make("point-reach", pictures={}).observation_space.shape == (4,)


@needs_metaworld
def test_a_robot_arm_knows_its_hand_and_sees_the_rest(drawing):
    env = registry.make("metaworld/drawer-open-v3", pictures={"corner3": (48, 64), "topview": (16, 16)})
    seen, _ = env.reset(seed=0)
    assert {name: part.shape for name, part in seen.items()} == {
        "state": (4,),
        "corner3": (48, 64, 3),
        "topview": (16, 16, 3),
    }
    assert env.observation_space.contains(seen)
    whole, _ = registry.make("metaworld/drawer-open-v3").reset(seed=0)
    assert np.array_equal(seen["state"], whole[:4])
    elsewhere, _ = env.reset(seed=1)
    assert np.array_equal(seen["state"], elsewhere["state"])  # the drawer moved, which only pictures tell
    assert not np.array_equal(seen["corner3"], elsewhere["corner3"])
    again, _ = env.reset(seed=0)
    assert np.array_equal(seen["corner3"], again["corner3"])
    with pytest.raises(UnknownNameError, match="no camera 'side'"):
        registry.make("metaworld/drawer-open-v3", pictures={"side": (16, 16)}).reset()
    env.close()


# ---- stacks of the last few -----------------------------------------------------------------------------


def test_the_last_pictures_are_stacked_and_an_episode_begins_with_copies_of_its_first(rendered):
    env = registry.make(rendered, pictures={"camera": (3, 8, 12)})
    assert env.observation_space["camera"].shape == (3, 8, 12, 3)
    seen, _ = env.reset()
    shown = [seen["camera"]]
    for _ in range(4):
        seen, *_ = env.step(np.zeros(1))
        assert env.observation_space.contains(seen)
        shown.append(seen["camera"])
    brightness = [[int(one[0, 0, 0]) for one in stack] for stack in shown]
    assert brightness == [[0, 0, 0], [0, 0, 50], [0, 50, 100], [50, 100, 150], [100, 150, 200]]
    seen, _ = env.reset()
    assert [int(one[0, 0, 0]) for one in seen["camera"]] == [0, 0, 0]


@pytest.mark.parametrize("size", [(8,), (0, 16, 16), (1, 2, 16, 16)])
def test_sizes_that_are_none_are_refused(rendered, size):
    with pytest.raises(SettingError, match="pictures of the size"):
        registry.make(rendered, pictures={"camera": size})


def test_a_robot_that_knows_nothing_of_itself_shows_pictures_alone(rendered, monkeypatch):
    monkeypatch.setattr(Rendered, "proprioception", (), raising=False)
    env = registry.make(rendered, pictures={"camera": (8, 12)})
    seen, _ = env.reset()
    assert list(seen) == list(env.observation_space) == ["camera"]

import importlib.util
import sys
import types

import gymnasium
import numpy as np
import pytest

from policysmith.common.errors import CapabilityError, MissingExtraError, SettingError, UnknownNameError
from policysmith.worlds.metaworld import MetaWorldExpert, MetaWorldTask
from policysmith.worlds.point import PointExpert
from policysmith.worlds.registry import expert, known_names, make
from policysmith.worlds.rendering import configure

needs_metaworld = pytest.mark.skipif(importlib.util.find_spec("metaworld") is None, reason="needs metaworld")
needs_robotics = pytest.mark.skipif(
    importlib.util.find_spec("gymnasium_robotics") is None, reason="needs gymnasium_robotics"
)


@pytest.fixture
def drawing():
    """Skip where MuJoCo cannot draw; otherwise have it set up in this process."""
    try:
        configure()
    except CapabilityError as error:
        pytest.skip(str(error))


def test_our_tiny_world_answers_to_its_name_and_takes_its_options():
    env = make("point-reach", horizon=2)
    env.reset(seed=0)
    assert env.observation_space.shape == (4,)
    assert [env.step(np.zeros(2, dtype=np.float32))[3] for _ in range(2)] == [False, True]


def test_its_specification_alone_makes_it_again():
    spec = make("point-reach", horizon=2).spec
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()))
    assert again.unwrapped.horizon == 2


@needs_metaworld
def test_metaworld_answers_with_our_adapter():
    env = make("metaworld/reach-v3", horizon=10, goal_visible=False)
    assert isinstance(env.unwrapped, MetaWorldTask)
    assert env.spec is not None
    assert env.spec.id == "metaworld/reach-v3"


def test_what_gymnasium_knows_is_passed_on():
    assert make("CartPole-v1").spec.max_episode_steps == 500


@needs_robotics
def test_a_dictionary_of_vectors_becomes_one_vector():
    env = make("gymnasium_robotics:PointMaze_UMaze-v3")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.shape == observation.shape == (8,)


def test_a_users_own_package_is_imported_for_its_name(monkeypatch):
    package = types.ModuleType("users_package")
    monkeypatch.setitem(sys.modules, "users_package", package)
    monkeypatch.setitem(
        gymnasium.registry,
        "Mine-v0",
        gymnasium.envs.registration.EnvSpec("Mine-v0", entry_point="policysmith.worlds.point:PointReach"),
    )
    assert make("users_package:Mine-v0", horizon=4).unwrapped.horizon == 4


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("drawer-open-v3", "metaworld/drawer-open-v3", marks=needs_metaworld),
        pytest.param("metaworld/drawer-opn-v3", "metaworld/drawer-open-v3", marks=needs_metaworld),
        pytest.param("PointMaze_UMaz-v3", "gymnasium_robotics:PointMaze_UMaze-v3", marks=needs_robotics),
        ("CartPol-v1", "CartPole-v1"),
        ("point_reach", "point-reach"),
        ("no such thing", "point-reach"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError) as caught:
        make(name)
    assert nearest in caught.value.expected


def test_known_names_are_distinct_and_can_be_made():
    names = known_names()
    assert len(names) == len(set(names))
    assert {"point-reach", "CartPole-v1"} <= set(names)


@pytest.mark.parametrize(
    ("name", "extra", "package"),
    [
        ("metaworld/push-v3", "metaworld", "metaworld"),
        ("gymnasium_robotics:PointMaze_UMaze-v3", "robotics", "gymnasium_robotics"),
    ],
)
def test_a_missing_package_of_ours_names_the_extra(name, extra, package, monkeypatch):
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(MissingExtraError, match=rf"policysmith\[{extra}\]"):
        make(name)


def test_a_missing_package_of_the_users_is_named():
    with pytest.raises(MissingExtraError, match="no_such_package"):
        make("no_such_package:Env-v0")


def test_an_option_that_does_not_exist_is_named():
    with pytest.raises(SettingError, match="horizn"):
        make("point-reach", horizn=3)


def test_experts_belong_to_names():
    env = make("point-reach")
    assert isinstance(expert("point-reach", env), PointExpert)
    assert expert("CartPole-v1", make("CartPole-v1")) is None


@needs_metaworld
def test_the_expert_of_a_metaworld_task_is_its_own():
    env = make("metaworld/reach-v3")
    found = expert("metaworld/reach-v3", env)
    assert isinstance(found, MetaWorldExpert)
    observation, _ = env.reset(seed=0)
    assert env.action_space.contains(found.act(observation))


@needs_robotics
def test_pictures_of_two_mazes_do_not_mix(drawing):
    def picture(maze):
        env = make(f"gymnasium_robotics:PointMaze_{maze}-v3", render_mode="rgb_array", width=64, height=64)
        env.reset(seed=0)
        return env, env.render()

    first, umaze = picture("UMaze")
    second, medium = picture("Medium")
    assert not np.array_equal(umaze, medium)
    assert np.array_equal(first.render(), umaze)
    second.close()
    assert np.array_equal(first.render(), umaze)
    first.close()


def test_an_environment_without_options_is_made_and_says_so_when_pictures_are_wanted(monkeypatch):
    class Plain(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

    monkeypatch.setitem(
        gymnasium.registry, "Plain-v0", gymnasium.envs.registration.EnvSpec("Plain-v0", entry_point=Plain)
    )
    assert isinstance(make("Plain-v0").unwrapped, Plain)
    with pytest.raises(SettingError, match="an option"):
        make("Plain-v0", render_mode="rgb_array")

"""The one way to get an environment, and its scripted expert, by name.

    make("metaworld/drawer-open-v3", horizon=150)             Meta-World, through our adapter
    make("point-reach")                                       our tiny worlds, which need nothing installed
    make("point-obstacle", sigma_system=0.02)
    make("point-maze-pillar")                                 our maze with two ways to every goal
    make("gymnasium_robotics:PointMaze_UMaze-v3")             anything registered with Gymnasium,
    make("my_package:MyEnv-v0", my_option=3)                  the user's own included
    make("mo_gymnasium:deep-sea-treasure-concave-v0")         several objectives: the reward is a vector
    make("point-effort")
    make("metaworld/drawer-open-v3", pictures={"corner3": (64, 64)})        seen through a camera
    make("minatar/breakout")                                  the small arcade games, planes as one vector

A policy sees one vector where the task has a state: dictionaries of vectors are flattened. Pictures, and a
goal where it is asked for, are parts of their own (see `parts`, and `cameras` for environments without any).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from policysmith.common.errors import MissingExtraError, SettingError, UnknownNameError
from policysmith.common.extras import require
from policysmith.common.observations import has_pixels, parts_of
from policysmith.worlds.cameras import CAMERA, SeesWhole, WithCameras, cameras_of
from policysmith.worlds.minatar import GAMES
from policysmith.worlds.parts import as_policies_see, with_vector_actions
from policysmith.worlds.rendering import OwnContext, configure, mujoco_renderer

METAWORLD = "metaworld/"
MINATAR = "minatar/"
POINT_REACH = "point-reach"
POINT_OBSTACLE = "point-obstacle"
POINT_EFFORT = "point-effort"
PILLAR = "point-maze-pillar"
PILLAR_PLAY = "point-maze-pillar-play"
UNEVEN = "point-maze-uneven"
OWN = {
    POINT_REACH: "policysmith.worlds.point:PointReach",
    POINT_OBSTACLE: "policysmith.worlds.obstacle:PointObstacle",
    POINT_EFFORT: "policysmith.worlds.effort:PointEffort",
    PILLAR: "policysmith.worlds.pillar:pillar_maze",
    PILLAR_PLAY: "policysmith.worlds.pillar:play_maze",
    UNEVEN: "policysmith.worlds.uneven:uneven_maze",
}
"""Our own worlds; the mazes need the extra `robotics`."""
MO_GYMNASIUM = "mo_gymnasium"
EXTRAS = {
    "gymnasium_robotics": "robotics",
    "metaworld": "metaworld",
    "mujoco": "metaworld",
    MO_GYMNASIUM: "multi-objective",
}
"""Which of our extras brings which package."""


class Expert(Protocol):
    """A scripted controller that solves a named world."""

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; `seed` determines whatever the controller draws."""
        ...

    def act(self, observation: Any) -> np.ndarray:
        """The action for one observation, within the action space."""
        ...


def make(
    name: str,
    *,
    render_mode: str | None = None,
    goal: bool = False,
    pictures: Mapping[str, tuple[int, ...]] | None = None,
    **kwargs: Any,
) -> gymnasium.Env:
    """The environment called `name`; `kwargs` go to it.

    With `goal`, a goal environment's observation is in parts, `state` and `goal`, and not one vector. With
    `pictures`, camera -> (height, width), there is a picture per camera beside the robot's own state, or the
    last few for (frames, height, width) (see `worlds.cameras`); an environment whose observation has these
    cameras already stays as it is.

    `render_mode="rgb_array"` makes `render()` return pictures, without a display. Raises `UnknownNameError`
    with the nearest names, `MissingExtraError` naming what to install, `SettingError` for an option that the
    environment does not have, and `CapabilityError` where pictures were asked for and cannot be drawn.
    """
    if goal and name == POINT_REACH:
        kwargs["goal_apart"] = True
    # Only where asked for: an environment of the user's need not know the argument.
    env = _make(name, **({} if render_mode is None else {"render_mode": render_mode}), **kwargs)
    if render_mode == "rgb_array" and mujoco_renderer(env) is not None:
        configure()
        env = OwnContext(env)
    seen = prepared(env, goal=goal)
    there = {camera for camera, space in _spaces(seen).items() if has_pixels(space)}
    missing = {camera: size for camera, size in (pictures or {}).items() if camera not in there}
    if not missing:
        return seen
    if render_mode is None and not hasattr(env.unwrapped, "picture"):
        env.close()  # it has to be made anew to be drawn
        return make(name, render_mode="rgb_array", goal=goal, pictures=pictures, **kwargs)
    return WithCameras(seen, missing)


def prepared(env: gymnasium.Env, *, goal: bool = False) -> gymnasium.Env:
    """Any environment as policies see it: one vector or parts, actions in a vector. `make` does this too."""
    return with_vector_actions(as_policies_see(env, goal=goal))


def camera(name: str) -> str:
    """The camera from which the world `name` is seen where none is chosen."""
    return "corner3" if name.startswith(METAWORLD) else CAMERA


def expert(name: str, env: gymnasium.Env) -> Expert | None:
    """The scripted expert of the world `name`, acting on observations of `env`; None where there is none."""
    cameras = cameras_of(env)
    found = _expert(name, env if cameras is None else cameras.env)
    return None if found is None else seeing(found, env)


def seeing(expert: Expert, env: gymnasium.Env) -> Expert:
    """`expert`, shown the whole observation of `env` where cameras were added for a policy."""
    cameras = cameras_of(env)
    return expert if cameras is None else SeesWhole(expert, cameras)


def known_names() -> list[str]:
    """Every name that `make` answers to here: ours, and what Gymnasium and the installed extras register."""
    names = [POINT_REACH, POINT_OBSTACLE, POINT_EFFORT]
    if importlib.util.find_spec("metaworld") is not None:
        from policysmith.worlds.metaworld import task_names

        names += [METAWORLD + task for task in task_names()]
    if importlib.util.find_spec("minatar") is not None:
        names += [MINATAR + game for game in GAMES]
    if importlib.util.find_spec("gymnasium_robotics") is not None:
        # Its names enter Gymnasium's registry when it is imported.
        importlib.import_module("gymnasium_robotics")
        names += [PILLAR, PILLAR_PLAY, UNEVEN]
    if importlib.util.find_spec(MO_GYMNASIUM) is not None:
        importlib.import_module(MO_GYMNASIUM)
    return names + sorted(_full_name(spec) for spec in gymnasium.registry.values())


def _expert(name: str, env: gymnasium.Env) -> Expert | None:
    identity = name.split(":")[-1]
    if name in (POINT_REACH, POINT_EFFORT):
        from policysmith.worlds.point import PointExpert

        return PointExpert()
    if name == POINT_OBSTACLE:
        from policysmith.worlds.obstacle import ObstacleExpert

        return ObstacleExpert()
    if name.startswith(METAWORLD):
        from policysmith.worlds.metaworld import MetaWorldExpert

        return MetaWorldExpert(env)
    if name == UNEVEN:
        from policysmith.worlds.uneven import UnevenDriver

        return UnevenDriver(env)
    if name == PILLAR_PLAY:
        from policysmith.worlds.pointmaze import PlayExpert

        return PlayExpert(env)
    if name == PILLAR or identity.startswith("PointMaze_"):
        from policysmith.worlds.pointmaze import PointMazeExpert

        return PointMazeExpert(env)
    return None


def _spaces(env: gymnasium.Env) -> dict[str, Any]:
    space = env.observation_space
    return parts_of(space.spaces if isinstance(space, gymnasium.spaces.Dict) else space)


def _full_name(spec: EnvSpec) -> str:
    """The name that also works in a fresh process: with the package, unless that is Gymnasium itself."""
    entry = spec.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "gymnasium")
    package = module.split(".")[0].split(":")[0]
    return spec.id if package == "gymnasium" else f"{package}:{spec.id}"


def _make(name: str, **kwargs: Any) -> gymnasium.Env:
    spec: str | EnvSpec = name
    if name in OWN:
        spec = EnvSpec(name, entry_point=OWN[name], disable_env_checker=True)
    elif name.startswith(METAWORLD):
        _check_metaworld(name)
        spec = EnvSpec(
            name,
            entry_point="policysmith.worlds.metaworld:MetaWorldTask",
            kwargs={"task": name.removeprefix(METAWORLD)},
            disable_env_checker=True,
        )
    elif name.startswith(MINATAR):
        game = name.removeprefix(MINATAR).replace("_", "-")
        if game not in GAMES:
            raise _unknown(name)
        spec = EnvSpec(
            name,
            entry_point="policysmith.worlds.minatar:MinAtarGame",
            kwargs={"game": game},
            disable_env_checker=True,
        )
    elif ":" in name:
        _check_package(name)
        if name.startswith(f"{MO_GYMNASIUM}:"):
            kwargs.setdefault("disable_env_checker", True)  # which knows no vectors of rewards
    try:
        return gymnasium.make(spec, **kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        advice = " ".join(map(str, error.args))
        raise MissingExtraError(f"'{name}' needs a package that is not installed", cure=advice) from error
    except gymnasium.error.Error as error:
        if isinstance(error, gymnasium.error.UnregisteredEnv) or "Malformed environment ID" in str(error):
            raise _unknown(name) from error
        raise
    except TypeError as error:
        if "unexpected keyword argument" not in str(error) and "takes no arguments" not in str(error):
            raise
        raise SettingError(f"'{name}' does not know an option it was given", where=str(error)) from error


def _check_metaworld(name: str) -> None:
    """Before Gymnasium sees the name, whose rules for a name's form ours may break."""
    require("metaworld", extra="metaworld")
    from policysmith.worlds.metaworld import task_names

    if name.removeprefix(METAWORLD) not in task_names():
        raise _unknown(name)


def _check_package(name: str) -> None:
    """Import the package before the colon, whose names enter Gymnasium's registry by that."""
    package = name.split(":")[0]
    extra = EXTRAS.get(package.split(".")[0])
    if extra is not None:
        require(package, extra=extra)
        return
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        raise MissingExtraError(
            f"the package '{package}' of the environment '{name}' cannot be imported",
            cure=f"install it, or run where Python finds '{package}'",
        ) from error


def _unknown(name: str) -> UnknownNameError:
    names = known_names()
    # Compared without package and namespace as well, since that is the part people leave out.
    short = {candidate.split(":")[-1].split("/")[-1]: candidate for candidate in names}
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.7)
    bare = name.split(":")[-1].split("/")[-1]
    near += [short[match] for match in difflib.get_close_matches(bare, short, n=3, cutoff=0.7)]
    return UnknownNameError(
        f"no environment is called '{name}'",
        expected=", ".join(dict.fromkeys(near)) or "point-reach, metaworld/<task>-v3, or a Gymnasium name",
        cure="an environment of your own is named as 'package:Name-v0', its package being importable",
    )

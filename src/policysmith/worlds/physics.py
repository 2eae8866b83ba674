"""The same task in another world: masses and friction that are set before an episode begins.

    env = with_physics(make("InvertedPendulum-v5"), {"pole mass": 20.0, "cart mass": 3.0})
    env = RandomPhysics(make("Hopper-v5"), robust_box("Hopper-v5"))           drawn anew for each episode

In a simulation by MuJoCo, "<body> mass" is the mass of a body (its inertia stays), "<geom> friction" the
sliding friction of a surface, and "friction" that of all; two surfaces that touch have the larger friction of
the two. Any other environment can take part by a method `set_physics(parameters)`.

Source of the boxes: Zouitine et al. 2024 (2410.06212), table 7; the same as in the authors' suite RRLS.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError, SettingError, UnknownNameError
from policysmith.common.extras import require
from policysmith.common.rng import derive, generator
from policysmith.worlds.uncertainty import Parameter, UncertaintyBox

MakeInWorld = Callable[[Mapping[str, float]], gymnasium.Env]
"""Physical parameters by name -> the environment that has them."""

ROBUST_TASKS: dict[str, tuple[Parameter, ...]] = {
    "Ant": (
        Parameter("torso mass", 0.1, 3.0, 0.33),
        Parameter("front_left_leg mass", 0.01, 3.0, 0.04),
        Parameter("front_right_leg mass", 0.01, 3.0, 0.06),
    ),
    "HalfCheetah": (
        Parameter("friction", 0.1, 4.0, 0.4),
        Parameter("torso mass", 0.1, 7.0, 6.36),
        Parameter("bthigh mass", 0.1, 3.0, 1.53),
    ),
    "Hopper": (
        Parameter("floor friction", 0.1, 3.0, 1.0),
        Parameter("torso mass", 0.1, 3.0),  # the table's nominal value, 3.53, is not in its range
        Parameter("thigh mass", 0.1, 4.0, 3.93),
    ),
    "Walker2d": (
        Parameter("floor friction", 0.1, 4.0, 0.7),
        Parameter("torso mass", 0.1, 5.0, 3.53),
        Parameter("thigh mass", 0.1, 6.0, 3.93),
    ),
    "HumanoidStandup": (
        Parameter("torso mass", 0.1, 16.0, 8.32),
        Parameter("right_foot mass", 0.1, 8.0, 1.77),
        Parameter("left_thigh mass", 0.1, 5.0, 4.53),
    ),
    "InvertedPendulum": (
        Parameter("pole mass", 1.0, 31.0, 4.90),
        Parameter("cart mass", 1.0, 11.0, 9.42),
    ),
}
"""Task without its version -> what is uncertain of it; sets of two dimensions are of the first two."""


def robust_box(task: str, *, dimensions: int = 2) -> UncertaintyBox:
    """The published box of a MuJoCo task such as `Hopper-v5`, of its first `dimensions` parameters.

    Raises `UnknownNameError` for a task without one, `SettingError` for more dimensions than it has.
    """
    name = re.sub(r"-v\d+$", "", task)
    if name not in ROBUST_TASKS:
        raise UnknownNameError(
            f"no box of uncertain parameters is known for '{task}'",
            expected=", ".join(ROBUST_TASKS),
            cure="say which parameters are uncertain, and between which ends",
        )
    parameters = ROBUST_TASKS[name]
    if not 1 <= dimensions <= len(parameters):
        raise SettingError(
            f"{dimensions} uncertain parameters of '{task}'", expected=f"between 1 and {len(parameters)}"
        )
    return UncertaintyBox(parameters[:dimensions])


def with_physics(env: gymnasium.Env, parameters: Mapping[str, float]) -> WithPhysics:
    """`env` in the world that `parameters` describe; errors as in `set_physics`."""
    return WithPhysics(env, parameters)


class WithPhysics(gymnasium.Wrapper):
    """Sets `parameters` at once, and again before each episode."""

    def __init__(self, env: gymnasium.Env, parameters: Mapping[str, float]) -> None:
        super().__init__(env)
        self.parameters = dict(parameters)
        set_physics(env, self.parameters)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begin an episode in the world that was asked for."""
        set_physics(self.env, self.parameters)
        return self.env.reset(seed=seed, options=options)


class RandomPhysics(gymnasium.Wrapper):
    """Domain randomisation: each episode is in a world drawn uniformly from `box`, by the seed of its reset.

    `parameters` are those of the present episode. Without a seed, worlds go on being drawn from the last one.
    """

    def __init__(self, env: gymnasium.Env, box: UncertaintyBox) -> None:
        super().__init__(env)
        self.box = box
        self.parameters: dict[str, float] = {}
        self._rng = generator(0, "physics")
        self._draw()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Draw a world and begin an episode in it."""
        if seed is not None:
            self._rng = generator(seed, "physics")
        self._draw()
        return self.env.reset(seed=seed, options=options)

    def _draw(self) -> None:
        self.parameters = self.box.named(self.box.draw(1, rng=self._rng)[0])
        set_physics(self.env, self.parameters)


def set_physics(env: gymnasium.Env, parameters: Mapping[str, float]) -> None:
    """Give the world of `env` these parameters, from its next reset on.

    Raises `UnknownNameError` for a body or a surface that it does not have, `SettingError` for a value that
    is none (a mass that is not above 0), `CapabilityError` for a world whose physics cannot be set.
    """
    world = env.unwrapped
    own = getattr(world, "set_physics", None)
    if callable(own):
        own(parameters)
        return
    model = getattr(world, "model", None)
    if not hasattr(model, "body_mass"):
        raise CapabilityError(
            f"the physics of {type(world).__name__} cannot be set",
            expected="a MuJoCo environment, or one with a method set_physics(parameters)",
        )
    for name, value in parameters.items():
        _set_in_mujoco(model, name, value)
    # What the simulation derives from masses is made to agree with them.
    require("mujoco", extra="robust").mj_setConst(model, world.data)  # type: ignore[attr-defined]


def without_effect(make: MakeInWorld, box: UncertaintyBox, *, seed: int = 0, steps: int = 50) -> list[str]:
    """The parameters whose low and high ends give the same episode, all else in the middle.

    Both worlds are played `steps` steps with the same random actions; one that differs in neither observation
    nor reward does not know the parameter.
    """
    alike = []
    for i, name in enumerate(box.names):
        ends = np.full((2, len(box)), 0.5)
        ends[:, i] = 0.0, 1.0
        low, high = (_played(make(box.named(point)), seed, steps) for point in box.point(ends))
        if low.shape == high.shape and np.array_equal(low, high):
            alike.append(name)
    return alike


def _set_in_mujoco(model: Any, name: str, value: float) -> None:
    thing, _, kind = name.rpartition(" ")
    if kind == "mass" and thing:
        _check(name, value, least=1e-9)
        model.body_mass[_found(model, "body", thing)] = value
    elif kind == "friction":
        _check(name, value, least=0.0)
        model.geom_friction[_found(model, "geom", thing) if thing else slice(None), 0] = value
    else:
        raise UnknownNameError(
            f"no physical parameter is called '{name}'",
            expected="such as 'torso mass', 'floor friction' or 'friction'",
        )


def _found(model: Any, kind: str, name: str) -> int:
    count = model.nbody if kind == "body" else model.ngeom
    names = [getattr(model, kind)(i).name for i in range(count)]
    if name not in names:
        raise UnknownNameError(f"the world has no {kind} '{name}'", expected=", ".join(filter(None, names)))
    return names.index(name)


def _check(name: str, value: float, *, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise SettingError(
            f"the value of '{name}' is {value}", expected="above 0" if least else "0 or more, and finite"
        )


def _played(env: gymnasium.Env, seed: int, steps: int) -> np.ndarray:
    """Everything that an episode of random actions shows, in one vector."""

    def flat(observation: Any) -> np.ndarray:
        return np.ravel(np.asarray(gymnasium.spaces.flatten(env.observation_space, observation)))

    env.action_space.seed(derive(seed, "actions"))
    observation, _ = env.reset(seed=seed)
    seen = [flat(observation)]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen += [flat(observation), np.array([float(reward)])]
        if terminated or truncated:
            break
    env.close()
    return np.concatenate(seen)

"""Recording episodes: any Gymnasium environment, any expert or policy, with noise where it is wanted.

Two kinds of noise differ in what is learnt from them. *Action noise* is added to the expert's action before
it is recorded and played: the demonstrator is imprecise. *System noise* is added to what is played only: the
world is imprecise, and the recorded action is the expert's own answer to where it ended up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from policysmith.common.errors import CapabilityError, DataError, ShapeError
from policysmith.common.observations import each_part, stack
from policysmith.common.rng import derive, numpy_generator
from policysmith.policies.acting import Expert

Recorded = dict[str, Any]
"""One episode as arrays, in the form `Episodes.from_arrays` takes."""


def record(
    environment: gymnasium.Env,
    expert: Expert,
    *,
    episodes: int,
    seed: int,
    action_noise: float = 0.0,
    system_noise: float = 0.0,
    limit: int | None = None,
    stop_on_success: bool = True,
    only_successful: bool = False,
    most_attempts: int = 20,
) -> Iterator[Recorded]:
    """Yield `episodes` recorded episodes, one by one.

    Attempt i resets the environment with a seed derived from `seed` and i, and draws its noise from a
    generator of its own, so that every episode can be repeated alone. `limit` cuts episodes (as a
    truncation); with `only_successful` the others are dropped, and `DataError` says so after `most_attempts`
    attempts per wanted episode. Noise is in units of the action, clipped to the action space afterwards.
    """
    space = environment.action_space
    if not isinstance(space, gymnasium.spaces.Box):
        raise CapabilityError(f"recording needs a continuous (Box) action space, not {space}")
    kept = 0
    for attempt in range(episodes * most_attempts):
        if kept == episodes:
            return
        rng = numpy_generator(seed, "noise", attempt)
        noises = (action_noise, system_noise)
        episode = _play(
            environment, expert, derive(seed, "episode", attempt), rng, noises, limit, stop_on_success
        )
        if only_successful and not episode["success"].any():
            continue
        kept += 1
        yield episode
    if kept < episodes:
        raise DataError(
            f"{kept} of {episodes * most_attempts} attempts succeeded, and {episodes} were wanted",
            cure="lower the noise, raise the limit on steps, or record unsuccessful episodes too",
        )


def _play(
    environment: gymnasium.Env,
    expert: Expert,
    seed: int,
    rng: np.random.Generator,
    noises: tuple[float, float],
    limit: int | None,
    stop_on_success: bool,
) -> Recorded:
    low, high = environment.action_space.low, environment.action_space.high  # type: ignore[attr-defined]
    observation, _ = environment.reset(seed=seed)
    expert.reset(seed)
    # Copies of the observations, because some environments return the array they go on writing into.
    rows: dict[str, list[Any]] = {"observation": [each_part(observation, np.array)]}
    rows |= {key: [] for key in ("action", "reward", "terminated", "truncated", "success")}
    while True:
        action = np.asarray(expert.act(observation), dtype=np.float32)
        if action.shape != low.shape:
            raise ShapeError(
                f"the expert acts with shape {list(action.shape)}",
                expected=f"{list(low.shape)}, the environment's action space",
            )
        action = np.clip(action + noises[0] * rng.standard_normal(action.shape), low, high)
        played = np.clip(action + noises[1] * rng.standard_normal(action.shape), low, high)
        observation, reward, terminated, truncated, info = environment.step(played.astype(np.float32))
        success = succeeded(info)
        truncated = truncated or (limit is not None and len(rows["action"]) + 1 >= limit)
        truncated = truncated or (stop_on_success and success and not terminated)
        for key, value in zip(
            rows,
            (each_part(observation, np.array), action, reward, terminated, truncated, success),
            strict=True,
        ):
            rows[key].append(value)
        if terminated or truncated:
            seen = stack(rows.pop("observation"))
            return {"observation": seen} | {key: np.asarray(value) for key, value in rows.items()}


def succeeded(info: dict[str, Any]) -> bool:
    """Whether a step's `info` says success, under the names that environments use for it."""
    return any(bool(info.get(key)) for key in ("success", "is_success"))

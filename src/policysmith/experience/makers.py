"""From what a person calls an environment (a name, a function, an object) to copies of it side by side."""

from __future__ import annotations

from functools import partial

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.experience.environments import InThisProcess, Maker
from policysmith.experience.workers import InProcesses
from policysmith.worlds import registry


def environments_of(
    environment: str | Maker | gymnasium.Env, count: int, *, processes: int = 0
) -> InThisProcess | InProcesses:
    """`count` copies of an environment, in this process or in worker `processes`, as policies see them.

    A name (see `worlds.registry.make`), a function that makes one, or an environment: of that, further
    copies are made from its registration. `SettingError` where it has none and more than one is wanted.
    """
    makers = makers_of(environment, count, processes > 0)
    return InProcesses(makers, workers=processes) if processes else InThisProcess(makers)


def makers_of(environment: str | Maker | gymnasium.Env, count: int, apart: bool = False) -> list[Maker]:
    """Functions that make the copies; `apart`: each is called in another process."""
    if isinstance(environment, str):
        return [partial(registry.make, environment)] * count
    if not isinstance(environment, gymnasium.Env):
        return [partial(_made, environment)] * count
    if count == 1 and not apart:
        return [partial(registry.prepared, environment)]
    if environment.spec is None:
        raise SettingError(
            f"one environment was given ({environment}) and {count} are wanted"
            + (" in other processes" if apart else ""),
            expected="a name, or a function that makes an environment, which can be called again",
            cure="pass the class or a function in place of the object, or set environments to 1",
        )
    return [partial(_made, partial(gymnasium.make, environment.spec))] * count


def _made(make: Maker) -> gymnasium.Env:
    return registry.prepared(make())

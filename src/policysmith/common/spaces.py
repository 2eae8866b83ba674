"""Action spaces as plain data: what a policy acts in, saved with it; and vectors that hold planes.

Gymnasium's many action spaces are two to a policy: *continuous*, a vector within limits, and *discrete*, a
vector of whole numbers, each one of several choices. `Discrete` is one such number, `MultiDiscrete` several,
`MultiBinary` several with two choices each (`worlds.parts` shows all of them as integer boxes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from policysmith.common.errors import CapabilityError

CONTINUOUS, DISCRETE = "continuous", "discrete"


@dataclass(frozen=True)
class ActionSpace:
    """One of the two kinds of action space.

    - `kind`: "continuous" or "discrete"
    - `low`, `high`: the limits per dimension where it is continuous
    - `choices`: how many choices each number has where it is discrete
    """

    kind: str
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    choices: tuple[int, ...] = ()

    @classmethod
    def of(cls, space: gymnasium.Space | gymnasium.Env) -> ActionSpace:
        """That of an environment or a Gymnasium space; `CapabilityError` where none can act."""
        space = space.action_space if isinstance(space, gymnasium.Env) else space
        if isinstance(space, Discrete):
            return cls(DISCRETE, choices=(int(space.n),))
        if isinstance(space, MultiDiscrete):
            return cls(DISCRETE, choices=tuple(int(n) for n in space.nvec.ravel()))
        if isinstance(space, MultiBinary):
            return cls(DISCRETE, choices=(2,) * int(np.prod(space.shape)))
        if not isinstance(space, Box):
            raise CapabilityError(
                f"the environment acts in {space}",
                expected="a Box, Discrete, MultiDiscrete or MultiBinary space",
                cure="wrap the environment so that its action is one vector",
            )
        low, high = np.ravel(space.low), np.ravel(space.high)
        if np.issubdtype(space.dtype, np.integer):  # type: ignore[arg-type]
            return cls(DISCRETE, choices=tuple(int(n) for n in high - low + 1))
        if not np.isfinite([low, high]).all():
            raise CapabilityError(
                f"the environment's actions have no limits: {space}",
                expected="finite limits, which policies scale their actions by",
                cure="wrap it with gymnasium.wrappers.RescaleAction, or give the Box finite limits",
            )
        return cls(CONTINUOUS, tuple(map(float, low)), tuple(map(float, high)))

    @property
    def size(self) -> int:
        """Width of one action."""
        return len(self.choices) if self.discrete else len(self.low)

    @property
    def discrete(self) -> bool:
        """Whether actions are choices."""
        return self.kind == DISCRETE

    def require(self, kind: str, *, by: str, instead: str) -> None:
        """Raise `CapabilityError` unless the space is of `kind`, naming what would serve `instead`."""
        if self.kind != kind:
            raise CapabilityError(
                f"{by} acts in {kind} spaces, and the environment's actions are {self.kind}: {self}",
                cure=f"use {instead}",
            )

    def __str__(self) -> str:
        if self.discrete:
            return f"{len(self.choices)} of {', '.join(map(str, self.choices))} choices"
        return f"{self.size} numbers from {min(self.low):g} to {max(self.high):g}"

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"kind": self.kind, "low": self.low, "high": self.high, "choices": self.choices}


class Planes(Box):
    """Observations that are a vector to whoever wants one and planes to whoever can read them.

    A float32 vector between `low` and `high`, the numbers of [height, width, plane] (the attribute `planes`)
    one after the other. Bodies that are made for such a space begin with convolutions.
    """

    def __init__(self, low: float, high: float, planes: Sequence[int]) -> None:
        super().__init__(low, high, (int(np.prod(planes)),), np.float32)
        self.planes = tuple(int(size) for size in planes)


def planes_of(space: gymnasium.Space | None) -> tuple[int, ...]:
    """The shape [height, width, plane] that a space's vectors hold; () where it does not say."""
    return tuple(getattr(space, "planes", ()))

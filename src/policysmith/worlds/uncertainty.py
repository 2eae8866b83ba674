"""What is not known of a world: a box of parameters, each with its name and its ends.

A model of the world is one point of the box. It is fixed for a whole episode: what is uncertain is which
world this is, not what it does from step to step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from policysmith.common.errors import SettingError, ShapeError


@dataclass(frozen=True)
class Parameter:
    """A parameter that lies between `low` and `high`; `nominal` is what a world has if nothing is said.

    Raises `SettingError` naming the parameter where the ends are in the wrong order, equal or not finite, or
    where the nominal value lies outside of them. Without a nominal value it is None.
    """

    name: str
    low: float
    high: float
    nominal: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SettingError(
                f"the parameter '{self.name}' is to lie between {self.low} and {self.high}",
                expected="finite ends, low below high",
            )
        if self.nominal is not None and not self.low <= self.nominal <= self.high:
            raise SettingError(
                f"the nominal value {self.nominal} of the parameter '{self.name}' is outside of its range",
                expected=f"between {self.low} and {self.high}",
            )


@dataclass(frozen=True)
class UncertaintyBox:
    """The set of worlds: every combination of the parameters' values.

    Points are arrays whose last axis has an entry per parameter, in the parameters' order and units.
    Raises `SettingError` for no parameters and for two of one name.
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        if not self.parameters or len(set(self.names)) != len(self.names):
            raise SettingError(
                f"the uncertain parameters are called {list(self.names)}",
                expected="at least one, each with its own name",
            )

    @classmethod
    def of(cls, names: Sequence[str], low: Sequence[float], high: Sequence[float]) -> UncertaintyBox:
        """A box from names and ends side by side; `SettingError` where they are not equally many."""
        if not len(names) == len(low) == len(high):
            raise SettingError(
                f"{len(names)} parameters with {len(low)} low and {len(high)} high ends",
                expected="both ends of every parameter",
            )
        return cls(tuple(Parameter(*one) for one in zip(names, low, high, strict=True)))

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """What the parameters are called."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def low(self) -> Float[np.ndarray, "parameter"]:
        """The low ends."""
        return np.array([parameter.low for parameter in self.parameters])

    @property
    def high(self) -> Float[np.ndarray, "parameter"]:
        """The high ends."""
        return np.array([parameter.high for parameter in self.parameters])

    def point(self, unit: ArrayLike) -> Float[np.ndarray, "*batch parameter"]:
        """The point at these shares (0 to 1) of the way from the low end to the high one."""
        shares = np.asarray(unit, dtype=float)
        if shares.ndim == 0 or shares.shape[-1] != len(self):
            raise ShapeError(
                f"a point of shape {list(shares.shape)}", expected=f"{len(self)} numbers on the last axis"
            )
        return self.low + shares * (self.high - self.low)

    def grid(self, points: int) -> Float[np.ndarray, "point parameter"]:
        """`points` values of each parameter, evenly, ends included, in all combinations, the last fastest."""
        if points < 2:
            raise SettingError(f"a grid of {points} points a parameter", expected="at least 2")
        axes = np.meshgrid(*[np.linspace(0, 1, points)] * len(self), indexing="ij")
        return self.point(np.stack([axis.ravel() for axis in axes], axis=-1))

    def draw(self, count: int, *, rng: torch.Generator) -> Float[np.ndarray, "point parameter"]:
        """`count` points drawn uniformly."""
        return self.point(torch.rand(count, len(self), generator=rng, dtype=torch.double).numpy())

    def named(self, point: ArrayLike) -> dict[str, float]:
        """A single point as name -> value."""
        values = np.asarray(point, dtype=float)
        if values.shape != (len(self),):
            raise ShapeError(f"a point of shape {list(values.shape)}", expected=f"[{len(self)}]")
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}


def told(parameters: Mapping[str, float]) -> str:
    """Such as `pole mass 31, cart mass 1`, for messages."""
    return ", ".join(f"{name} {value:.4g}" for name, value in parameters.items())

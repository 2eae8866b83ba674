"""The walk from noise to a clean sample down continuous noise levels, which all samplers have in common.

A sampler is a *rule of stepping* from one level to the next, on a bound denoiser D(x, sigma) that estimates
the clean sample; what rules there are is in `samplers`. Holding positions and adjusting x on the way are the
same for all rules and are done here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.networks.denoiser import BoundDenoiser

Keep = Callable[[Tensor, float], Tensor]
"""(x, level) -> x with some of its positions put where they have to be at this level."""

Adjust = Callable[[Tensor, int], Tensor]
"""(x, index of the step about to be taken) -> x, moved."""


@dataclass(frozen=True)
class Place:
    """Where a walk stands: all that a rule of stepping may look at."""

    x: Tensor
    """The noisy sample at level `sigma`."""
    sigmas: tuple[float, ...]
    """All levels of the walk, the last 0."""
    index: int
    """Which of the levels x is at."""
    previous: Tensor | None
    """The estimate of the clean sample that the step before returned; None at the first step."""
    denoise: Callable[[Tensor, float], Tensor]
    """(x, sigma) -> estimate of the clean sample; one call of the network."""
    normal: Callable[[], Tensor]
    """Draws standard normal noise of the shape of x."""

    @property
    def sigma(self) -> float:
        """The level of x."""
        return self.sigmas[self.index]

    @property
    def after(self) -> float:
        """The level to step to."""
        return self.sigmas[self.index + 1]


Step = Callable[[Place], tuple[Tensor, Tensor]]
"""A rule of stepping: place -> (x at the next level, the estimate of the clean sample on the way)."""


@dataclass(frozen=True)
class Sampler:
    """A rule of stepping, with what it costs: `calls` network calls per step, one for the step to 0."""

    step: Step
    calls: int = 1
    deterministic: bool = True

    def network_calls(self, steps: int) -> int:
        """Network calls of a walk over a schedule of so many steps."""
        return self.calls * (steps - 1) + 1

    def __call__(
        self,
        denoise: BoundDenoiser,
        start: Float[Tensor, "batch horizon action"],
        sigmas: Float[Tensor, "levels"] | Sequence[float],
        *,
        rng: torch.Generator | None = None,
        keep: Keep | None = None,
        adjust: Adjust | None = None,
    ) -> Float[Tensor, "batch horizon action"]:
        """Walk from `start`, which is at level sigmas[0] (its noise already that large), down to clean.

        `denoise` maps (x, sigma [batch]) to the estimate of the clean sample. `keep` holds positions: it is
        applied to every x that the network is shown, half steps included, and to the result (then with level
        0); see `holding`. `adjust` may move x before each step. `rng` is needed where noise is drawn.
        Raises `SettingError` for levels that do not fall to 0 and for a missing generator.
        """
        levels = _checked(sigmas)
        held = keep if keep is not None else lambda x, level: x
        x, estimate = start, None
        for index, level in enumerate(levels[:-1]):
            x = held(x, level)
            if adjust is not None:
                x = adjust(x, index)
            place = Place(
                x,
                levels,
                index,
                estimate,
                denoise=lambda x, sigma: denoise(held(x, sigma), x.new_full((len(x),), sigma)),
                normal=lambda: _normal_like(start, rng),
            )
            x, estimate = self.step(place)
        return held(x, 0.0)


def holding(where: Tensor, value: Tensor) -> Keep:
    """A `keep` that holds positions at clean values: `value` where the mask `where` is true, at every level.

    Both broadcast against x [batch, horizon, action].
    """
    return lambda x, level: torch.where(where, value, x)


def _normal_like(x: Tensor, rng: torch.Generator | None) -> Tensor:
    if rng is None:
        raise SettingError("this sampler draws noise and was given no generator", cure="pass rng=...")
    return torch.randn(x.shape, generator=rng, device=rng.device, dtype=x.dtype).to(x.device)


def _checked(sigmas: Tensor | Sequence[float]) -> tuple[float, ...]:
    levels = tuple(float(sigma) for sigma in sigmas)
    falling = all(first > second for first, second in pairwise(levels))
    if len(levels) < 2 or levels[-1] != 0 or not falling or not math.isfinite(levels[0]):
        raise SettingError(
            f"the noise levels of a walk are {[round(level, 6) for level in levels[:8]]}"
            + ("..." if len(levels) > 8 else ""),
            expected="at least two, each below the one before, the last 0",
            cure="make them with a schedule (policysmith.networks.schedules)",
        )
    return levels

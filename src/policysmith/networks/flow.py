"""Rectified flow: straight paths from noise to data, and the velocity along them.

    x_t = (1 - t) noise + t clean,    velocity = clean - noise,    t from 0 (noise) to 1 (data).

A network that predicts the velocity from (x_t, t) is any `Denoiser` with t as its level; sampling follows the
velocity from t = 0 to 1. Deterministic: the starting noise fixes the sample.

Sources: Liu et al. 2023 (rectified flow); Lipman et al. 2023 (flow matching).
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
from policysmith.networks.walk import Keep

TimeDensity = Callable[[int, torch.Generator], Tensor]
"""(batch, rng) -> times [batch] in [0, 1], on the generator's device."""


def interpolate(
    clean: Float[Tensor, "batch *shape"], noise: Float[Tensor, "batch *shape"], time: Float[Tensor, "batch"]
) -> Float[Tensor, "batch *shape"]:
    """The point of each row's path at its time."""
    time = _like(time, clean)
    return (1 - time) * noise + time * clean


def uniform_time() -> TimeDensity:
    """Every time alike."""
    return lambda batch, rng: torch.rand(batch, generator=rng, device=rng.device)


def logit_normal_time(mean: float = 0.0, deviation: float = 1.0) -> TimeDensity:
    """ln(t / (1 - t)) is normal: mostly the middle of the path, where the velocity is hardest to tell.

    Source: Esser et al. 2024, section 3.1.
    """
    if not deviation > 0:
        raise SettingError(f"the deviation of the time's logit is {deviation}", expected="above 0")

    def draw(batch: int, rng: torch.Generator) -> Tensor:
        return torch.sigmoid(mean + deviation * torch.randn(batch, generator=rng, device=rng.device))

    return draw


def even_times(steps: int) -> Float[Tensor, "times"]:
    """Times 0 to 1 in even steps, [steps + 1], float64."""
    if steps < 1:
        raise SettingError(f"a flow of {steps} steps was asked for", expected="at least one step")
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def sway_times(steps: int, *, sway: float = -1.0) -> Float[Tensor, "times"]:
    """t = u + sway (cos(pi u / 2) - 1 + u) with u even: below 0, smaller steps near the noise.

    `sway` between -1 and 2 / (pi - 2), within which times rise. Source: Chen et al. 2024 (F5-TTS).
    """
    if not -1 <= sway <= 2 / (math.pi - 2):
        raise SettingError(f"the sway of the times is {sway}", expected="between -1 and 1.75")
    even = even_times(steps)
    times = even + sway * (torch.cos(math.pi / 2 * even) - 1 + even)
    times[-1] = 1.0
    return times


FlowStep = Callable[[Callable[[Tensor, float], Tensor], Tensor, float, float], Tensor]
"""(velocity (x, time) -> velocity, x, time, next time) -> x at the next time."""


@dataclass(frozen=True)
class FlowSampler:
    """A rule of stepping along the velocity, and its `calls` of the network per step."""

    step: FlowStep
    calls: int = 1

    def network_calls(self, steps: int) -> int:
        """Network calls of so many steps."""
        return self.calls * steps

    def __call__(
        self,
        velocity: BoundDenoiser,
        start: Float[Tensor, "batch horizon action"],
        times: Float[Tensor, "times"] | Sequence[float],
        *,
        keep: Keep | None = None,
    ) -> Float[Tensor, "batch horizon action"]:
        """Walk from `start` at times[0] (noise where that is 0) to the last time (data where that is 1).

        `velocity` maps (x, time [batch]) to the velocity. `keep(x, time)` holds positions, in every x that
        the network is shown and in the result. Raises `SettingError` unless times rise within [0, 1].
        """
        points = _checked(times)
        held = keep if keep is not None else lambda x, time: x

        def ask(x: Tensor, time: float) -> Tensor:
            return velocity(held(x, time), x.new_full((len(x),), time))

        x = start
        for time, after in pairwise(points):
            x = self.step(ask, held(x, time), time, after)
        return held(x, points[-1])


def flow_euler() -> FlowSampler:
    """The velocity at the beginning of each step, for the whole step."""
    return FlowSampler(lambda velocity, x, time, after: x + (after - time) * velocity(x, time))


def flow_midpoint() -> FlowSampler:
    """The velocity half way, for the whole step: second order, two calls per step."""

    def step(velocity: Callable[[Tensor, float], Tensor], x: Tensor, time: float, after: float) -> Tensor:
        half = (after - time) / 2
        return x + (after - time) * velocity(x + half * velocity(x, time), time + half)

    return FlowSampler(step, calls=2)


def clean_from_velocity(velocity: BoundDenoiser) -> BoundDenoiser:
    """A network that predicts the velocity, as one that estimates the clean sample: x + (1 - t) velocity."""
    return lambda noisy, time: noisy + _like(1 - time, noisy) * velocity(noisy, time)


def velocity_from_clean(denoise: BoundDenoiser) -> BoundDenoiser:
    """`clean_from_velocity` undone, (clean - x) / (1 - t), so that guidance of the estimate guides a flow."""
    return lambda noisy, time: (denoise(noisy, time) - noisy) / _like(1 - time, noisy)


def _like(value: Tensor, sample: Tensor) -> Tensor:
    return value.reshape(*value.shape, *[1] * (sample.dim() - value.dim()))


def _checked(times: Tensor | Sequence[float]) -> tuple[float, ...]:
    points = tuple(float(time) for time in times)
    rising = all(first < second for first, second in pairwise(points))
    if len(points) < 2 or not rising or points[0] < 0 or points[-1] > 1:
        raise SettingError(
            f"the times of a flow are {[round(time, 6) for time in points[:8]]}"
            + ("..." if len(points) > 8 else ""),
            expected="at least two, rising, between 0 (noise) and 1 (data)",
        )
    return points

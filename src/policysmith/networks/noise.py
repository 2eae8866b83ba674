"""Discrete-time diffusion: the noise of DDPM with a level per position, and the reverse process as a table.

Forward, with A_l the share of signal left at level l (the cumulative product of 1 - beta):

    x = sqrt(A_l) clean + sqrt(1 - A_l) noise

A level is an integer: N-1 is pure noise, 0 one step from clean, -1 clean. It may be one per sample or one per
position of a sequence; the scalar level of ordinary diffusion is the special case.

Backward, every deterministic or ancestral sampler on these levels has the same form,

    clean' = clamp(x * a + prediction * b);   x_prev = clean' * c + x * d + deviation * z,

so that a sampler is a table of (a, b, c, d, deviation) per level, with a last row for level -1 that leaves x
as it is. `ddpm` and `ddim` build the tables; `ReverseProcess.step` looks them up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import BoundDenoiser


def squared_cosine_betas(steps: int, *, offset: float = 0.008, limit: float = 0.999) -> list[float]:
    """The "squared cosine" schedule, beta_i = 1 - abar((i+1)/N) / abar(i/N), at most `limit`.

    Source: Nichol and Dhariwal 2021, equation 17.
    """

    def signal(time: float) -> float:
        return math.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2

    return [min(1 - signal((i + 1) / steps) / signal(i / steps), limit) for i in range(steps)]


def variance_preserving_betas(steps: int, *, slowest: float = 0.1, fastest: float = 10.0) -> list[float]:
    """The discretised variance-preserving schedule with rates from `slowest` to `fastest`.

    Source: Xiao et al. 2022 (denoising diffusion GANs), as IDQL and EXPO use it.
    """
    return [
        1 - math.exp(-slowest / steps - 0.5 * (fastest - slowest) * (2 * i - 1) / steps**2)
        for i in range(1, steps + 1)
    ]


@saveable
class DiscreteNoise(nn.Module):
    """The forward process over N levels that `betas` define; holds tables, learns nothing."""

    betas: Tensor
    signal: Tensor
    _signal_scale: Tensor
    _noise_scale: Tensor

    def __init__(self, betas: Sequence[float]) -> None:
        super().__init__()
        if not betas:
            raise SettingError("a noise schedule without levels was asked for", expected="at least one level")
        if wrong := [beta for beta in betas if not 0 < beta < 1]:
            raise SettingError(f"a beta of the noise schedule is {wrong[0]}", expected="between 0 and 1")
        # No buffers: samplers are computed from them in float64, which not every device has.
        self.betas = torch.tensor(betas, dtype=torch.float64)
        self.signal = signal = torch.cumprod(1 - self.betas, dim=0)
        # Tables follow from the arguments, so they are not saved; they move with the module.
        self.register_buffer("_signal_scale", _with_clean(signal.sqrt(), 1.0), persistent=False)
        self.register_buffer("_noise_scale", _with_clean((1 - signal).sqrt(), 0.0), persistent=False)

    @property
    def steps(self) -> int:
        """The number of levels, N."""
        return len(self.betas)

    @property
    def device(self) -> torch.device:
        """Where noise is added."""
        return self._signal_scale.device

    def add(
        self,
        clean: Float[Tensor, "batch horizon action"],
        noise: Float[Tensor, "batch horizon action"],
        level: Int[Tensor, "batch"] | Int[Tensor, "batch horizon"],
    ) -> Float[Tensor, "batch horizon action"]:
        """Mix `noise` into `clean` at the given levels; positions at level -1 stay as they are."""
        signal_scale, noise_scale = self._scales(level, clean)
        return signal_scale * clean + noise_scale * noise

    def clean(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        noise: Float[Tensor, "batch horizon action"],
        level: Int[Tensor, "batch"] | Int[Tensor, "batch horizon"],
    ) -> Float[Tensor, "batch horizon action"]:
        """The clean sample that `noise` was mixed into; with a predicted noise, the estimate of it."""
        signal_scale, noise_scale = self._scales(level, noisy)
        return (noisy - noise_scale * noise) / signal_scale

    def noise_in(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        clean: Float[Tensor, "batch horizon action"],
        level: Int[Tensor, "batch"] | Int[Tensor, "batch horizon"],
    ) -> Float[Tensor, "batch horizon action"]:
        """The noise that was mixed into `clean`; levels of 0 and above, at -1 there is none."""
        signal_scale, noise_scale = self._scales(level, noisy)
        return (noisy - signal_scale * clean) / noise_scale

    def _scales(self, level: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the signal and of the noise there is at each level, broadcasting against a sample."""
        shape = (*level.shape, *[1] * (like.dim() - level.dim()))
        return self._signal_scale[level + 1].view(shape), self._noise_scale[level + 1].view(shape)


def _with_clean(values: Tensor, clean: float) -> Tensor:
    """Put the value of level -1 in front, so that `level + 1` indexes it."""
    return torch.cat([torch.tensor([clean], dtype=values.dtype), values]).float()


class ReverseProcess(nn.Module):
    """A way back from noise: per level the training level it stands for and the coefficients of one step.

    `training_level` [K] is what the network is told at level i; `coefficients` [K, 5] holds
    (a, b, c, d, deviation) of the module's docstring, for a network that predicts the noise.
    """

    training_level: Tensor
    _table: Tensor

    def __init__(self, training_level: Tensor, coefficients: Tensor, *, limit: float | None = 1.0) -> None:
        super().__init__()
        self.limit = limit
        untouched = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]], dtype=coefficients.dtype)
        self.register_buffer("training_level", training_level, persistent=False)
        self.register_buffer("_table", torch.cat([untouched, coefficients]).float(), persistent=False)

    @property
    def steps(self) -> int:
        """The number of levels this process walks through, K."""
        return len(self.training_level)

    def network_level(self, level: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """What the network is told: the training level of each level, 0 for a position that is clean."""
        return self.training_level[level.clamp(min=0)]

    def step(
        self,
        noisy: Float[Tensor, "batch horizon action"],
        predicted_noise: Float[Tensor, "batch horizon action"],
        level: Int[Tensor, "batch"] | Int[Tensor, "batch horizon"],
    ) -> tuple[Float[Tensor, "batch horizon action"], Float[Tensor, "#batch #horizon 1"]]:
        """Mean and standard deviation of each position one level down.

        The deviation is zero at level 0 and below, and a position at level -1 keeps its value; whoever calls
        adds `deviation * z` and lowers the levels by one.
        """
        rows = self._table[level + 1]
        if rows.dim() == 2:
            rows = rows.unsqueeze(1)
        a, b, c, d, deviation = rows.split(1, dim=-1)
        clean = noisy * a + predicted_noise * b
        if self.limit is not None:
            clean = clean.clamp(-self.limit, self.limit)
        return clean * c + noisy * d, deviation


def posterior_variance(noise: DiscreteNoise, *, floor: float = 1e-20) -> Float[Tensor, "level"]:
    """Variance of x_prev given x and clean, per level, at least `floor` ("fixed small" of DDPM), float64."""
    before = _signal_before(noise.signal)
    return ((1 - before) / (1 - noise.signal) * noise.betas).clamp(min=floor)


def ddpm(noise: DiscreteNoise, *, limit: float | None = 1.0) -> ReverseProcess:
    """Ancestral sampling over all N levels with the small fixed variance.

    `limit` clamps the estimate of the clean sample to [-limit, limit]; None leaves it alone.
    Source: Ho et al. 2020, equations 6, 7 and 15.
    """
    signal, before = noise.signal, _signal_before(noise.signal)
    clean_weight = before.sqrt() * noise.betas / (1 - signal)
    noisy_weight = (1 - noise.betas).sqrt() * (1 - before) / (1 - signal)
    deviation = posterior_variance(noise).sqrt()
    deviation[0] = 0.0  # the last step returns its mean
    table = torch.stack([*_to_clean(signal), clean_weight, noisy_weight, deviation], dim=-1)
    return ReverseProcess(torch.arange(noise.steps), table, limit=limit).to(noise.device)


def ddim(noise: DiscreteNoise, *, steps: int, limit: float | None = 1.0) -> ReverseProcess:
    """Deterministic sampling over `steps` levels, level i standing for the training level i * (N // steps).

    The noise is recomputed from the clamped estimate of the clean sample, so the result stays consistent
    where the clamp binds. Source: Song et al. 2021, equation 12 with sigma = 0.
    """
    if not 1 <= steps <= noise.steps:
        raise SettingError(
            f"{steps} sampling steps were asked of a process with {noise.steps} levels",
            expected=f"1 to {noise.steps} steps",
        )
    level = torch.arange(steps) * (noise.steps // steps)
    signal = noise.signal[level]
    before = _signal_before(signal)
    noisy_weight = ((1 - before) / (1 - signal)).sqrt()
    clean_weight = before.sqrt() - noisy_weight * signal.sqrt()
    deviation = torch.zeros_like(signal)
    table = torch.stack([*_to_clean(signal), clean_weight, noisy_weight, deviation], dim=-1)
    return ReverseProcess(level, table, limit=limit).to(noise.device)


def _signal_before(signal: Tensor) -> Tensor:
    """The signal one level down; all of it below level 0."""
    return torch.cat([torch.ones(1, dtype=signal.dtype), signal[:-1]])


def _to_clean(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of x and of the predicted noise in the estimate of the clean sample."""
    return 1 / signal.sqrt(), -((1 - signal) / signal).sqrt()


def sample(
    denoise: BoundDenoiser,
    process: ReverseProcess,
    start: Float[Tensor, "batch horizon action"],
    *,
    rng: torch.Generator,
    adjust: Callable[[Tensor, int], Tensor] | None = None,
) -> Float[Tensor, "batch horizon action"]:
    """Walk all levels from `start` (pure noise, or a noise chosen by whoever steers) down to clean.

    `adjust(mean, level)` may move the mean that each step from `level` goes to, before noise is added:
    guidance of the mean, or positions held (the mean of the step from level 0 is the result).
    """
    x = start
    for level in reversed(range(process.steps)):
        levels = torch.full((len(x),), level, device=x.device)
        mean, deviation = process.step(x, denoise(x, process.network_level(levels)), levels)
        x = mean if adjust is None else adjust(mean, level)
        if level > 0 and bool(deviation.any()):
            x = x + deviation * torch.randn(x.shape, generator=rng, device=x.device)
    return x

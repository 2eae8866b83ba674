"""Guidance: bound denoisers made of bound denoisers, which lead sampling to what is wanted.

Classifier-free guidance goes beyond what a condition changes,

    D = D_without + scale (D_with - D_without);

guidance by a function adds its gradient to the estimate of the clean sample,

    D <- D + scale(level) grad log p.

Both return a function (noisy, level) like the one they were given, so that they nest and every sampler takes
them. Classifier-free guidance is linear and suits any kind of prediction (clean sample, noise, velocity); a
function of the clean sample needs an estimate of it, which `clean_from_noise` makes of a network of the
discrete process in `noise` and `noise_from_clean` turns back (`flow` has the same for velocities):

    guided_noise = noise_from_clean(guided(clean_from_noise(denoise, noise), score, scale=scale), noise)

Sources: Ho and Salimans 2022 (classifier-free guidance); Dhariwal and Nichol 2021 (classifier guidance).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import CapabilityError, NotFiniteError, ShapeError
from policysmith.networks.denoiser import BoundDenoiser, Denoiser
from policysmith.networks.noise import DiscreteNoise

LogDensity = Callable[[Tensor], Tensor]
"""Clean samples [batch, horizon, action] -> what should become large [batch], up to a constant per row."""

Scale = Callable[[Tensor], Tensor]
"""Level [batch] or [batch, horizon] -> how far to go along the gradient, of the level's shape."""


def classifier_free(
    denoiser: Denoiser,
    condition: Float[Tensor, "batch condition"],
    unconditional: Float[Tensor, "batch condition"],
    *,
    scale: float,
) -> BoundDenoiser:
    """Bind a denoiser to `condition`, guided away from `unconditional` (a condition whose wish is left out).

    Scale 1 is the conditional denoiser, 0 the unconditional one, above 1 more than was learnt. Both are asked
    in one call of twice the batch; at 1 and 0 only the one that counts. The network must have been trained
    with the wish left out at times. Source: Ho and Salimans 2022, equation 6 (their w is scale - 1).
    """
    if scale in (0, 1):
        return denoiser.bind(condition if scale == 1 else unconditional)
    both = denoiser.bind(torch.cat([condition, unconditional]))

    def denoise(noisy: Tensor, level: Tensor) -> Tensor:
        with_wish, without = both(torch.cat([noisy, noisy]), torch.cat([level, level])).chunk(2)
        return without + scale * (with_wish - without)

    return denoise


def extrapolated(conditional: BoundDenoiser, unconditional: BoundDenoiser, *, scale: float) -> BoundDenoiser:
    """Classifier-free guidance between two denoisers that are not one network; two calls, at 1 and 0 one."""
    if scale in (0, 1):
        return conditional if scale == 1 else unconditional

    def denoise(noisy: Tensor, level: Tensor) -> Tensor:
        without = unconditional(noisy, level)
        return without + scale * (conditional(noisy, level) - without)

    return denoise


def guided(denoise: BoundDenoiser, log_density: LogDensity, *, scale: Scale) -> BoundDenoiser:
    """Add scale(level) times the gradient of `log_density` at the estimate of the clean sample.

    The network is not differentiated, and the gradient counts as a constant. The scale that is right where
    the data are Gaussian is the variance of the clean sample given the noisy one, sigma^2 d^2 / (sigma^2 +
    d^2). Columns that must not move are those that `log_density` detaches. Works under `torch.no_grad` and
    `torch.inference_mode`. Raises `CapabilityError` where there is no gradient, `NotFiniteError` naming the
    level where it is not finite, and `ShapeError` unless there is one value per row.
    """

    def guide(noisy: Tensor, level: Tensor) -> Tensor:
        estimate = denoise(noisy, level)
        with torch.inference_mode(False), torch.enable_grad():
            at = estimate.clone().detach().requires_grad_()
            gradient = _gradient(log_density(at), at, level)
        return estimate + _broadcast(scale(level), noisy) * gradient

    return guide


def guided_through(denoise: BoundDenoiser, log_density: LogDensity, *, scale: Scale) -> BoundDenoiser:
    """Add scale(level) times the gradient, by the noisy sample, of `log_density` at the estimate.

    The network is differentiated: one more pass through it, backwards. With scale = sigma^2 it is classifier
    guidance with the density taken at the estimate. Must be bound and called outside `torch.inference_mode`
    (`torch.no_grad` is allowed), whose tensors have no gradients: `CapabilityError`. Other errors as in
    `guided`. Source: Dhariwal and Nichol 2021, section 4; Chung et al. 2023 (diffusion posterior sampling).
    """

    def guide(noisy: Tensor, level: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            raise CapabilityError(
                "guidance through the network was asked for under torch.inference_mode",
                expected="a place where gradients can be taken",
                cure="use torch.no_grad there, or `guided`, which does not differentiate the network",
            )
        tracked = torch.is_grad_enabled()  # by whoever differentiates what comes out, outer guidance included
        with torch.enable_grad():
            at = noisy if tracked and noisy.requires_grad else noisy.detach().requires_grad_()
            estimate = denoise(at, level)
            gradient = _gradient(log_density(estimate), at, level, keep_graph=tracked)
        return (estimate if tracked else estimate.detach()) + _broadcast(scale(level), noisy) * gradient

    return guide


def clean_from_noise(denoise: BoundDenoiser, noise: DiscreteNoise) -> BoundDenoiser:
    """A denoiser that predicts the noise, as one that estimates the clean sample."""
    return lambda noisy, level: noise.clean(noisy, denoise(noisy, level), level)


def noise_from_clean(denoise: BoundDenoiser, noise: DiscreteNoise) -> BoundDenoiser:
    """`clean_from_noise` undone: an estimate of the clean sample, as a prediction of the noise."""
    return lambda noisy, level: noise.noise_in(noisy, denoise(noisy, level), level)


def _gradient(value: Tensor, at: Tensor, level: Tensor, *, keep_graph: bool = False) -> Tensor:
    """The gradient of each row's value by the row of `at`."""
    if value.shape != (len(at),):
        raise ShapeError(
            f"the guiding function returned values of shape {tuple(value.shape)}",
            expected=f"one per row, [{len(at)}]",
        )
    if not value.requires_grad:
        raise CapabilityError(
            "the guiding function has no gradient by the sample",
            expected="operations that PyTorch can differentiate, from the sample to the value",
            cure="look for a comparison, rounding, `detach` or conversion to NumPy on the way",
        )
    (gradient,) = torch.autograd.grad(value.sum(), at, retain_graph=keep_graph)
    if not bool(gradient.isfinite().all()):
        rows = (~gradient.isfinite()).flatten(1).any(1).nonzero().flatten()
        worst = level[rows[0]].flatten()[0]
        raise NotFiniteError(
            "the gradient of the guiding function is not finite",
            where=f"row {int(rows[0])} of {len(at)}, noise level {float(worst):.6g}",
        )
    return gradient


def _broadcast(value: Tensor, sample: Tensor) -> Tensor:
    return value.reshape(*value.shape, *[1] * (sample.dim() - value.dim()))

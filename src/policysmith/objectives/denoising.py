"""Objectives of denoising models: errors per row, averaged by whoever calls."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def noise_prediction_error(
    predicted: Float[Tensor, "row *shape"], noise: Float[Tensor, "row *shape"]
) -> Float[Tensor, "row"]:
    """Squared error of the predicted noise, the mean over all positions and dimensions of a row.

    Source: Ho et al. 2020, equation 14 (the simple objective).
    """
    return (predicted - noise).square().flatten(1).mean(1)


def preconditioned_error(
    estimate: Float[Tensor, "row *shape"],
    clean: Float[Tensor, "row *shape"],
    sigma: Float[Tensor, "row"] | Float[Tensor, "row time"],
    *,
    sigma_data: float,
) -> Float[Tensor, "row"]:
    """Squared error of the estimated clean sample in units of c_out(sigma), the mean over each row.

    The weight 1 / c_out^2 = (sigma^2 + d^2) / (sigma d)^2 makes it the plain squared error of the network
    inside a preconditioned denoiser, of the same size at every level. `sigma`, above 0, is per row or per
    position. Source: Karras et al. 2022, equations 2 and 8 with lambda of table 1.
    """
    weight = (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
    weight = weight.reshape(*weight.shape, *[1] * (clean.dim() - weight.dim()))
    return (weight * (estimate - clean).square()).flatten(1).mean(1)


def velocity_error(
    predicted: Float[Tensor, "row *shape"],
    clean: Float[Tensor, "row *shape"],
    noise: Float[Tensor, "row *shape"],
) -> Float[Tensor, "row"]:
    """Squared error of a predicted velocity against clean - noise, the mean over each row.

    Source: Liu et al. 2023 (rectified flow), equation 1.
    """
    return (predicted - (clean - noise)).square().flatten(1).mean(1)

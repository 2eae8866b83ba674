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

"""Scaling fitted once to data and saved with the weights: y = (x - offset) / scale, per dimension."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import DataError, ShapeError
from policysmith.common.saving import saveable


@saveable
class Normalizer(nn.Module):
    """An affine map per dimension with its inverse; the identity until it is fitted.

    `fit_range` maps the data's minimum and maximum to -1 and 1, `fit_moments` to mean 0 and deviation 1. A
    dimension that never varies keeps its scale of 1 and is only shifted, so that it maps to 0.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("offset", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def fit_range(self, values: Float[Tensor, "row size"], *, minimum_width: float = 1e-6) -> Normalizer:
        """Map [minimum, maximum] of each column to [-1, 1]; returns itself."""
        self._check(values)
        low, high = values.amin(0).double(), values.amax(0).double()
        half = (high - low) / 2
        return self._set((high + low) / 2, torch.where(half > minimum_width / 2, half, 1.0))

    def fit_moments(self, values: Float[Tensor, "row size"], *, epsilon: float = 0.0) -> Normalizer:
        """Map each column to mean 0 and unbiased standard deviation 1 (+ `epsilon`); returns itself."""
        self._check(values)
        values = values.double()
        # Not `deviation > 0`: rounding of the mean gives a constant column a deviation of 1e-17.
        varies = values.amax(0) > values.amin(0)
        deviation = values.std(0, correction=min(1, len(values) - 1)) + epsilon
        return self._set(values.mean(0), torch.where(varies, deviation, 1.0))

    def forward(self, values: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """Scale data to the fitted range."""
        return (values - self.offset) / self.scale

    def inverse(self, values: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """Back to the data's own units."""
        return values * self.scale + self.offset

    def _set(self, offset: Tensor, scale: Tensor) -> Normalizer:
        self.offset.copy_(offset)
        self.scale.copy_(scale)
        return self

    def _check(self, values: Tensor) -> None:
        if values.dim() != 2 or values.shape[1] != self.size or len(values) == 0:
            raise ShapeError(
                f"a normalizer of size {self.size} was given values of shape {tuple(values.shape)}",
                expected=f"[row, {self.size}] with at least one row",
            )
        if not bool(values.isfinite().all()):
            column = int((~values.isfinite()).any(0).nonzero()[0])
            raise DataError("a value is not finite", where=f"column {column} of the data to be normalised")

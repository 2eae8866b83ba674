"""How like the real rows made ones are, column by column and together, and how far from right.

Rows can be alike in all of these and be copies: `nearest_distance` tells how far a made row is from the
nearest real one. What is wanted of made transitions is a small error of the dynamics at a distance that is
not zero.

Source: the measures of Lu et al. 2023 (SynthER), section 4, which are those of SDMetrics.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import ShapeError

CHUNK = 2000
"""Rows on either side of one block of distances."""


def kolmogorov_smirnov(
    first: Float[Tensor, "row column"], second: Float[Tensor, "other column"]
) -> Float[Tensor, "column"]:
    """The largest difference of the two distribution functions of each column: 0 alike, 1 apart."""
    _check(first, second)
    return torch.stack([_largest_gap(a, b) for a, b in zip(first.t(), second.t(), strict=True)])


def marginal_similarity(
    first: Float[Tensor, "row column"], second: Float[Tensor, "other column"]
) -> Float[Tensor, ""]:
    """One minus the Kolmogorov-Smirnov statistic, the mean over columns."""
    return 1 - kolmogorov_smirnov(first, second).mean()


def correlation_similarity(
    first: Float[Tensor, "row column"], second: Float[Tensor, "other column"]
) -> Float[Tensor, ""]:
    """1 - |rho - rho'| / 2 of Pearson's correlations, the mean over pairs of columns.

    Pairs with a column that never varies in either set have no correlation and do not count; 1 where no pair
    is left.
    """
    _check(first, second)
    varies = (first.amax(0) > first.amin(0)) & (second.amax(0) > second.amin(0))
    if int(varies.sum()) < 2:
        return torch.ones((), dtype=torch.double)
    one, two = (torch.corrcoef(values[:, varies].double().t()) for values in (first, second))
    pairs = torch.triu_indices(len(one), len(one), offset=1)
    return (1 - (one - two).abs() / 2)[pairs[0], pairs[1]].mean()


def nearest_distance(
    rows: Float[Tensor, "row column"], reference: Float[Tensor, "other column"], *, chunk: int = CHUNK
) -> Float[Tensor, "row"]:
    """Euclidean distance of each row to the nearest row of `reference`.

    Give columns comparable scales first. Time grows with the product of the numbers of rows, memory does not.
    """
    _check(rows, reference)
    return torch.cat(
        [
            torch.stack([_distance(some, block).amin(1) for block in reference.split(chunk)]).amin(0)
            for some in rows.split(chunk)
        ]
    )


def nearest_other_distance(
    reference: Float[Tensor, "row column"], *, rows: int | None = None, chunk: int = CHUNK
) -> Float[Tensor, "row"]:
    """Euclidean distance of each of the first `rows` rows (all by default) to the nearest other row.

    Infinite for a row without others.
    """
    _check(reference, reference)
    found = []
    for start in range(0, len(reference) if rows is None else rows, chunk):
        some = reference[start : min(start + chunk, len(reference) if rows is None else rows)]
        own = torch.arange(start, start + len(some))
        nearest = torch.full((len(some),), torch.inf)
        for first in range(0, len(reference), chunk):
            block = reference[first : first + chunk]
            itself = own[:, None] == torch.arange(first, first + len(block))
            distance = _distance(some, block).masked_fill(itself, torch.inf)
            nearest = torch.minimum(nearest, distance.amin(1))
        found.append(nearest)
    return torch.cat(found)


def dynamics_error(
    next_observation: Float[Tensor, "row observation"],
    reward: Float[Tensor, "row"],
    *,
    true_next_observation: Float[Tensor, "row observation"],
    true_reward: Float[Tensor, "row"],
    scale: Float[Tensor, "observation+1"] | None = None,
) -> Float[Tensor, "row"]:
    """Mean squared error of what is said to follow (next observation, then reward) against what does follow.

    `scale` divides the error of each column, to put them in comparable units. Source: Lu et al. 2023, figure
    3.
    """
    said = torch.cat([next_observation, reward[:, None]], dim=1)
    true = torch.cat([true_next_observation, true_reward[:, None]], dim=1)
    error = said - true if scale is None else (said - true) / scale
    return error.square().mean(1)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    # Not by a product: far from the origin that rounds the distance of a copy to something else than zero.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _largest_gap(first: Tensor, second: Tensor) -> Tensor:
    values = torch.cat([first, second]).sort().values
    below = [
        torch.searchsorted(one.sort().values, values, right=True).double() / len(one)
        for one in (first.contiguous(), second.contiguous())
    ]
    return (below[0] - below[1]).abs().amax()


def _check(first: Tensor, second: Tensor) -> None:
    shapes = [list(values.shape) for values in (first, second)]
    if (
        first.dim() != 2
        or second.dim() != 2
        or shapes[0][1] != shapes[1][1]
        or not shapes[0][0]
        or not shapes[1][0]
    ):
        raise ShapeError(
            f"rows of shapes {shapes[0]} and {shapes[1]}", expected="[row, column] both, of as many columns"
        )

"""What a set of directions has in common: their principal axis, and how much of another set it explains.

The rows v of V are the unstable directions of single states (see `decisions`), uncentred. With L = V^T V,
which is never built,

    G = the eigenvector of the largest eigenvalue of L,     quotient = G^T L' G / largest eigenvalue of L'

is the direction that a whole run is most upset along, and how well it serves on other states, L'. A sign of G
means nothing: the entry of the largest magnitude is made positive, and maps are compared by magnitudes.
Source: Korkmaz 2024 (2406.16979); the quotient is reconstructed from its published properties.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import aslinearoperator, eigsh
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

Reference = Literal["shifted", "base"]

EXACT = 1024
"""Up to so many rows or columns, whichever are fewer, all eigenvectors are computed; beyond, the first."""


class Direction(NamedTuple):
    """A principal axis: a unit `vector` of a state's shape, its `eigenvalue`, its share of their sum."""

    vector: Float[Tensor, "*shape"]
    eigenvalue: float
    explained: float


def principal_direction(rows: Float[Tensor, "row *shape"], *, normalise: bool = False) -> Direction:
    """The unit direction along which the rows have the largest sum of squares; in double precision.

    With `normalise` every row counts alike, brought to length 1 (rows of zeros stay so). Raises `DataError`
    where there are no rows, or all of them are zero: the policy is saturated in every state.
    """
    matrix = _matrix(rows, normalise)
    total = float(matrix.square().sum())
    if total == 0:
        raise DataError(
            "every direction is zero: no state's decision has a gradient",
            where=f"{len(matrix)} states",
            expected="scores whose softmax is not saturated",
            cure="raise the temperature, in proportion to the spread of the scores",
        )
    vector, eigenvalue = _first_axis(matrix)
    largest = vector[vector.abs().argmax()]
    return Direction((vector * largest.sign()).reshape(rows.shape[1:]), eigenvalue, eigenvalue / total)


def correlation_quotient(
    base: Float[Tensor, "row *shape"],
    shifted: Float[Tensor, "other *shape"],
    *,
    reference: Reference = "shifted",
    normalise: bool = False,
) -> float:
    """How well the principal direction of one set of states explains the directions of another; 0 to 1.

    `base` and `shifted` are the directions in the states as they were and as they became. By the reference
    "shifted" the axis of `base` is measured on `shifted`; by "base" the axis of `shifted` on `base`. The two
    differ, and both are 1 where the sets are the same. The paper's formula was not to be had: these two have
    the properties that it states.
    """
    if base.shape[1:] != shifted.shape[1:]:
        raise ShapeError(
            f"directions of shape {list(base.shape[1:])} and {list(shifted.shape[1:])}",
            expected="states of one environment, seen in one way",
        )
    if reference not in ("shifted", "base"):
        raise SettingError(f"reference is '{reference}'", expected="'shifted' or 'base'")
    learnt, judged = (base, shifted) if reference == "shifted" else (shifted, base)
    axis = principal_direction(learnt, normalise=normalise).vector.reshape(-1)
    best = principal_direction(judged, normalise=normalise).eigenvalue
    explained = float((_matrix(judged, normalise) @ axis).square().sum())
    return min(1.0, explained / best)


def instability_trace(rows: Float[Tensor, "step *shape"]) -> Float[Tensor, "step"]:
    """How long each direction is: how fast the decision can be upset at each step of an episode."""
    return rows.double().flatten(1).norm(dim=1)


def variation(trace: Float[Tensor, "step"]) -> float:
    """Standard deviation of a trace in units of its mean: how unevenly instability comes over time."""
    mean = float(trace.double().mean())
    return float(trace.double().std(correction=0)) / mean if mean > 0 else 0.0


def overlap(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"]) -> float:
    """Cosine of the magnitudes of two directions; 1 where they upset the same places, 0 where none."""
    a, b = a.double().abs().flatten(), b.double().abs().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def concentration(direction: Float[Tensor, "*shape"], *, share: float = 0.05) -> float:
    """What part of the magnitudes' sum lies in the `share` of the places where they are largest."""
    if not 0 < share <= 1:
        raise SettingError(f"share is {share}", expected="above 0, up to 1")
    sizes = direction.double().abs().flatten().sort(descending=True).values
    return float(sizes[: max(1, round(share * len(sizes)))].sum() / sizes.sum())


def spectrum(direction: Float[Tensor, "height width *plane"]) -> Float[Tensor, "height width *plane"]:
    """Magnitudes of the two-dimensional Fourier transform of each plane, frequency zero in the middle."""
    if direction.dim() < 2:
        raise ShapeError(
            f"a direction of shape {list(direction.shape)}", expected="[height, width], or planes of it"
        )
    return torch.fft.fftshift(torch.fft.fft2(direction.double(), dim=(0, 1)), dim=(0, 1)).abs()


def _matrix(rows: Tensor, normalise: bool) -> Float[Tensor, "row column"]:
    if len(rows) == 0:
        raise DataError("there are no directions", expected="one row or more")
    matrix = rows.detach().double().flatten(1)
    if normalise:
        length = matrix.norm(dim=1, keepdim=True)
        matrix = matrix / torch.where(length > 0, length, 1.0)
    return matrix


def _first_axis(matrix: Float[Tensor, "row column"]) -> tuple[Float[Tensor, "column"], float]:
    """Top right singular vector and the square of its singular value, through the smaller of the products."""
    tall = matrix.shape[0] > matrix.shape[1]
    if min(matrix.shape) <= EXACT:
        _, vectors = torch.linalg.eigh(matrix.T @ matrix if tall else matrix @ matrix.T)
        first = vectors[:, -1]
    else:
        # Lanczos from a fixed start, which takes products with the rows alone.
        sized = matrix.numpy() if tall else matrix.T.numpy()
        product = aslinearoperator(sized.T) @ aslinearoperator(sized)
        start = np.random.default_rng(0).standard_normal(sized.shape[1])
        first = torch.from_numpy(eigsh(product, k=1, v0=start)[1][:, 0].copy())
    vector = first if tall else matrix.T @ first
    vector = vector / vector.norm()
    return vector, float((matrix @ vector).square().sum())

"""Soups: one network whose weights are the mean of several that began from the same one.

    soup = sum of weight_i theta_i, parameter by parameter

Networks that were fine-tuned from one start by different seeds lie in one basin of the loss, and their mean
is often better than each. Networks that were initialised apart do not: `loss_barrier` tells.

Source: Wortsman et al. 2022, Model soups.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, SettingError, ShapeError

Weights = Mapping[str, Tensor]


def soup(
    parents: Sequence[Weights], weights: Sequence[float] | None = None, *, allow_extrapolation: bool = False
) -> dict[str, Tensor]:
    """The weighted mean of state dicts, of equal weights by default.

    Floating numbers are averaged in double precision and come back in their own type; whole numbers, such as
    counters, are those of the first. Raises `ShapeError` naming the first entry that differs in name or
    shape, `CapabilityError` for adapters that have not been merged (the mean of two factors is not the factor
    of a mean), and `SettingError` for weights that do not sum to 1 or, unless allowed, are negative. Warns
    where all parents are the same.
    """
    if len(parents) < 2:
        raise SettingError(f"a soup of {len(parents)}", expected="2 networks or more")
    shares = [1 / len(parents)] * len(parents) if weights is None else list(weights)
    check_shares(shares, len(parents), allow_extrapolation=allow_extrapolation)
    first = parents[0]
    # Adapters first: where one network alone has them, names differ too, and that would be no cure.
    if adapters := [name for parent in parents for name in parent if "lora_" in name]:
        raise CapabilityError(
            "the networks have adapters beside their weights",
            where=f"'{adapters[0]}'",
            cure="merge them first: policy.merged()",
        )
    for number, other in enumerate(parents[1:], start=1):
        check_alike(first, other, number)
    mixed = {}
    for name, value in first.items():
        if not value.is_floating_point():
            mixed[name] = value.clone()
            continue
        total = sum(share * parent[name].double() for share, parent in zip(shares, parents, strict=True))
        mixed[name] = torch.as_tensor(total).to(value.dtype)
    if all(torch.equal(first[name], other[name]) for other in parents[1:] for name in first):
        warnings.warn("the networks of a soup are all the same: it is each of them", stacklevel=2)
    return mixed


def loss_barrier(
    module: nn.Module,
    first: Weights,
    second: Weights,
    loss: Callable[[nn.Module], float],
    *,
    points: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> list[float]:
    """The loss along the line from `first` (0) to `second` (1); the module is left as it was.

    Two networks lie in one basin where it does not rise above the worse end (`check_barrier`).
    """
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    found = []
    try:
        for point in points:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module.load_state_dict(soup([first, second], [1 - point, point]))
            with torch.no_grad():
                found.append(float(loss(module)))
    finally:
        module.load_state_dict(kept)
    return found


def check_barrier(losses: Sequence[float], *, tolerance: float = 0.05) -> None:
    """Raise `CapabilityError` where a loss between the ends is above the worse one by more than a share."""
    worse, highest = max(losses[0], losses[-1]), max(losses)
    if highest > worse + tolerance * abs(worse):
        raise CapabilityError(
            f"between the two networks the loss rises to {highest:.4g}, their own being {losses[0]:.4g} and "
            f"{losses[-1]:.4g}: they do not lie in one basin",
            expected="networks that were fine-tuned from the same start",
        )


def check_shares(shares: Sequence[float], count: int, *, allow_extrapolation: bool = False) -> None:
    """Raise `SettingError` unless there is a share for each network, none negative, summing to 1."""
    if len(shares) != count or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise SettingError(f"weights {list(shares)} for {count} networks", expected="one each, summing to 1")
    if min(shares) < 0 and not allow_extrapolation:
        raise SettingError(f"weights {list(shares)}", expected="0 or more", cure="set allow_extrapolation")


def check_alike(first: Weights, other: Weights, number: int) -> None:
    """Raise `ShapeError` naming the first entry that the two do not share."""
    for name in [*first, *other]:
        mine = tuple(first[name].shape) if name in first else None
        theirs = tuple(other[name].shape) if name in other else None
        if mine != theirs:
            raise ShapeError(
                f"'{name}' is {_shown(mine)} in the first network and {_shown(theirs)} in network {number}",
                expected="networks of one architecture",
            )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else f"of shape {list(shape)}"

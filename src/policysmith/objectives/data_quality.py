"""Metrics of demonstrations: how consistent the actions are, how alike the states, how wide the transitions.

A sample i is compared with its neighbourhood, the samples whose states lie within a ball around its own:

    B_i = {j : |s_j - s_i| <= radius}          action variance = sum_d w_d mean_i (a_id - mean of B_i)_d^2

Low action variance says that like states are answered alike, which is what cloning can learn. Distances mean
something only when every dimension of the state has a comparable scale: standardise first, and compare two
sets only under the same mean and deviation. Source: Belkhale et al. 2023 (2306.02437), sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

CHUNK = 2000
"""Samples on either side of one block of distances: 32 MB at a time, however many samples there are."""


class Neighbourhood(NamedTuple):
    """What the neighbours of each row do: how many they are, and mean and variance of their actions.

    The variance is the population's. A row without neighbours has size 0 and NaN for mean and variance.
    """

    size: Int[Tensor, "row"]
    mean: Float[Tensor, "row action"]
    variance: Float[Tensor, "row action"]


def check_samples(state: Float[Tensor, "sample state"], action: Float[Tensor, "sample action"]) -> None:
    """Raise `ShapeError` for unequal lengths, `DataError` naming the first sample that is not finite."""
    if state.dim() != 2 or action.dim() != 2 or len(state) != len(action):
        raise ShapeError(
            f"states of shape {list(state.shape)} and actions of shape {list(action.shape)}",
            expected="[sample, width] each, with as many states as actions",
        )
    for name, values in (("state", state), ("action", action)):
        if not bool(values.isfinite().all()):
            sample, column = (~values.isfinite()).nonzero()[0].tolist()
            raise DataError(f"a {name} is not finite", where=f"sample {sample}, column {column}")


def standard_scale(
    state: Float[Tensor, "sample state"],
) -> tuple[Float[Tensor, "state"], Float[Tensor, "state"]]:
    """Mean and population standard deviation of each dimension; 1 for a dimension that never varies."""
    state = state.double()
    varies = state.amax(0) > state.amin(0)
    return state.mean(0), torch.where(varies, state.std(0, correction=0), 1.0)


def default_radius(
    state: Float[Tensor, "sample state"],
    *,
    rng: torch.Generator,
    samples: int = 1000,
    share: float = 0.05,
) -> float:
    """The distance that a `share` of the pairs of distinct states do not exceed, over a subsample.

    Raises `DataError` where all states of the subsample are equal: there is no scale to choose from.
    """
    chosen = torch.randperm(len(state), generator=rng)[:samples]
    some = state[chosen].double()
    distance = torch.pdist(some)
    distance = distance[distance > 0]
    if len(distance) == 0:
        raise DataError(
            "cannot choose eps, the radius of a neighbourhood: all states are equal",
            where=f"{len(some)} of {len(state)} samples",
            cure="check that the right dimensions of the observation are the state",
        )
    return float(torch.quantile(distance, share))


def ball_neighbourhood(
    state: Float[Tensor, "sample state"],
    action: Float[Tensor, "sample action"],
    *,
    radius: float,
    rows: Int[Tensor, "row"] | None = None,
    group_id: Int[Tensor, "sample"] | None = None,
    chunk: int = CHUNK,
) -> Neighbourhood:
    """The neighbourhood of each sample in `rows` (all by default): the samples within `radius`, itself too.

    With `group_id` (one per sample, such as the number of its episode) the neighbours are those of *other*
    groups, and a sample far from all of them has none. Time grows with the square of the samples, memory
    does not.
    """
    check_samples(state, action)
    state, action, centre = _centred(state, action)
    numbers = torch.arange(len(state))
    # Count, actions and their squares of the neighbours in one product with the block's membership.
    summed = torch.cat([torch.ones_like(action[:, :1]), action, action.square()], dim=1)
    found = []
    for query in (numbers if rows is None else rows).split(chunk):
        total = torch.zeros(len(query), summed.shape[1], dtype=torch.double)
        for start in range(0, len(state), chunk):
            block = numbers[start : start + chunk]
            inside = _squared_distance(state[query], state[block]) <= radius * abs(radius)
            if group_id is not None:
                inside &= group_id[query, None] != group_id[block]
            else:
                # Rounding, or a radius below zero, does not part a sample from itself.
                inside |= query[:, None] == block
            total += inside.double() @ summed[block]
        found.append(total)
    size, first, second = torch.cat(found).split([1, action.shape[1], action.shape[1]], dim=1)
    mean = first / size
    return Neighbourhood(size[:, 0].long(), mean + centre, (second / size - mean.square()).clamp(min=0))


def nearest_neighbourhood(
    state: Float[Tensor, "sample state"],
    action: Float[Tensor, "sample action"],
    *,
    count: int,
    rows: Int[Tensor, "row"] | None = None,
    group_id: Int[Tensor, "sample"] | None = None,
    chunk: int = CHUNK,
) -> Neighbourhood:
    """The neighbourhood of each sample in `rows` (all by default): the `count` nearest samples, itself too.

    As `ball_neighbourhood`, for data whose density varies too much for one radius. Fewer than `count`
    neighbours are taken where there are no more.
    """
    if count < 1:
        raise SettingError(f"{count} neighbours", expected="at least 1")
    check_samples(state, action)
    state, action, centre = _centred(state, action)
    numbers = torch.arange(len(state))
    sizes, means, variances = [], [], []
    for query in (numbers if rows is None else rows).split(max(1, chunk * chunk // len(state))):
        distance = _squared_distance(state[query], state)
        if group_id is not None:
            distance = distance.masked_fill(group_id[query, None] == group_id, torch.inf)
        else:
            distance[torch.arange(len(query)), query] = -1.0
        nearest, index = distance.topk(min(count, len(state)), dim=1, largest=False)
        taken = nearest.isfinite().double()
        size = taken.sum(1, keepdim=True)
        mean = (taken[..., None] * action[index]).sum(1) / size
        variance = (taken[..., None] * (action[index] - mean[:, None]).square()).sum(1) / size
        sizes.append(size[:, 0].long())
        means.append(mean + centre)
        variances.append(variance)
    return Neighbourhood(torch.cat(sizes), torch.cat(means), torch.cat(variances))


def squared_deviation(
    action: Float[Tensor, "row action"], neighbourhood: Neighbourhood
) -> Float[Tensor, "row action"]:
    """Squared distance of each row's own action to its neighbourhood's mean; low is consistent.

    Its mean over rows is the paper's action variance, the weighted sum over dimensions being taken after. It
    is not the variance inside the neighbourhoods (`neighbourhood.variance`): the two means agree only where
    being neighbours is transitive.
    """
    return (action.double() - neighbourhood.mean).square()


def state_similarity(neighbourhood: Neighbourhood, samples: int) -> Float[Tensor, "row"]:
    """Share of all samples that lie in each row's neighbourhood; high where states are little diverse."""
    return neighbourhood.size.double() / samples


def group_weights(action: Float[Tensor, "sample action"], sizes: Sequence[int]) -> Float[Tensor, "action"]:
    """Weights 1 / sigma^2, sigma the largest standard deviation in each group of adjacent dimensions.

    `sizes` are the dimensions per group in order, such as (3, 3, 1) for position, rotation and gripper. A
    group that never varies has weight 1. `SettingError` where the sizes do not sum to the action's width.
    """
    if min(sizes, default=0) < 1 or sum(sizes) != action.shape[1]:
        raise SettingError(
            f"groups of {list(sizes)} action dimensions",
            expected=f"at least one each, {action.shape[1]} together",
        )
    deviation = action.double().std(0, correction=0)
    largest = [part.amax().expand(len(part)) for part in deviation.split(list(sizes))]
    sigma = torch.cat(largest)
    return torch.where(sigma > 0, sigma.square().reciprocal(), 1.0)


def transition_spread(
    state: Float[Tensor, "sample state"],
    action: Float[Tensor, "sample action"],
    next_state: Float[Tensor, "sample state"],
    *,
    radius: float,
    chunk: int = CHUNK,
) -> Float[Tensor, "sample state"]:
    """Population variance of the change of state over the samples of like state and action.

    The change s' - s and not s' itself, whose variance inside a ball is mostly the ball's own width. The
    ball is taken over state and action together, so both should have comparable scales.
    """
    like = torch.cat([state.double(), action.double()], dim=1)
    change = next_state.double() - state.double()
    return ball_neighbourhood(like, change, radius=radius, chunk=chunk).variance


def curation_score(
    variance: Float[Tensor, "episode"], length: Int[Tensor, "episode"]
) -> Float[Tensor, "episode"]:
    """How much each episode deserves to be dropped, 0 to 1: the mean of its ranks in variance and in length.

    `variance` is the episode's action variance against the other episodes, NaN (nothing near it) ranking in
    the middle. Both count, since either alone misleads: slow demonstrations can be perfectly consistent.
    """
    return (_rank(variance.double()) + _rank(length.double())) / 2


def _rank(values: Float[Tensor, "episode"]) -> Float[Tensor, "episode"]:
    """The share of the other values that are smaller, equal ones counting half; 1/2 for NaN."""
    known = ~values.isnan()
    some = values[known]
    smaller = (some < some[:, None]).sum(1) + 0.5 * ((some == some[:, None]).sum(1) - 1)
    rank = torch.full_like(values, 0.5)
    if len(some) > 1:
        rank[known] = smaller.double() / (len(some) - 1)
    return rank


def _centred(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both in double precision about their means, so that differences of squares lose no digits."""
    state, action = state.double(), action.double()
    centre = action.mean(0)
    return state - state.mean(0), action - centre, centre


def _squared_distance(
    a: Float[Tensor, "row state"], b: Float[Tensor, "column state"]
) -> Float[Tensor, "row column"]:
    product = torch.addmm(b.square().sum(1).expand(len(a), -1), a, b.T, alpha=-2)
    return (product + a.square().sum(1, keepdim=True)).clamp_(min=0)

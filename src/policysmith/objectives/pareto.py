"""Several objectives at once: which points are worth keeping, and how good a set of them is.

A point is what one policy achieves, [objective], higher being better in each. One point *dominates* another
where it is at least as good in every objective and better in some; the points that none dominates are the
Pareto front. How good a front is has three answers: the volume it dominates above a reference point,

    hypervolume = volume of the union over points p of the boxes [reference, p],

what a person whose preference w is not known yet can expect of it, mean over w of max over p of w.p, and how
evenly it is covered (sparsity; crowding distance for single points).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

Points = Float[Tensor, "point objective"]
"""What each of several policies achieves."""

# ---- which points to keep ----------------------------------------------------------------------------


def nondominated(points: Points) -> Bool[Tensor, "point"]:
    """Which points no other dominates. Equal points do not dominate each other, and stay together."""
    _check(points)
    at_least = (points[:, None] >= points).all(-1)
    better = (points[:, None] > points).any(-1)
    return ~(at_least & better).any(0)


def crowding_distance(points: Points) -> Float[Tensor, "point"]:
    """How much room each point has among its neighbours; infinite at the ends of any objective.

    In each objective an inner point gets the distance between the next and the previous one in units of the
    range of all, and the lowest and the highest get infinity; the sum over objectives. An objective in which
    all points agree tells none of them apart and adds nothing. Source: Deb et al. 2002, section III-B.
    """
    _check(points)
    total = torch.zeros(len(points), dtype=torch.double)
    for values in points.double().unbind(1):
        ordered, order = values.sort(stable=True)
        room = torch.full_like(ordered, torch.inf)
        room[1:-1] = (ordered[2:] - ordered[:-2]) / (ordered[-1] - ordered[0])
        if ordered[0] < ordered[-1]:
            total[order] += room
    # Where no objective varies, no point is crowded by another.
    return total if bool((points != points[:1]).any()) else torch.full_like(total, torch.inf)


def archived(
    points: Points, *, reference: Float[Tensor, "objective"], limit: int | None = None
) -> Int[Tensor, "kept"]:
    """The rows worth keeping, in order: at least `reference` in each objective, not dominated, distinct.

    Of equal points the first is kept. Where more than `limit` remain, those of the largest crowding distance
    do (the earlier one where two are equal). Raises `DataError` naming the best value of each objective where
    no point reaches the reference, `ShapeError` where the two do not have the same objectives.
    """
    reference = _check_reference(points, reference)
    reached = (points >= reference).all(1)
    if not bool(reached.any()):
        raise unreached(points.amax(0).tolist() if len(points) else [], reference.tolist())
    rows = reached.nonzero()[:, 0]
    rows = rows[nondominated(points[rows])]
    rows = rows[_first_of_equals(points[rows])]
    if limit is not None and len(rows) > limit:
        roomy = crowding_distance(points[rows]).argsort(descending=True, stable=True)[:limit]
        rows = rows[roomy.sort().values]
    return rows


def unreached(best: Sequence[float], reference: Sequence[float]) -> DataError:
    """The error of an archive that no point enters, `best` being the best value seen of each objective."""
    found = [f"{value:.4g}" for value in best] if best else "not known: there are no points"
    return DataError(
        "no point reaches the reference in every objective",
        where=f"the best value of each objective is {found}, the reference {list(reference)}",
        cure="lower the reference point, or train longer before the first points are kept",
    )


def emptiest(points: Points, count: int, *, taken: Bool[Tensor, "point"] | None = None) -> Int[Tensor, "row"]:
    """The `count` rows with the largest crowding distance, most room first; those `taken` are left out.

    Fewer where there are no more. Distances are among all points, taken or not.
    """
    if count < 1:
        raise SettingError(f"{count} points to be chosen", expected="at least 1")
    order = crowding_distance(points).argsort(descending=True, stable=True)
    return (order if taken is None else order[~taken[order]])[:count]


# ---- how good a set is -------------------------------------------------------------------------------


def hypervolume(points: Points, *, reference: Float[Tensor, "objective"]) -> Float[Tensor, ""]:
    """The volume that the points dominate above `reference`; exact, in double precision.

    Points that do not exceed the reference in every objective add nothing. Points are added from the highest
    last objective down: all before one are at least as high in it, so that what one adds is its height times
    what its other objectives add to theirs, cut to its own. The time grows with the square of the points for
    three objectives and, at worst, by their number with each further one.
    """
    reference = _check_reference(points, reference)
    above = points.double() - reference
    above = above[(above > 0).all(1)]
    return _volume(above[nondominated(above)]) if len(above) else torch.zeros((), dtype=torch.double)


def expected_utility(points: Points, preferences: Float[Tensor, "preference objective"]) -> Float[Tensor, ""]:
    """Mean over preferences w of the best weighted sum max over points of w.p.

    What a user can expect who picks the best point for a preference drawn from `preferences` (see
    `preference_grid`). Source: Zintgraf et al. 2015.
    """
    _check(points, least=1)
    if preferences.dim() != 2 or len(preferences) == 0 or preferences.shape[1] != points.shape[1]:
        raise ShapeError(
            f"preferences of shape {list(preferences.shape)} for {points.shape[1]} objectives",
            expected=f"[preference, {points.shape[1]}], at least one",
        )
    return (preferences.double() @ points.double().T).amax(1).mean()


def sparsity(points: Points) -> Float[Tensor, ""]:
    """Mean over the gaps along the front of their squares, summed over objectives; 0 for a single point.

    In each objective the sorted values leave n - 1 gaps. Lower is more even, but a set of few points that
    lie together is low too: it says something only beside the hypervolume. Source: Xu et al. 2020.
    """
    _check(points, least=1)
    gaps = points.double().sort(0).values.diff(dim=0)
    return gaps.square().sum() / max(1, len(points) - 1)


# ---- preferences -------------------------------------------------------------------------------------


def preference_grid(objectives: int, parts: int) -> Float[Tensor, "preference objective"]:
    """Every way to share `parts` equal parts among the objectives, as weights that sum to one.

    Counted in whole parts, so that no vector is lost to rounding; the first objective varies slowest.
    """
    if objectives < 1 or parts < 1:
        raise SettingError(f"{parts} parts for {objectives} objectives", expected="at least 1 each")
    shares = torch.tensor(list(_shares(objectives, parts)), dtype=torch.double)
    return shares / parts


def weight_grid(
    objectives: int, *, low: float = 0.0, high: float = 1.0, step: float
) -> Float[Tensor, "preference objective"]:
    """Weights for a few first policies: all but the last go from `low` to `high` by `step`, and it the rest.

    Combinations whose sum is above one are left out. Raises `SettingError` where `high` is below `low`, the
    step is not above 0, or no combination is left.
    """
    if not (0 <= low <= high <= 1 and step > 0):
        raise SettingError(
            f"weights from {low:g} to {high:g} by {step:g}", expected="0 <= low <= high <= 1, a step above 0"
        )
    rounding = 1e-9
    marks = [low + number * step for number in range(int((high - low) / step + rounding) + 1)]
    first = [head for head in itertools.product(marks, repeat=objectives - 1) if sum(head) <= 1 + rounding]
    if not first:
        raise SettingError(
            f"no weights of {objectives} objectives lie between {low:g} and {high:g} and sum to one",
            expected=f"a lowest weight of at most {1 / max(1, objectives - 1):.3g}",
        )
    return torch.tensor([[*head, max(0.0, 1 - sum(head))] for head in first], dtype=torch.double)


# ---- parts -------------------------------------------------------------------------------------------


def _volume(above: Points) -> Float[Tensor, ""]:
    """The volume of the union of the boxes from 0 to each point."""
    if above.shape[1] == 1:
        return above.amax()
    above = above[above[:, -1].argsort(descending=True)]
    if above.shape[1] == 2:
        # What each adds is a slab from the widest so far to its own width.
        widest = above[:, 0].cummax(0).values
        return (widest.diff(prepend=widest.new_zeros(1)) * above[:, 1]).sum()
    total = above.new_zeros(())
    for number, point in enumerate(above):
        inner = point[:-1]
        added = inner.prod()
        if number > 0:
            cut = above[:number, :-1].minimum(inner)
            added = added - _volume(cut[nondominated(cut)])
        total = total + point[-1] * added
    return total


def _first_of_equals(points: Points) -> Bool[Tensor, "point"]:
    equal = (points[:, None] == points).all(-1)
    return ~equal.tril(-1).any(1)


def _shares(objectives: int, parts: int) -> Iterator[tuple[int, ...]]:
    if objectives == 1:
        yield (parts,)
        return
    for first in range(parts + 1):
        for rest in _shares(objectives - 1, parts - first):
            yield (first, *rest)


def _check(points: Points, *, least: int = 0) -> None:
    if points.dim() != 2 or points.shape[1] < 1 or len(points) < least:
        expected = f"[point, objective], at least {least} of them" if least else "[point, objective]"
        raise ShapeError(f"points of shape {list(points.shape)}", expected=expected)
    if not bool(points.isfinite().all()):
        point, objective = (~points.isfinite()).nonzero()[0].tolist()
        raise DataError("a point is not finite", where=f"point {point}, objective {objective}")


def _check_reference(points: Points, reference: Tensor) -> Float[Tensor, "objective"]:
    """The reference in double precision; `ShapeError` where it has other objectives than the points."""
    _check(points)
    if reference.shape != points.shape[1:]:
        raise ShapeError(
            f"a reference point of shape {list(reference.shape)}",
            expected=f"[{points.shape[1]}], one value per objective",
        )
    return reference.double()

"""States moved against a decision-maker: as little as possible, or as harmfully as a bound allows.

Every attack is a function of scores (see `decisions`) and states [row, *shape] that returns states of the
same shape, between `low` and `high`; it moves against the greedy decision at the states given.

Bounded attacks ask what a perturbation of a size can do (`gradient_sign`, `nesterov`, `projected_ascent`),
minimal ones how near the next decision is (`deepfool`, `carlini_wagner`, `elastic_net`); a row whose decision
a minimal attack cannot change comes back as it was. The attacks are those of the papers named, with scores of
actions in the place of scores of classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.objectives.decisions import (
    ROWS,
    Scores,
    as_rows,
    decision_cross_entropy,
    decision_margin,
    greedy,
    scored,
)


def gradient_sign(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    *,
    size: float,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row *shape"]:
    """FGSM: one step of `size` in every coordinate, by the sign of the gradient of the cross-entropy.

    Source: Goodfellow et al. 2015 (1412.6572), section 4.
    """
    return nesterov(scores, states, size=size, steps=1, momentum=0.0, low=low, high=high)


def nesterov(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    *,
    size: float,
    steps: int = 10,
    momentum: float = 1.0,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row *shape"]:
    """Nesterov's momentum in the sign method: gradients where the momentum leads, steps of `size` / `steps`.

        g <- momentum g + grad(s + (size/steps) momentum g) / |grad|_1,      s <- s + (size/steps) sign(g)

    Source: Lin et al. 2020 (1908.06281), equations 6 to 8.
    """
    _check(size=size, steps=steps, low=low, high=high)
    states = as_rows(states)
    decision = greedy(scores, states)
    moved, velocity, step = states, torch.zeros_like(states), size / steps
    for _ in range(steps):
        ahead = moved + step * momentum * velocity
        slope = gradient(scores, ahead, lambda found, rows: decision_cross_entropy(found, decision[rows]))
        length = _each(slope.abs().flatten(1).sum(1), slope)
        velocity = momentum * velocity + slope / torch.where(length > 0, length, 1.0)
        moved = (moved + step * velocity.sign()).clamp(low, high)
    return moved


def projected_ascent(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    decision: Int[Tensor, "row"],
    *,
    start: Float[Tensor, "row *shape"],
    size: float | Float[Tensor, "row"],
    steps: int,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row *shape"]:
    """Projected gradient ascent of the margin against `decision` in the cube of half-width `size` around s.

    `start` is drawn by the caller, uniform in [-1, 1]: where in the cube to begin. Every step is `size` /
    `steps` in every coordinate; none leaves the point of the start. This is the inner maximum of SA-DQN.
    Source: Madry et al. 2018 (1706.06083), equation 2.1; Zhang et al. 2020 (2003.08938), appendix.
    """
    width = _each(torch.as_tensor(size, dtype=states.dtype).expand(len(states)), states)
    floor, ceiling = (states - width).clamp(min=low), (states + width).clamp(max=high)
    moved = torch.minimum(torch.maximum(states + width * start, floor), ceiling)
    for _ in range(steps):
        slope = gradient(scores, moved, lambda found, rows: decision_margin(found, decision[rows]))
        moved = torch.minimum(torch.maximum(moved + width / steps * slope.sign(), floor), ceiling)
    return moved


def deepfool(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    *,
    steps: int = 50,
    overshoot: float = 0.02,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row *shape"]:
    """The nearest decision boundary, linearised at every step, and a little beyond it.

    At each step every other action's boundary is a plane; the state moves onto the nearest one, until the
    decision changes. Coordinates at a bound do not move beyond it.
    Source: Moosavi-Dezfooli et al. 2016 (1511.04599), algorithm 2.
    """
    _check(size=overshoot, steps=steps, low=low, high=high)
    states = as_rows(states)
    decision = greedy(scores, states)
    moved, stands = states.clone(), torch.ones(len(states), dtype=torch.bool)
    for _ in range(steps):
        if not stands.any():
            break
        rows = stands.nonzero()[:, 0]
        step = _to_the_nearest_plane(scores, moved[rows], decision[rows], low, high)
        moved[rows] = (moved[rows] + step).clamp(low, high)
        beyond = (states + (1 + overshoot) * (moved - states)).clamp(low, high)
        stands = greedy(scores, beyond) == decision
    beyond = (states + (1 + overshoot) * (moved - states)).clamp(low, high)
    return torch.where(_each(greedy(scores, beyond) != decision, states), beyond, states)


def carlini_wagner(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    *,
    confidence: float = 0.0,
    weight: float = 0.1,
    searches: int = 5,
    steps: int = 30,
    step_size: float = 0.05,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row *shape"]:
    """The least squared distance at which another action leads by `confidence`, by gradient descent on

        |s' - s|^2 + c max(Q(s', a*) - max_{a != a*} Q(s', a), -confidence)

    with the weight c searched for each row. The bounds are kept by projection, not by the authors' change of
    variables, whose gradient vanishes where states are at a bound. It is `elastic_net` without its 1-norm.
    Source: Carlini and Wagner 2017 (1608.04644), sections V.A and V.B.
    """
    return elastic_net(
        scores, states, sparsity=0.0, confidence=confidence, weight=weight, searches=searches, steps=steps,
        step_size=step_size, low=low, high=high,
    )  # fmt: skip


def elastic_net(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    *,
    sparsity: float = 0.01,
    confidence: float = 0.0,
    weight: float = 0.1,
    searches: int = 5,
    steps: int = 30,
    step_size: float = 0.05,
    low: float = 0.0,
    high: float = 1.0,
) -> Float[Tensor, "row *shape"]:
    """Carlini and Wagner's attack with `sparsity` |s' - s|_1 added, so that few coordinates are moved.

    Accelerated iterative shrinkage: a gradient step on the smooth part at a point that momentum leads ahead,
    then coordinates that moved less than `sparsity` put back. The weight starts at `weight` for each row, is
    ten times as large after a search that failed and halfway to the last failure after one that succeeded.
    Of all points that changed the decision the one at the least elastic-net distance is returned.
    Source: Chen et al. 2018 (1709.04114), section "Elastic-net attacks", algorithm 1.
    """
    _check(size=step_size, steps=steps, low=low, high=high)
    states = as_rows(states)
    decision = greedy(scores, states)
    best, least = states.clone(), torch.full((len(states),), torch.inf, dtype=states.dtype)
    weights = torch.full_like(least, weight)
    below, above = torch.zeros_like(least), torch.full_like(least, torch.inf)
    for _ in range(searches):
        here = ahead = states
        changed = torch.zeros(len(states), dtype=torch.bool)
        for step in range(steps):
            lead = -_lead(scores, ahead, decision, confidence)
            slope = 2 * (ahead - states) + _each(weights, states) * lead
            before, here = here, _shrunk(ahead - step_size * slope, states, sparsity, low, high)
            ahead = here + step / (step + 3) * (here - before)
            distance = _elastic(here - states, sparsity)
            with torch.no_grad():
                leads = _in_pieces(scores, here, decision) > confidence
            changed |= leads
            nearer = leads & (distance < least)
            best = torch.where(_each(nearer, states), here, best)
            least = torch.where(nearer, distance, least)
        above = torch.where(changed, torch.minimum(above, weights), above)
        below = torch.where(changed, below, torch.maximum(below, weights))
        weights = torch.where(above.isinf(), 10 * weights, (below + above) / 2)
    return best


def gradient(
    scores: Scores,
    states: Float[Tensor, "row *shape"],
    value: Callable[[Tensor, slice], Float[Tensor, "row"]],
) -> Float[Tensor, "row *shape"]:
    """Gradient in every state of a value of its scores; `value` is told which rows the scores are of."""
    found = []
    for first in range(0, len(states), ROWS):
        rows = slice(first, first + ROWS)
        moved = states[rows].detach().requires_grad_()
        with torch.enable_grad():
            total = value(scored(scores, moved), rows).sum()
            found.append(torch.autograd.grad(total, moved)[0])
    return torch.cat(found)


# ---- parts -------------------------------------------------------------------------------------------


def _lead(scores: Scores, states: Tensor, decision: Tensor, confidence: float) -> Tensor:
    """Gradient of the other actions' lead, where it is not yet `confidence`."""
    return gradient(
        scores, states, lambda found, rows: decision_margin(found, decision[rows]).clamp(max=confidence)
    )


def _in_pieces(scores: Scores, states: Tensor, decision: Tensor) -> Float[Tensor, "row"]:
    found = [scored(scores, some) for some in states.split(ROWS)]
    return decision_margin(torch.cat(found), decision)


def _to_the_nearest_plane(
    scores: Scores, states: Tensor, decision: Tensor, low: float, high: float
) -> Tensor:
    """The shortest step within the bounds to where, linearised, another action is as good as the decision."""
    with torch.no_grad():
        found = torch.cat([scored(scores, some) for some in states.split(ROWS)])
    best, shortest = torch.zeros_like(states), torch.full((len(states),), torch.inf, dtype=states.dtype)
    for other in range(found.shape[1]):

        def behind(scores: Tensor, rows: slice, other: int = other) -> Tensor:
            return scores[:, other] - scores.gather(1, decision[rows, None])[:, 0]

        slope = gradient(scores, states, behind)
        # What points out of the bounds would be cut off.
        slope = torch.where((states <= low) & (slope < 0) | (states >= high) & (slope > 0), 0.0, slope)
        square = slope.square().flatten(1).sum(1)
        gap = behind(found, slice(None)).abs()
        length = torch.where(square > 0, gap / square.sqrt(), torch.inf)
        length = torch.where(decision == other, torch.inf, length)
        nearer = length < shortest
        step = _each(gap / torch.where(square > 0, square, 1.0), states) * slope
        best = torch.where(_each(nearer, states), step, best)
        shortest = torch.where(nearer, length, shortest)
    return best


def _shrunk(moved: Tensor, states: Tensor, sparsity: float, low: float, high: float) -> Tensor:
    """`moved` with each coordinate `sparsity` nearer to where it was, and within the bounds."""
    change = moved - states
    change = change.sign() * (change.abs() - sparsity).clamp(min=0)
    return (states + change).clamp(low, high)


def _elastic(change: Tensor, sparsity: float) -> Float[Tensor, "row"]:
    change = change.flatten(1)
    return change.square().sum(1) + sparsity * change.abs().sum(1)


def _each(values: Tensor, states: Tensor) -> Tensor:
    """A value per row, shaped to go with the states' axes."""
    return values.view(-1, *[1] * (states.dim() - 1))


def _check(*, size: float, steps: int, low: float, high: float) -> None:
    if not size >= 0:
        raise SettingError(f"the size of the attack is {size}", expected="0 or more, in units of the state")
    if steps < 1:
        raise SettingError(f"{steps} steps", expected="1 or more")
    if not low < high:
        raise SettingError(f"states between {low} and {high}", expected="low below high")

"""Greedy decisions and what upsets them: the margin of the best action, and the direction that erases it.

A decision-maker is a function from states [row, *shape] to scores [row, action] (Q values or logits); it
decides for the largest. To first order its decision at s is upset fastest along

    v(s) = d/ds [-log softmax(scores(s) / temperature)[a*]],        a* = argmax of the scores at s, held fixed

Source: Korkmaz 2024, Understanding and Diagnosing Deep Reinforcement Learning (2406.16979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError

Scores = Callable[[Tensor], Tensor]
"""From states [row, *shape] to the score of each action, [row, action]."""

ROWS = 512
"""States that go through a network at a time."""


def decision_cross_entropy(
    scores: Float[Tensor, "row action"], decision: Int[Tensor, "row"], *, temperature: float = 1.0
) -> Float[Tensor, "row"]:
    """How unlikely the softmax of the scores finds the `decision`, in nats: -log softmax(scores / T)[a]."""
    if not temperature > 0:
        raise SettingError(f"temperature is {temperature}", expected="above 0")
    return -(scores / temperature).log_softmax(-1).gather(-1, decision[:, None])[:, 0]


def decision_margin(
    scores: Float[Tensor, "row action"], decision: Int[Tensor, "row"]
) -> Float[Tensor, "row"]:
    """How far the best other action is above the `decision`; below zero where the decision stands."""
    own = scores.gather(-1, decision[:, None])[:, 0]
    return scores.scatter(-1, decision[:, None], -torch.inf).amax(-1) - own


def margin_hinge(
    scores: Float[Tensor, "row action"], decision: Int[Tensor, "row"], *, floor: float = 1.0
) -> Float[Tensor, "row"]:
    """The robustness regulariser of SA-DQN: max(margin, -floor), per row, at states moved against the agent.

    `decision` is the greedy action at the states where they were. A row whose decision stands by more than
    `floor` gives no gradient. (The authors' code for this form sums the margins over the batch before the
    maximum; the paper's equation is per state, as here.)
    Source: Zhang et al. 2020 (2003.08938), section 3.4 and appendix; the margin at a point of projected
    gradient ascent in place of its certified bound.
    """
    return decision_margin(scores, decision).clamp(min=-floor)


def greedy(scores: Scores, states: Float[Tensor, "row *shape"]) -> Int[Tensor, "row"]:
    """The decision in each state, without a gradient."""
    with torch.no_grad():
        return torch.cat([scored(scores, some).argmax(-1) for some in states.split(ROWS)])


def unstable_direction(
    scores: Scores, states: Float[Tensor, "row *shape"] | Sequence[Tensor], *, temperature: float = 1.0
) -> Float[Tensor, "row *shape"]:
    """v(s) of every state, as long as it comes: the gradient of the decision's cross-entropy.

    A sequence of states counts as rows. For linear scores W s it is W^T (softmax(W s) - e_a*). Zero where the
    softmax is saturated in floating point, which a higher temperature cures. The network has to be without
    dropout and noise (`eval()`), its rows independent of each other.

    Raises `DataError` for no states, or states that are not floats; `ShapeError` for states of different
    shapes, and where the scores are not [row, action] with two actions or more.
    """
    states = as_rows(states)
    if not temperature > 0:
        raise SettingError(f"temperature is {temperature}", expected="above 0")
    found = []
    for some in states.split(ROWS):
        moved = some.detach().requires_grad_()
        with torch.enable_grad():
            there = scored(scores, moved)
            loss = decision_cross_entropy(there, there.detach().argmax(-1), temperature=temperature)
            found.append(torch.autograd.grad(loss.sum(), moved)[0])
    return torch.cat(found)


def as_rows(states: Tensor | Sequence[Tensor]) -> Tensor:
    """States as one tensor [row, *shape] of floats; raises as `unstable_direction` says."""
    if not isinstance(states, Tensor):
        shapes = sorted({tuple(state.shape) for state in states})
        if len(shapes) > 1:
            raise ShapeError(
                f"states of different shapes: {', '.join(map(str, map(list, shapes)))}",
                expected="states of one environment, seen in one way",
            )
        states = torch.stack(list(states)) if shapes else torch.empty(0, 0)
    if len(states) == 0:
        raise DataError("there are no states to look at", expected="one or more")
    if not states.is_floating_point():
        raise DataError(
            f"the states are {str(states.dtype).removeprefix('torch.')}",
            expected="floats: a gradient in the state needs numbers that can move a little",
            cure="states.float(), scaled as the policy reads them",
        )
    return states


def scored(scores: Scores, states: Float[Tensor, "row *shape"]) -> Float[Tensor, "row action"]:
    """The scores of states; `ShapeError` where they are not [row, action] with two actions or more."""
    found = scores(states)
    if found.dim() != 2 or len(found) != len(states) or found.shape[1] < 2:
        raise ShapeError(
            f"scores of shape {list(found.shape)} for {len(states)} states",
            expected=f"[{len(states)}, action], with two actions or more",
        )
    return found

"""Markov decision processes small enough to write down: solved and evaluated exactly, alone or as a set.

With tables of transitions T(s' | s, a) and rewards r(s, a), and a discount below 1,

    Q(s, a) = r(s, a) + discount sum_s' T(s' | s, a) max_a' Q(s', a')

is solved by iterating it. Where T is only known to be one of several tables, the *robust* value takes the
least favourable of them in every state and for every action anew (a rectangular set), which is what the
adversary of a dynamic game may do.

Source: Iyengar 2005, Robust dynamic programming; Nilim and El Ghaoui 2005.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.visitation import TOLERANCE


def optimal_q(
    transition: Float[Tensor, "*model state action next"],
    reward: Float[Tensor, "state action"],
    discount: float,
    *,
    tolerance: float = 1e-9,
) -> Float[Tensor, "*model state action"]:
    """The optimal action values of each model, in double precision, none off by more than `tolerance`.

    Raises `ShapeError` where the tables do not fit each other, `SettingError` for rows that are no
    distributions and for a discount outside of [0, 1).
    """
    check_tables(transition, reward, discount)
    transition, reward = transition.double(), reward.double()

    def backup(q: Tensor) -> Tensor:
        return reward + discount * torch.einsum("...san,...n->...sa", transition, q.amax(-1))

    start = reward.expand(*transition.shape[:-1])
    return _fixed_point(backup, start, discount, tolerance)


def robust_q(
    transition: Float[Tensor, "model state action next"],
    reward: Float[Tensor, "state action"],
    discount: float,
    *,
    tolerance: float = 1e-9,
) -> Float[Tensor, "state action"]:
    """The optimal action values against each step's worst model; raises what `optimal_q` raises."""
    check_tables(transition, reward, discount)
    transition, reward = transition.double(), reward.double()

    def backup(q: Tensor) -> Tensor:
        return reward + discount * torch.einsum("msan,n->msa", transition, q.amax(-1)).amin(0)

    return _fixed_point(backup, reward, discount, tolerance)


def policy_value(
    policy: Int[Tensor, "state"],
    transition: Float[Tensor, "*model state action next"],
    reward: Float[Tensor, "state action"],
    discount: float,
) -> Float[Tensor, "*model state"]:
    """The exact value of a deterministic policy (an action per state) in each model: (1 - discount T)^-1 r.

    Double precision; errors as in `optimal_q`, and a `ShapeError` for a policy that is not [state].
    """
    check_tables(transition, reward, discount)
    states = reward.shape[0]
    if policy.shape != (states,):
        raise ShapeError(f"a policy of shape {list(policy.shape)}", expected=f"an action for {states} states")
    rows = torch.arange(states)
    step = transition.double()[..., rows, policy, :]
    paid = reward.double()[rows, policy]
    system = torch.eye(states, dtype=torch.double) - discount * step
    return torch.linalg.solve(system, paid.expand(*step.shape[:-2], states)[..., None])[..., 0]


def check_tables(transition: Tensor, reward: Tensor, discount: float) -> None:
    """Raise what `optimal_q` says it raises."""
    if reward.dim() != 2 or transition.dim() < 3 or transition.shape[-3:] != (*reward.shape, len(reward)):
        raise ShapeError(
            f"transitions of shape {list(transition.shape)} with rewards of shape {list(reward.shape)}",
            expected="[..., state, action, state] and [state, action]",
        )
    if not 0 <= discount < 1:
        raise SettingError(f"a discount of {discount}", expected="0 or more, and below 1")
    if not bool(torch.isfinite(reward).all()):
        raise SettingError("a reward is not finite", expected="finite rewards")
    # Written so that a NaN is refused too.
    sums = transition.sum(-1)
    if not (bool((transition >= 0).all()) and bool(((sums - 1).abs() <= TOLERANCE).all())):
        raise SettingError("the rows of the transitions are no distributions", expected="0 or more, sum 1")


def _fixed_point(
    backup: Callable[[Tensor], Tensor], values: Tensor, discount: float, tolerance: float
) -> Tensor:
    """Iterate a contraction until its fixed point is within `tolerance`."""
    if not tolerance > 0:
        raise SettingError(f"a tolerance of {tolerance}", expected="above 0")
    while True:
        after = backup(values)
        change = float((after - values).abs().max())
        values = after
        # A contraction ends within discount / (1 - discount) times its last step.
        if change * discount <= tolerance * (1 - discount):
            return values

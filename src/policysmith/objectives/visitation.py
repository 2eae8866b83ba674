"""Where a cloned policy goes: visitation of finite chains, the bound on its shift, and coverage.

Data are good for cloning when the learner visits what the expert visits. For horizon H, policies pi_A
(learner) and pi_E (expert) and states visited rho = mean over t = 1..H of the states at time t,

    KL(rho_A, rho_E)  <=  1/H sum_t (H - t) E_{s ~ rho_A at t} [ KL(pi_A(.|s), pi_E(.|s)) ]

so early mistakes weigh most, long demonstrations cost twice, and the expectation is over the *learner's*
states, which the data do not hold. Source: Belkhale et al. 2023 (2306.02437), definition 4.1, theorem 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError

TOLERANCE = 1e-6
"""How far probabilities may be from a sum of one."""


class VisitationBound(NamedTuple):
    """Both sides of the bound in nats, and the two visitations."""

    divergence: Float[Tensor, ""]
    bound: Float[Tensor, ""]
    learner: Float[Tensor, "state"]
    expert: Float[Tensor, "state"]


def divergence(
    p: Float[Tensor, "*batch outcome"], q: Float[Tensor, "*batch outcome"]
) -> Float[Tensor, "*batch"]:
    """KL(p, q) = sum p log(p / q) in nats; infinite where q excludes what p allows."""
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)


def visits(
    policy: Float[Tensor, "state action"],
    transition: Float[Tensor, "state action next"],
    start: Float[Tensor, "state"],
    horizon: int,
) -> Float[Tensor, "horizon state"]:
    """The distribution over states at each time 1..horizon, the first being `start`."""
    step = torch.einsum("sa,san->sn", policy, transition)
    reached = [start]
    for _ in range(horizon - 1):
        reached.append(reached[-1] @ step)
    return torch.stack(reached)


def visitation_bound(
    learner: Float[Tensor, "state action"],
    expert: Float[Tensor, "state action"],
    transition: Float[Tensor, "state action next"],
    *,
    start: Float[Tensor, "state"],
    horizon: int,
) -> VisitationBound:
    """The shift of the learner's visitation and its bound, exactly, for a chain with finitely many states.

    Raises `ShapeError` where the tables do not fit each other, and `SettingError` where a row of one is not
    a distribution or the horizon is below 1.
    """
    _check(learner, expert, transition, start, horizon)
    learner, expert, transition, start = (x.double() for x in (learner, expert, transition, start))
    at_time = visits(learner, transition, start, horizon)
    left = horizon - torch.arange(1, horizon + 1, dtype=torch.double)
    per_state = divergence(learner, expert)
    # States that are never reached count nothing, even where the divergence there is infinite.
    costs = torch.where(at_time > 0, at_time * per_state, 0.0).sum(1)
    bound = torch.where(left > 0, left * costs, 0.0).sum() / horizon
    mine = at_time.mean(0)
    theirs = visits(expert, transition, start, horizon).mean(0)
    return VisitationBound(divergence(mine, theirs), bound, mine, theirs)


def coverage_probability(
    radius: float, deviation: Float[Tensor, "*batch"], *, samples: Int[Tensor, "*batch"] | int, size: int = 1
) -> Float[Tensor, "*batch"]:
    """Chance that the mean of a normal next state has one of `samples` draws within `radius`.

    The draws have `size` dimensions of standard deviation `deviation`. With N draws it is
    1 - (1 - p)^N, p the chance of one (for one dimension erf(radius / (deviation sqrt 2))): more noise
    thins the coverage of each state, more samples restore it.
    """
    distance = (radius / deviation).square() / 2
    single = torch.special.gammainc(torch.full_like(distance, size / 2), distance)
    return 1 - (1 - single) ** samples


def _check(learner: Tensor, expert: Tensor, transition: Tensor, start: Tensor, horizon: int) -> None:
    states, actions = learner.shape
    if expert.shape != learner.shape or transition.shape != (states, actions, states):
        raise ShapeError(
            f"policies {list(learner.shape)} and {list(expert.shape)}, transitions {list(transition.shape)}",
            expected="[state, action], the same, and [state, action, state]",
        )
    if start.shape != (states,):
        raise ShapeError(f"a start of shape {list(start.shape)}", expected=f"[{states}]")
    if horizon < 1:
        raise SettingError(f"a horizon of {horizon}", expected="at least 1")
    tables = {"learner": learner, "expert": expert, "transition": transition, "start": start}
    for name, table in tables.items():
        if bool((table < 0).any()) or bool(((table.sum(-1) - 1).abs() > TOLERANCE).any()):
            raise SettingError(f"the rows of '{name}' are no distributions", expected="0 or more, sum 1")

"""Preference games in a table: exact equilibria, and how far a policy is from them.

P[i, j] is the probability that outcome i is preferred to j, P + P^T = 1. A policy pi wins against pi' with
probability pi^T P pi'. The equilibrium is the policy that no other beats more often than not; regularised by
the divergence from mu it is the one fixed point of

    pi(y) ~ mu(y) exp(P(y better than pi) / tau)

Everything is in double precision and for one prompt.

Sources: Munos et al. 2023 (Nash-MD); Rosset et al. 2024 (DNO), algorithm 1 and theorem 1.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import CapabilityError, DataError, SettingError

Wins = Float[Tensor, "outcome outcome"]
Chances = Float[Tensor, "outcome"]


def check_preferences(wins: Wins, *, tolerance: float = 1e-6) -> Wins:
    """The matrix in double precision; `DataError` with the worst entry where it is no preference."""
    wins = wins.double()
    if wins.dim() != 2 or wins.shape[0] != wins.shape[1]:
        raise DataError(f"preferences of shape {list(wins.shape)}", expected="[outcome, outcome]")
    outside = torch.maximum(-wins, wins - 1)
    if not float(outside.max()) <= 0:
        i, j = divmod(int(outside.nan_to_num(torch.inf).argmax()), len(wins))
        raise DataError(f"P[{i}, {j}] is {float(wins[i, j]):g}", expected="a probability")
    off = (wins + wins.t() - 1).abs()
    if float(off.max()) > tolerance:
        i, j = divmod(int(off.argmax()), len(wins))
        raise DataError(
            f"P[{i}, {j}] is {float(wins[i, j]):g} and P[{j}, {i}] is {float(wins[j, i]):g}",
            expected="two numbers that sum to 1",
        )
    return wins


def check_reference(reference: Chances) -> Chances:
    """The reference in double precision; `DataError` where an outcome has no probability."""
    reference = reference.double()
    if not bool((reference > 0).all()):
        raise DataError(
            f"the reference gives outcome {int(reference.argmin())} no probability",
            expected="a positive probability for each: log-ratios would be infinite",
        )
    return reference / reference.sum()


# ---- equilibria --------------------------------------------------------------------------------------


def nash_by_linear_programme(wins: Wins) -> Chances:
    """A policy that wins at least half the time against any other, the game's value being one half."""
    from scipy.optimize import linprog

    wins = check_preferences(wins)
    count = len(wins)
    # Maximise v with sum_i pi_i P[i, j] >= v for each j: variables (pi, v).
    found = linprog(
        c=np.r_[np.zeros(count), -1.0],
        A_ub=np.c_[-wins.numpy().T, np.ones(count)],
        b_ub=np.zeros(count),
        A_eq=np.r_[np.ones(count), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, 1)] * count + [(None, None)],
    )
    if not found.success:
        raise CapabilityError(f"the linear programme was not solved: {found.message}")
    return torch.from_numpy(found.x[:count]).clamp(min=0)


def regularised_nash(
    wins: Wins, reference: Chances, *, tau: float, tolerance: float = 1e-12, most: int = 200
) -> Chances:
    """The equilibrium under a divergence penalty `tau`, by Newton's method.

    With A = P - 1/2 and pi = softmax(z) it is the root of F(z) = z - log mu - A pi / tau. A is skew, so that
    the Jacobian I - A (diag pi - pi pi^T) / tau always has an inverse, and steps that are shortened until |F|
    falls lead to the one root. Raises `CapabilityError` where `most` steps are not enough.
    """
    wins, reference = check_preferences(wins), check_reference(reference)
    _check_tau(tau)
    pull, held = (wins - 0.5) / tau, reference.log()

    def residual(z: Chances) -> Chances:
        return z - held - pull @ torch.softmax(z, -1)

    z = held
    for _ in range(most):
        off, policy = residual(z), torch.softmax(z, -1)
        if float(off.abs().max()) <= tolerance * (1 + float(z.abs().max())):
            return policy
        spread = policy.diag() - torch.outer(policy, policy)
        step = torch.linalg.solve(torch.eye(len(z), dtype=z.dtype) - pull @ spread, off)
        length = 1.0
        while length > 1e-9 and residual(z - length * step).norm() > (1 - 1e-4 * length) * off.norm():
            length /= 2
        z = z - length * step
    raise CapabilityError(
        f"the equilibrium was not reached in {most} steps", cure="raise tau, `most` or the tolerance"
    )


# ---- dynamics ----------------------------------------------------------------------------------------


def nash_md(
    wins: Wins,
    reference: Chances,
    *,
    tau: float,
    steps: int,
    eta: float | Literal["schedule"] = "schedule",
) -> Float[Tensor, "step outcome"]:
    """The policies of Nash-MD from the reference on, the start included; their last iterate converges.

    Centre and opponent of a step are both the mixture pi^(1 - eta tau) mu^(eta tau). The schedule is
    eta = 2 / (tau (t + 2)): its first steps are a best answer's where tau is small, and leave outcomes less
    probability than a number can hold, from which later ones bring them back. Raises `SettingError` for
    eta tau above 1.
    """
    wins, reference = check_preferences(wins), check_reference(reference)
    if eta == "schedule":
        _check_tau(tau)
    elif not (eta > 0 and 0 <= eta * tau <= 1):
        raise SettingError(f"eta {eta} and tau {tau}", expected="eta above 0, and eta tau from 0 to 1")
    held = reference.log()
    path = [held]
    for t in range(steps):
        rate = 2 / (tau * (t + 2)) if eta == "schedule" else float(eta)
        mixture = _mixed(path[-1], held, weight=min(1.0, rate * tau))
        path.append(torch.log_softmax(mixture + rate * (wins @ mixture.exp()), -1))
    return torch.stack(path).exp()


def geometric_mixture(policy: Chances, reference: Chances, *, weight: float) -> Chances:
    """pi^(1 - weight) mu^weight brought to sum to 1."""
    if not 0 <= weight <= 1:
        raise SettingError(f"a mixture weight of {weight}", expected="from 0 to 1")
    return _mixed(policy.log(), reference.log(), weight=weight).exp()


def win_rate_rewards(wins: Wins, policy: Chances) -> Chances:
    """How likely each outcome is better than one of the policy: sum_j P[i, j] pi_j."""
    return check_preferences(wins) @ policy.double()


def soft_policy_iteration(wins: Wins, policy: Chances, *, eta: float) -> Chances:
    """pi exp(r / eta) brought to sum to 1, with r the win rate against pi: what DNO's regression aims at.

    A large `eta` is a small step. It wins against `policy` at least 1/2 + eta KL(new, old) of the time.
    """
    if not eta > 0:
        raise SettingError(f"eta is {eta}", expected="above 0")
    return torch.softmax(policy.double().log() + win_rate_rewards(wins, policy) / eta, -1)


# ---- how far from an equilibrium ---------------------------------------------------------------------


def win_rate(wins: Wins, policy: Chances, other: Chances) -> float:
    """How likely an outcome of `policy` is better than one of `other`."""
    return float(policy.double() @ check_preferences(wins) @ other.double())


def exploitability(wins: Wins, policy: Chances) -> float:
    """How much more than half of the time the best answer to `policy` wins; 0 at an equilibrium."""
    return float(win_rate_rewards(wins, policy).max()) - 0.5


def duality_gap(wins: Wins, reference: Chances, policy: Chances, *, tau: float) -> float:
    """How much the best answer to `policy` gains in the regularised game; 0 at its equilibrium.

    max over pi' of [P(pi' better than pi) - tau KL(pi', mu)] less what pi has against itself.
    """
    _check_tau(tau)
    wins, reference, policy = check_preferences(wins), check_reference(reference), policy.double()
    best = tau * float(torch.logsumexp(reference.log() + (wins @ policy) / tau, -1))
    own = 0.5 - tau * divergence(policy, reference)
    return best - own


def divergence(policy: Chances, reference: Chances) -> float:
    """KL(policy, reference) in nats."""
    policy, reference = policy.double(), reference.double()
    return float(torch.where(policy > 0, policy * (policy.log() - reference.log()), 0.0).sum())


def _mixed(policy: Chances, reference: Chances, *, weight: float) -> Chances:
    """The geometric mixture of log-probabilities, as one of log-probabilities."""
    if weight == 1:  # also of outcomes that the policy excludes, whose log-probability has no product with 0
        return torch.log_softmax(reference, -1)
    return torch.log_softmax((1 - weight) * policy + weight * reference, -1)


def _check_tau(tau: float) -> None:
    if not tau > 0:
        raise SettingError(f"tau is {tau}", expected="above 0: it is the weight of the divergence")

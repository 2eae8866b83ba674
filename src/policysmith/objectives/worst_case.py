"""Robust policies from ordinary ones: solve one model, find the worst model of the result, and so on (IWOCS).

Of a set of models T that share states, actions and rewards, some have been solved, T_0 ... T_i. What they all
agree to is the pessimistic value, and the candidate is greedy in it:

    Q_i(s, a) = min_{j <= i} Q*_{T_j}(s, a)        pi_i(s) = argmax_a Q_i(s, a)

The model of the *whole* set in which the candidate does worst is solved next, until the candidate gets there
what the pessimistic value promised. With networks, where no critic knows the actions of another's actor, each
judges its own actor's action, the most pessimistic acts, and a critic counts only where its model still
predicts what happens (`valid_models`, `most_pessimistic`).

Source: Zouitine, Bertoin, Clavier, Geist and Rachelson 2024 (2410.06212), algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.tabular import optimal_q, policy_value

NONE_VALID = -1
"""The answer of `most_pessimistic` where no model is valid."""

Stopped = Literal["agreement", "repeated model", "iterations"]
"""Why a search ended: the promise is kept, the worst model was solved before, or there was no time left."""


@dataclass(frozen=True)
class WorstCaseSearch:
    """What a search came to; `promised` and `attained` have an entry per iteration.

    `solved` are the models solved, in their order; `worst` the worst model of the last candidate `policy`
    [state]; `q` [state, action] the pessimistic values it is greedy in. `promised` is what these say of the
    start, `attained` what the candidate gets from there in its worst model.
    """

    policy: Int[Tensor, "state"]
    q: Float[Tensor, "state action"]
    solved: tuple[int, ...]
    worst: int
    promised: tuple[float, ...]
    attained: tuple[float, ...]
    stopped: Stopped

    @property
    def value(self) -> float:
        """What the policy gets from the start in its worst model."""
        return self.attained[-1]


def incremental_worst_case_search(
    models: Float[Tensor, "model state action next"] | Sequence[Float[Tensor, "state action next"]],
    reward: Float[Tensor, "state action"] | Sequence[Float[Tensor, "state action"]],
    discount: float,
    *,
    start: Float[Tensor, "state"],
    first: int = 0,
    iterations: int = 100,
    tolerance: float = 1e-6,
) -> WorstCaseSearch:
    """Algorithm 1 over a finite set of tables, every model solved and every candidate valued exactly.

    `start` is the distribution of the first state, `first` the model solved first; the search ends when
    promise and attainment differ by at most `tolerance`. `reward` may be given once, or per model if all
    agree. Raises `ShapeError` or `SettingError` where the models do not share states, actions and rewards,
    and `SettingError` for settings out of range.
    """
    _check_settings(iterations, tolerance)
    transition, reward = shared_tables(models, reward)
    if start.shape != reward.shape[:1]:
        raise ShapeError(f"a start of shape {list(start.shape)}", expected=f"[{len(reward)}]")
    if not 0 <= first < len(transition):
        raise SettingError(f"the search starts from model {first}", expected=f"0 to {len(transition) - 1}")
    start = start.double()
    solved: list[int] = []
    promised: list[float] = []
    attained: list[float] = []
    q = torch.full(reward.shape, torch.inf, dtype=torch.double)
    stopped: Stopped = "iterations"
    worst = first
    for _ in range(iterations):
        solved.append(worst)
        # A tenth of what is asked of the result, so that rounding cannot keep the search from ending.
        q = torch.minimum(
            q, optimal_q(transition[worst], reward, discount, tolerance=max(tolerance / 10, 1e-12))
        )
        policy = q.argmax(-1)
        values = policy_value(policy, transition, reward, discount) @ start
        worst = int(values.argmin())
        promised.append(float(start @ q.amax(-1)))
        attained.append(float(values[worst]))
        if abs(attained[-1] - promised[-1]) <= tolerance:
            stopped = "agreement"
            break
        if worst in solved:  # solving it again would change nothing
            stopped = "repeated model"
            break
    return WorstCaseSearch(policy, q, tuple(solved), worst, tuple(promised), tuple(attained), stopped)


def shared_tables(
    models: Tensor | Sequence[Tensor], reward: Tensor | Sequence[Tensor]
) -> tuple[Float[Tensor, "model state action next"], Float[Tensor, "state action"]]:
    """Models as one tensor and their one reward; the errors say that models must share S, A and r."""
    tables = list(models)
    if not tables:
        raise SettingError("the set of models is empty", expected="at least one")
    shapes = sorted({tuple(table.shape) for table in tables})
    if len(shapes) > 1:
        raise ShapeError(
            "all models must share S, A and r", where=f"tables of shapes {', '.join(map(str, shapes))}"
        )
    if isinstance(reward, Tensor) and reward.dim() == 2:
        return torch.stack(tables), reward
    rewards = list(reward)
    alike = len(rewards) == len(tables) and all(one.shape == rewards[0].shape for one in rewards)
    if not alike or any(bool((one != rewards[0]).any()) for one in rewards):
        raise SettingError(
            "all models must share S, A and r",
            where=f"{len(rewards)} tables of rewards for {len(tables)} models",
            expected="one table of rewards, or the same for every model",
        )
    return torch.stack(tables), rewards[0]


def valid_models(
    error: Float[Tensor, "model row"], threshold: Float[Tensor, "model"]
) -> Bool[Tensor, "model row"]:
    """Where each model may judge: its prediction of the last transition was off by at most its threshold.

    `error` is the L1 distance between what the model predicted for the step before and what came.
    """
    return error <= threshold[:, None]


def most_pessimistic(
    value: Float[Tensor, "model row"], valid: Bool[Tensor, "model row"]
) -> Int[Tensor, "row"]:
    """The valid model whose critic expects least of its own actor's action; `NONE_VALID` where there is none.

    `value` [model, row] is Q_j(s, pi_j(s)).
    """
    judged = torch.where(valid, value, torch.inf)
    return torch.where(valid.any(0), judged.argmin(0), NONE_VALID)


def _check_settings(iterations: int, tolerance: float) -> None:
    if iterations < 1:
        raise SettingError(f"{iterations} iterations", expected="at least 1")
    if not tolerance >= 0:
        raise SettingError(f"a tolerance of {tolerance}", expected="0 or more")

"""Semantic entropy: how much the answers of a group differ in meaning.

Answers of one meaning form a cluster. With p_k the probability of cluster k, from the answers' own
likelihoods or from their numbers, SE = -sum_k p_k log p_k: 0 where all agree, log G where all G differ. A
group on which the policy is unsure may then count less: its advantages are scaled by a factor that falls with
SE / log G.

Sources: Farquhar et al. 2024 (semantic entropy); Chen et al. 2025 (SEED-GRPO), section 3.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import DataError, SettingError

Estimator = Literal["likelihood", "printed", "frequency"]
Damping = Literal["reciprocal", "linear", "exponential", "focal"]


def semantic_clusters(
    answers: Sequence[Any], equal: Callable[[Any, Any], bool] | None = None
) -> Int[Tensor, "answer"]:
    """A cluster number per answer: greedily, the first cluster whose first member is `equal` to it.

    `equal` None compares by `==`. An answer of None (nothing could be read from it) is a cluster of its own,
    each one separately. Raises `DataError` naming the pair where `equal` depends on the order.
    """
    firsts: list[Any] = []
    labels = []
    seen: dict[Hashable, int] = {}
    for answer in answers:
        label = None
        if answer is not None:
            label = seen.get(answer) if equal is None else _find(firsts, answer, equal)
        if label is None:
            label = len(firsts)
            firsts.append(answer)
            if answer is not None and equal is None:
                seen[answer] = label
        labels.append(label)
    return torch.tensor(labels, dtype=torch.long)


def semantic_entropy(
    labels: Int[Tensor, "answer"],
    mean_log_prob: Float[Tensor, "answer"] | None = None,
    *,
    kind: Estimator = "likelihood",
) -> float:
    """The semantic entropy of one group, in nats, from its cluster labels.

    `mean_log_prob` is each answer's mean log-probability per token under the sampling policy; the answers'
    weights are its exponentials, normalised over the group. `likelihood` is Shannon's form on them, `printed`
    the mean of -log p_k over clusters, `frequency` Shannon's form on the numbers of answers.
    """
    if kind == "frequency":
        log_weight = torch.zeros(len(labels))
    elif mean_log_prob is None:
        raise SettingError(f"semantic entropy by '{kind}' needs the answers' log-probabilities")
    elif mean_log_prob.shape != labels.shape:
        raise DataError(f"{len(labels)} labels for {len(mean_log_prob)} log-probabilities")
    else:
        log_weight = mean_log_prob.detach()
    log_weight = log_weight.double().log_softmax(0)
    log_p = torch.stack([log_weight[labels == label].logsumexp(0) for label in labels.unique()])
    if kind == "printed":
        return float(-log_p.mean())
    return max(0.0, float(-(log_p.exp() * log_p).sum()))


def uncertainty_factor(
    entropy: float, group_size: int, *, alpha: float, kind: Damping = "reciprocal"
) -> float:
    """The factor in [0, 1] on a group's advantages: f(alpha SE / log G), 1 where all answers agree.

    reciprocal 1/(1 + x), linear max(0, 1 - x), exponential e^-x, focal max(0, 1 - x)^2.
    """
    if group_size < 2:
        raise SettingError(f"a group of {group_size}", expected="two answers or more: one cannot disagree")
    if alpha < 0:
        raise SettingError(f"alpha is {alpha}", expected="0 or more")
    if alpha > 1 and kind in ("linear", "focal"):
        warnings.warn(f"with alpha {alpha} the {kind} factor is held at 0 for unsure groups", stacklevel=2)
    x = alpha * entropy / math.log(group_size)
    factors: dict[Damping, Callable[[], float]] = {
        "reciprocal": lambda: 1 / (1 + x),
        "linear": lambda: max(0.0, 1 - x),
        "exponential": lambda: math.exp(-x),
        "focal": lambda: max(0.0, 1 - x) ** 2,
    }
    return factors[kind]()


def _find(firsts: list[Any], answer: Any, equal: Callable[[Any, Any], bool]) -> int | None:
    for label, first in enumerate(firsts):
        if first is None:
            continue
        same = bool(equal(first, answer))
        if same != bool(equal(answer, first)):
            raise DataError(
                "the comparison of answers depends on their order",
                where=f"{first!r} and {answer!r}",
                expected="equal(a, b) and equal(b, a) to agree",
            )
        if same:
            return label
    return None

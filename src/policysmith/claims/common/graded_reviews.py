"""Reviews with graded scores, learnt from by losses that see the scores and by losses that see the order.

Pairs of the start's own reviews, the better one by the program first; each loss with each of a few weights of
the divergence, as many steps each. A loss is judged at the weight that does best on records of its own kind
(validation), by other records (held out).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from policysmith.claims.common.language import Arm, ArmResult, by_seed
from policysmith.claims.common.review_learning import (
    Begun,
    best,
    labelled,
    measuring,
    with_validation,
)
from policysmith.common.stages import Stage
from policysmith.systems import copg, dpo, ipo

SEEDS = 3
PAIRS, ORDERED = 3000, 1e3
BETAS = (0.03, 0.1, 0.3)
BUDGET: dict[str, Any] = {
    "steps": 100, "batch_size": 32, "learning_rate": 3e-4, "warmup_steps": 10, "weight_decay": 0.01,
}  # fmt: skip
LOSSES: dict[str, ModuleType] = {"CoPG": copg, "IPO": ipo, "DPO": dpo}


def called(loss: str, beta: float) -> str:
    """What the arm of a loss at a weight of the divergence is called."""
    return f"reviews: {loss}, beta {beta:g}"


def learnt(
    start: Begun, folder: Path, *, seeds: Sequence[int], evaluate: int
) -> Generator[Stage, None, dict[str, ArmResult]]:
    """Every loss at every weight, for each seed on pairs of its own."""

    def arms(seed: int) -> Generator[Stage, None, list[Arm]]:
        pairs = start.on((yield from labelled(start, folder, size=PAIRS, rate=0, seed=seed, scale=ORDERED)))
        return [
            Arm(called(name, beta), module, module.Config(**BUDGET, beta=beta), pairs)
            for name, module in LOSSES.items()
            for beta in BETAS
        ]

    first = yield from labelled(start, folder, size=PAIRS, rate=0, seed=seeds[0], scale=ORDERED)
    return (
        yield from by_seed(
            arms,
            start=start.on(first),
            seeds=seeds,
            tests=with_validation(evaluate),
            measuring=measuring(start),
            folder=folder,
        )
    )


def best_of(results: dict[str, ArmResult], loss: str) -> str:
    """The arm of a loss whose weight does best on the validation records, over all seeds."""
    return best(results, [called(loss, beta) for beta in BETAS])

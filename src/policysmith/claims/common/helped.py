"""What the experiments with help share: questions, the baseline, and equal budgets.

Half of the questions are short sums, which a start gets right about every other time, and half are long ones,
on which most groups fail as a whole. Help makes answers dearer, so that methods are compared twice: after as
many steps, and after as many tokens drawn (`scores_at_tokens`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from policysmith.claims.common.arithmetic import Level, Mixture, questions, right
from policysmith.claims.common.helped_arithmetic import HINT
from policysmith.claims.common.language import Arm, ArmResult, Measured, Measuring
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.errors import DataError
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.experience.guidance import with_hint
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.sampling import Sampling
from policysmith.systems import ghpo

SHORT, LONG = Level(2, 1), Level(4, 1)
SIZES: dict[str, Any] = {"width": 96, "layers": 3, "heads": 4, "context": 128}

STEPS = 40
LONGER = 2 * STEPS
"""Steps of the baseline, which is measured on its way, so that it can be given as many tokens."""
MEASURING = Measuring(right, Sampling(limit=32), copies=4, every=20)
"""Four answers to a question at temperature 1, without help."""

BUDGET: dict[str, Any] = {
    "prompts": 16,
    "group_size": 8,
    "answer_limit": 32,
    "optimizer_steps": 4,
    "learning_rate": 3e-4,
}
"""Of every run: rollouts of 128 answers with four optimiser steps on each."""

GUIDED = ghpo.Config(**BUDGET, steps=STEPS, warmup_steps=0, template=HINT)
GRPO = Arm(
    f"GRPO, {LONGER} steps",
    ghpo,
    ghpo.Config(**BUDGET, steps=LONGER, warmup_steps=0, template=HINT, hint_from=LONGER),
)
"""GHPO without hints: the same loss, mean and deviation."""


def prompts(long: Level = LONG) -> Prompts:
    """What is asked in training, short and long by turns at random."""
    return Mixture(((SHORT, 1), (long, 1))).questions(640, 3)


def question_sets(size: int, long: Level = LONG) -> dict[str, Prompts]:
    """What is asked when policies are measured: held-out questions, and long ones of the training."""
    seen = Prompts([prompt for prompt in prompts(long) if prompt.data["level"] == long][:size])
    return {
        "short": questions(SHORT, size, 4, held_out=True),
        "long": questions(long, size, 4, held_out=True),
        "long, trained on": seen,
    }


def start(recipe: WarmStart, folder: Path, *, long: Level = LONG) -> Generator[Stage, None, Start]:
    """The model of that recipe (trained where `folder` does not have it yet) with prompts and reward."""
    yield from recipe.make(folder)
    path = recipe.path(folder)
    return Start(path, path.name, prompts(long), right, "right")


def with_half(begun: Start) -> Start:
    """The same start, where every question is asked with half of its solution."""
    hinted = Prompts([with_hint(prompt, 0.5, template=HINT) for prompt in begun.prompts])
    return Start(begun.model, begun.model_name, hinted, begun.reward, begun.reward_name)


# ---- equal budgets -----------------------------------------------------------------------------------


def tokens_drawn(result: ArmResult, *, steps: int | None = None) -> list[float]:
    """Per run, the tokens drawn in its first `steps` steps (all by default)."""
    rows = result.arm.config.prompts * result.arm.config.group_size
    return [
        rows * sum(line["sampled_tokens"] for line in lines if steps is None or line["step"] <= steps)
        for lines in result.metrics
    ]


def scores_at_steps(result: ArmResult, test: str, steps: int) -> Float[np.ndarray, "run prompt"]:
    """The mean score of each question after `steps` steps of each run."""
    return np.stack(
        [measured_at(result, run, test, steps).score.mean(1) for run in range(len(result.measured))]
    )


def measured_at(result: ArmResult, run: int, test: str, steps: int) -> Measured:
    """The answers after `steps` steps of a run. Raises `DataError` where it was not measured there.

    A run that another experiment made is measured on its way with that one's questions only.
    """
    curve = result.measured[run][test]
    if steps not in curve:
        raise DataError(
            f"'{result.arm.label}' was measured on '{test}' after {sorted(curve)} steps, not after {steps}",
            where=str(result.runs[run].path) if result.runs else f"run {run}",
            cure="ask as many questions as when the run was made, or delete it to have it made anew",
        )
    return curve[steps]


def scores_at_tokens(
    result: ArmResult, test: str, budgets: Sequence[float]
) -> Float[np.ndarray, "run prompt"]:
    """The mean score of each question when each run had drawn its budget of tokens.

    Between two measurements on a straight line; those of the first and of the last where the budget lies
    outside of all.
    """
    found = []
    for run, budget in enumerate(budgets):
        curve: dict[int, Measured] = result.measured[run][test]
        at = [tokens_drawn(result, steps=step)[run] for step in curve]
        scores = np.stack([one.score.mean(1) for one in curve.values()])
        found.append([np.interp(budget, at, scores[:, prompt]) for prompt in range(scores.shape[1])])
    return np.array(found)


def share_over(result: ArmResult, name: str, first: int, last: int) -> list[float]:
    """Per run, the mean of a metric of training from step `first` to step `last`."""
    return [
        float(np.mean([line[name] for line in lines if first <= line["step"] <= last]))
        for lines in result.metrics
    ]


def part(name: str, seeds: Sequence[int], metrics: Mapping[str, Sequence[float]]) -> claim.Arm:
    """An arm of a record that is a part of other runs: their first steps, or their first tokens."""
    runs = [
        claim.Run(seed, {metric: float(values[i]) for metric, values in metrics.items()})
        for i, seed in enumerate(seeds)
    ]
    return claim.Arm(name, {}, runs, claim.summarise(runs))

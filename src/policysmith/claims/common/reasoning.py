"""What experiments on reasoning share: a start, what is asked, how it is measured, and the baselines.

    begun = yield from start(folder)
    results = yield from compare([GRPO, ...], begun, seeds=seeds, tests=held_out(), ...)

The model has about 0.35 million weights and reads characters. It has been taught sums until it knows how, and
then by solutions with slips, so that what it draws is right a quarter of the time where its likeliest answer
mostly is: as with large models, there is something to be sharpened. An experiment that takes start, prompts
and baseline from here finds their runs in the cache if another one has made them.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from policysmith.claims.common.arithmetic import (
    Level,
    Mixture,
    careless_examples,
    questions,
    right,
    worked_examples,
)
from policysmith.claims.common.language import Arm, Measuring
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import Stage
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.sampling import Sampling
from policysmith.systems import dapo, dr_grpo, grpo
from policysmith.training.learners.supervised import SupervisedSettings

LEVEL = Level(3, 1)
"""What is learnt and measured: the start gets some of it right, and most questions both right and wrong."""
TAUGHT = Mixture(((Level(2, 1), 2), (Level(3, 1), 2), (Level(4, 1), 1)))
"""What the start was taught, first as it is, then with slips."""
TEACHING = SupervisedSettings(steps=2400, batch_size=16, learning_rate=3e-3, warmup_steps=100)
SLIPPING = SupervisedSettings(steps=300, batch_size=16, learning_rate=1e-3, warmup_steps=20)
SLIPS = 0.35
"""How likely each total is to be wrong in the solutions with slips."""
SIZES: dict[str, Any] = {"width": 96, "layers": 3, "heads": 4, "context": 128}
LIMIT = 32
"""Tokens of an answer; those of the level take some 18."""

MEASURING = Measuring(right, Sampling(limit=LIMIT), copies=8)
"""Eight answers to a question at temperature 1: accuracy is their mean, and pass@8 whether any is right."""

BUDGET: dict[str, Any] = {
    "steps": 60,
    "prompts": 16,
    "group_size": 8,
    "answer_limit": LIMIT,
    "optimizer_steps": 4,
    "learning_rate": 3e-4,
}
"""Of every run: rollouts of 128 answers with four optimiser steps on each."""

GRPO = Arm("GRPO", grpo, grpo.Config(**BUDGET, beta=0.0))
"""As its paper has it but for the divergence: the mean of each answer's tokens."""
DR_GRPO = Arm("Dr. GRPO", dr_grpo, dr_grpo.Config(**BUDGET))
_TOKEN_MEAN: dict[str, Any] = {
    **BUDGET, "overlong_buffer": 0, "filter_agreeing": False, "warmup_steps": 0, "weight_decay": 0.0,
}  # fmt: skip
GRPO_TOKEN_MEAN = Arm("GRPO, token mean", dapo, dapo.Config(**_TOKEN_MEAN, clip_high=0.2))
"""As later papers have their baseline: all tokens alike, one clip on either side."""
CLIP_HIGHER = Arm("clip-higher", dapo, dapo.Config(**_TOKEN_MEAN))
"""DAPO without its filter; the answers are too short for its penalty."""


def knowing() -> WarmStart:
    """The recipe of a model that can do sums."""
    return WarmStart(worked_examples(TAUGHT.questions(20_000, 0)), TEACHING, **SIZES)


def warm_start() -> WarmStart:
    """The recipe of the model that all arms start from: it can, and does not take care."""
    careless = careless_examples(TAUGHT.questions(20_000, 5), SLIPS, 0)
    return WarmStart(careless, SLIPPING, **SIZES, first=knowing())


def prompts() -> Prompts:
    """What is asked in training."""
    return questions(LEVEL, 2000, 1)


def held_out(size: int = 150) -> dict[str, Prompts]:
    """What is asked when policies are measured: questions that nobody has been taught."""
    return {"held out": questions(LEVEL, size, 2, held_out=True)}


def start(folder: Path) -> Generator[Stage, None, Start]:
    """The model (trained where `folder` does not have it yet) with prompts and reward."""
    recipe = warm_start()
    yield from recipe.make(folder)
    path = recipe.path(folder)
    return Start(path, path.name, prompts(), right, "right")

"""TON's claim at small scale: with thoughts made optional, reinforcement keeps them where they are needed.

Two kinds of questions. In the hard ones three numbers are summed, and a small model has to write the running
totals down. In the easy ones everything behind the first number cancels: who thinks writes a long thought,
and who sees it can copy the number.

    hard    7+5-3=          <7+5=12;12-3=9>#9
    easy    7+5-5+3-3=      <7+5=12;12-5=7;7+3=10;10-3=7>#7      or, without a thought,      <\\n\\n>#7

Every arm starts from one small model that always thinks, learns examples with or without dropout, and then
from rewards. What is measured is the length of its answers, how often they are right, and how often the
thought is left out, on easy and on hard questions.

The paper's models see images; this is a twin of its experiments in text.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from policysmith.claims.common.arithmetic import Level, questions, solution
from policysmith.claims.common.language import Arm, ArmResult, Measuring, claim_arm, compare, trained_seconds
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.rng import derive, generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.answers import answer
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import mean_interval, paired_difference
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.thoughts import Layout, skip_ratio, thinking_examples
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.verifiers import after, numeric
from policysmith.systems import ton
from policysmith.training.learners.supervised import SupervisedSettings

LAYOUT = Layout(think=("<", ">"), answer=("#", ""))
right = numeric(after("#"))
"""Whether the number behind the last `#` is the answer."""

EASY, HARD = "easy", "hard"
TAUGHT_EASY = 6000
"""Easy questions that the start is taught."""
SHARE = 4
"""Easy questions for each hard one, in training and when policies are measured."""
TEACHING = SupervisedSettings(steps=2400, batch_size=16, learning_rate=3e-3, warmup_steps=100)
SIZES: dict[str, Any] = {"width": 96, "layers": 3, "heads": 4, "context": 128}
SAMPLING = Sampling(limit=48)
MEASURING = Measuring(right, SAMPLING, copies=4)
"""Four answers to a question at temperature 1."""

BUDGET: dict[str, Any] = {
    "steps": 380,
    "prompts": 16,
    "group_size": 8,
    "answer_limit": 48,
    "learning_rate": 3e-4,
}
"""Of every run: examples first, then rollouts of 128 answers with one optimiser step on each."""
CONFIG = ton.Config(
    **BUDGET,
    imitation_steps=300,
    imitation_batch=16,
    imitation_learning_rate=1e-3,
    imitation_warmup=20,
    think_tags=LAYOUT.think,
    answer_tags=LAYOUT.answer,
)
PLAIN = Arm("GRPO", ton, replace(CONFIG, dropout=0.0))
OURS = Arm("TON", ton, CONFIG)

ACCURACY, TOKENS = "all: accuracy", "all: answer tokens"
GAP = "thoughts left out, easy minus hard"
WITHIN, APART = 0.01, 0.2
"""TON may be so much less often right, and has to skip so much more often where it is easy."""


def hard(size: int, seed: int, *, held_out: bool = False) -> Prompts:
    """Sums of three numbers of one digit."""
    return Prompts(_thinking(str(one.text)) for one in questions(Level(3, 1), size, seed, held_out=held_out))


def easy(size: int, seed: int) -> Prompts:
    """Sums of five, in which the second and third number cancel, and so do the fourth and fifth."""
    rng = generator(seed, "cancelling")
    found = []
    for one in questions(Level(3, 1), size, derive(seed, "easy")):
        first, second, third = (int(term) for term in re.findall(r"[+-]?\d+", str(one.text)))
        signs = (torch.randint(2, (2,), generator=rng) * 2 - 1).tolist()
        pairs = [sign * abs(term) for sign, term in zip(signs, (second, third), strict=True)]
        found.append(_thinking(f"{first}" + "".join(f"{term:+d}{-term:+d}" for term in pairs) + "="))
    return Prompts(found)


def _thinking(question: str) -> Prompt:
    """The question with running totals as its thought."""
    steps, _, result = solution(question).partition(";#")
    return Prompt(question, result, {"thought": steps})


def warm_start() -> WarmStart:
    """The recipe of the model that all arms start from: it always thinks."""
    short = Prompts(_thinking(str(one.text)) for one in questions(Level(2, 1), 6000, 0))
    taught = [*short, *hard(9000, 0), *easy(TAUGHT_EASY, 0)]
    return WarmStart(thinking_examples(Prompts(taught), LAYOUT), TEACHING, **SIZES)


def prompts() -> Prompts:
    """What is asked in training."""
    return Prompts([*easy(240 * SHARE, 1), *hard(240, 1)])


def unseen(size: int) -> dict[str, Prompts]:
    """What is asked when policies are measured, in the same proportion; no arm and no start has seen it."""
    taught = {prompt.text for prompt in [*easy(TAUGHT_EASY, 0), *prompts()]}
    fresh = {prompt.text: prompt for prompt in easy(50 * size, 2) if prompt.text not in taught}
    return {EASY: Prompts(list(fresh.values())[:size]), HARD: hard(math.ceil(size / SHARE), 2, held_out=True)}


def arms(*, ablations: bool) -> list[Arm]:
    """With thoughts dropped, and without; other shares and the other average as ablations."""
    found = [PLAIN, OURS]
    if ablations:
        found += [
            Arm("TON, p 0.2", ton, replace(CONFIG, dropout=0.2)),
            Arm("TON, p 0.8", ton, replace(CONFIG, dropout=0.8)),
            Arm("TON, token mean", ton, replace(CONFIG, average="token")),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 100, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. `evaluate` is in questions."""
    began = time.perf_counter()
    recipe = warm_start()
    yield from recipe.make(folder)
    path = recipe.path(folder)
    begun = Start(path, path.name, prompts(), right, "right")
    tests = unseen(evaluate)
    results = yield from compare(
        arms(ablations=ablations), begun, seeds=seeds, tests=tests, measuring=MEASURING, folder=folder
    )
    skips = {}
    for done, (label, result) in enumerate(results.items()):
        yield Stage("look for thoughts", done, len(results))
        skips[label] = skipping(result, tests)
    return claim.build_claim(
        "ton",
        paper_claim="a model that has seen examples with and without thoughts learns from rewards when to "
        "think: answers become up to 90 % shorter than after GRPO alone, and no worse",
        question=f"easy and hard sums, {SHARE} to one: TON's answers at most half as long as those of GRPO "
        "without thought dropout, at most one point less often right, and thoughts left out on easy sums at "
        "least 20 points more often than on hard ones",
        arms=[record_arm(result, skips[label], seeds) for label, result in results.items()],
        comparisons=comparisons(results, skips),
        seeds=seeds,
        settings={
            "task": "sums of three numbers (hard), and of five that cancel but for the first (easy)",
            "easy_questions": evaluate,
            "answers_to_a_question": MEASURING.copies,
            "start": begun.model_name,
            **{name: getattr(CONFIG, name) for name in BUDGET},
            "steps_on_examples": CONFIG.imitation.steps,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Tokens of an answer at the end, by arm and kind of question."""
    length = {
        f"{arm.name}, {test}": arm.summary[f"{test}: answer tokens"]
        for arm in found.arms
        for test in (EASY, HARD)
    }
    return "Tokens of an answer", bars_with_intervals(length, "tokens")


# ---- the record --------------------------------------------------------------------------------------


def skipping(result: ArmResult, tests: Mapping[str, Prompts]) -> dict[str, list[float]]:
    """Per run, the share of answers without a thought, by test; the answers are those that were measured."""
    found: dict[str, list[float]] = {test: [] for test in tests}
    for run in result.runs:
        policy = run.policy()
        for test, asked in tests.items():
            said = answer(policy, asked, right, sampling=SAMPLING, copies=MEASURING.copies, seed=0)
            texts = [text for one in said.texts for text in one]
            found[test].append(skip_ratio(texts, LAYOUT))
    return found


def record_arm(result: ArmResult, skips: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> claim.Arm:
    """An arm at its end: right, how long and with how many thoughts, by kind of question and together."""
    extra = {f"{test}: thoughts left out": values for test, values in skips.items()}
    extra |= {ACCURACY: mean_of(result, "rate"), TOKENS: mean_of(result, "tokens")}
    extra |= {GAP: [e - h for e, h in zip(skips[EASY], skips[HARD], strict=True)]}
    return claim_arm(result, seeds, tests=(EASY, HARD), extra=extra)


def mean_of(result: ArmResult, what: str) -> list[float]:
    """Per run, the mean over both kinds of questions in their proportion."""
    pairs = zip(result.mean(EASY, what), result.mean(HARD, what), strict=True)
    return [(SHARE * easily + hardly) / (SHARE + 1) for easily, hardly in pairs]


def comparisons(
    results: Mapping[str, ArmResult], skips: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[claim.Comparison]:
    """What the paper claims."""
    ours, plain = results[OURS.label], results[PLAIN.label]
    lengths = zip(mean_of(ours, "tokens"), mean_of(plain, "tokens"), strict=True)
    scores = [np.concatenate([one.scores(EASY), one.scores(HARD)], axis=1) for one in (ours, plain)]
    gaps = zip(skips[OURS.label][EASY], skips[OURS.label][HARD], strict=True)
    none = zip(skips[PLAIN.label][EASY], skips[PLAIN.label][HARD], strict=True)
    apart = [(e - h) - (pe - ph) for (e, h), (pe, ph) in zip(gaps, none, strict=True)]
    return [
        claim.Comparison(
            "at most half as long", OURS.label, PLAIN.label, TOKENS,
            mean_interval([mine - theirs / 2 for mine, theirs in lengths]), 0.0, "not_higher",
        ),
        claim.Comparison(
            "as often right", OURS.label, PLAIN.label, ACCURACY, paired_difference(*scores), WITHIN,
            "not_lower",
        ),
        claim.Comparison(
            "skips where it is easy", OURS.label, PLAIN.label, GAP, mean_interval(apart), APART, "higher",
        ),
    ]  # fmt: skip

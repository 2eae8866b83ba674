"""ExPO's claim at small scale: where all answers fail, own explanations teach and expert solutions do not.

A small model has been taught to work out short sums alone, and to work out sums of any length when the answer
stands beside the question. On long sums it fails alone. From there it is trained on long sums only: by GRPO,
by GRPO with the likelihood of solutions in a style it has never seen, and by GRPO with the likelihood of its
own explanations. Before training, chains of each kind are compared in what makes them good examples: how
likely they are, and how likely they make the answer.

    asked                  5+8-7+2=         5+8=13;13-7=6;6+2=8;#8
    asked to explain       5+8-7+2=8?       5+8=13;13-7=6;6+2=8;#8
    expert                 5+8=13;13+2=15;15-7=8;#8         what is added first, then what is taken away
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.claims.common.arithmetic import MARKER, Level, questions, right
from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measured,
    Measuring,
    claim_arm,
    compare,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.starts import Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.answers import answer
from policysmith.evaluation.chains import Chain, chain_quality
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import mean_interval, paired_difference, success_interval
from policysmith.experience.examples import Example, Examples
from policysmith.experience.explanations import answer_in_view
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.systems import expo_self_explanation as expo
from policysmith.systems import grpo
from policysmith.training.learners.supervised import SupervisedSettings

LEVEL = Level(4, 1)
"""What is trained and measured: the start fails alone, and can explain."""
ALONE = {Level(2, 1): 6000, Level(3, 1): 6000}
"""How many sums of each level the start was taught to work out alone."""
TOLD = {Level(2, 1): 2000, Level(3, 1): 3000, Level(4, 1): 5000, Level(5, 1): 5000}
"""How many it was taught to work out with the answer in view."""
TEACHING = SupervisedSettings(steps=2400, batch_size=16, learning_rate=3e-3, warmup_steps=100)
"""Twice: the rate falls to nothing, and begins again."""
SIZES: dict[str, Any] = {"width": 96, "layers": 3, "heads": 4, "context": 128}
EXPLAIN = "{question}{answer}?"

BUDGET: dict[str, Any] = {
    "steps": 40,
    "prompts": 16,
    "group_size": 8,
    "answer_limit": 40,
    "optimizer_steps": 2,
    "learning_rate": 3e-4,
}
"""Of every run: rollouts of 128 answers with two optimiser steps on each."""
SAMPLING = Sampling(limit=40)
MEASURING = Measuring(right, SAMPLING, copies=4, every=0)
"""Four answers to a question at temperature 1, without the answer in view."""

EXPLAINING = expo.Config(**BUDGET, kl=0.0, explanation=EXPLAIN, closing="", only_right=True)
GRPO = Arm("GRPO", grpo, grpo.Config(**BUDGET, beta=0.0))
OURS = Arm("ExP-GRPO", expo, EXPLAINING)
EXPERT = Arm("GRPO + expert solutions", expo, replace(EXPLAINING, chains="solution"))
STRONG = Arm("ExP-GRPO, beta 0.5", expo, replace(EXPLAINING, beta=0.5))
START, EXPLANATIONS, EXPERTS, OWN = "start", "its explanations", "expert solutions", "its own wrong answers"

TEST = "long sums"
ACCURACY, SURPRISE, LEADS = f"{TEST}: accuracy", "nats per token", "log-probability of the answer behind it"
BETTER, WITHIN = 0.05, 0.03
"""ExP-GRPO has to be so much better than the others, and GRPO may be so much better than the start."""


def arms(*, ablations: bool) -> list[Arm]:
    """Baselines first."""
    found = [GRPO, EXPERT, OURS, STRONG]
    if ablations:
        found += [
            Arm("ExP-GRPO, where it fails", expo, replace(EXPLAINING, only_failed=True)),
            Arm("ExP-GRPO, wrong ones too", expo, replace(EXPLAINING, only_right=False)),
            Arm("ExP-DPO", expo, replace(EXPLAINING, variant="dpo", round_steps=20)),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 100, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished training runs are taken from `folder`. `evaluate` is in questions."""
    began = time.perf_counter()
    recipe = warm_start()
    policy = yield from recipe.make(folder)
    path = recipe.path(folder)
    begun = Start(path, path.name, prompts(), right, "right")
    tests = {TEST: questions(LEVEL, evaluate, 4, held_out=True)}
    before = measured_start(begun, tests, MEASURING)[TEST]
    qualities = []
    for seed in seeds:
        yield Stage(f"compare chains, seed {seed}", len(qualities), len(seeds))
        qualities.append(chain_qualities(policy, prompts()[:evaluate], seed))
    results = yield from compare(
        arms(ablations=ablations), begun, seeds=seeds, tests=tests, measuring=MEASURING, folder=folder
    )
    return claim.build_claim(
        "expo-self-explanation",
        paper_claim="where all answers fail, the model's own explanations of the right answer are examples "
        "it learns from; solutions by experts are too unlikely under it, and GRPO alone has nothing to go by",
        question=f"sums of {LEVEL}: explanations likelier than expert solutions, and the answer likelier "
        f"behind them than behind own wrong answers; GRPO within {100 * WITHIN:.0f} points of its start; "
        f"ExP-GRPO at least {100 * BETTER:.0f} points above it and above GRPO with expert solutions; a beta "
        "of 0.5 worse than 0.04",
        arms=[
            start_arm(before, seeds),
            *(quality_arm(name, qualities, seeds) for name in (EXPLANATIONS, EXPERTS, OWN)),
            *(trained_arm(result, seeds) for result in results.values()),
        ],
        comparisons=comparisons(results, before, qualities),
        seeds=seeds,
        settings={
            "task": f"sums of {LEVEL}, worked out step by step",
            "questions": evaluate,
            "answers_to_a_question": MEASURING.copies,
            "taught_alone": {str(level): count for level, count in ALONE.items()},
            "taught_with_the_answer_in_view": {str(level): count for level, count in TOLD.items()},
            "start": begun.model_name,
            **BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """Accuracy on long sums at the end."""
    accuracy = {arm.name: arm.summary[ACCURACY] for arm in found.arms if ACCURACY in arm.summary}
    return "Accuracy on long sums, asked without the answer", bars_with_intervals(accuracy, "accuracy")


# ---- the task ----------------------------------------------------------------------------------------


def warm_start() -> WarmStart:
    """The recipe of the model that all arms start from."""
    ask = answer_in_view(EXPLAIN)
    alone = [prompt for level, count in ALONE.items() for prompt in questions(level, count, 0)]
    told = [prompt for level, count in TOLD.items() for prompt in questions(level, count, 0)]
    examples = [
        *(Example(str(prompt.text), prompt.data["solution"]) for prompt in alone),
        *(Example(str(ask(prompt).text), prompt.data["solution"]) for prompt in told),
    ]
    first = WarmStart(Examples(examples), TEACHING, **SIZES)
    return WarmStart(first.examples, TEACHING, first=first, **SIZES)


def prompts() -> Prompts:
    """What is asked in training, with expert solutions."""
    return Prompts(
        Prompt(one.text, one.answer, {"solution": expert_solution(str(one.text))})
        for one in questions(LEVEL, 640, 3)
    )


def expert_solution(question: str) -> str:
    """What is added summed up first, then what is taken away, then one from the other."""
    terms = [int(term) for term in re.findall(r"[+-]?\d+", question)]
    gains, gained = _summed_up([term for term in terms if term >= 0])
    losses, lost = _summed_up([-term for term in terms if term < 0])
    steps = [*gains, *losses, f"{gained}-{lost}={gained - lost}"]
    return ";".join(steps) + f";{MARKER}{gained - lost}"


def _summed_up(numbers: Sequence[int]) -> tuple[list[str], int]:
    steps, total = [], numbers[0] if numbers else 0
    for number in numbers[1:]:
        steps.append(f"{total}+{number}={total + number}")
        total += number
    return steps, total


# ---- chains before training --------------------------------------------------------------------------

Means = Mapping[str, Mapping[str, float]]
"""By kind of chain, the means of its two properties."""


def chain_qualities(policy: LanguagePolicy, asked: Prompts, seed: int) -> Means:
    """Both properties of each kind of chain, means over the questions for which there is one of each kind.

    Of four explanations of a question the first that ends in its answer, and of four own answers the first
    that is wrong: both are what training sees.
    """
    ask = answer_in_view(EXPLAIN)
    told = answer(policy, Prompts(map(ask, asked)), right, sampling=SAMPLING, copies=4, seed=seed)
    alone = answer(policy, asked, right, sampling=SAMPLING, copies=4, seed=seed)
    chains: dict[str, list[Chain]] = {EXPLANATIONS: [], EXPERTS: [], OWN: []}
    for row, prompt in enumerate(asked):
        texts = {
            EXPLANATIONS: _first(told.texts[row], told.score[row] > 0),
            EXPERTS: prompt.data["solution"],
            OWN: _first(alone.texts[row], alone.score[row] <= 0),
        }
        cut = {kind: text.partition(MARKER) for kind, text in texts.items()}
        if all(begin and marker for begin, marker, _ in cut.values()):
            for kind, (begin, marker, _) in cut.items():
                chains[kind].append(Chain(prompt, begin + marker, str(prompt.answer)))
    found = {kind: chain_quality(policy, rows) for kind, rows in chains.items()}
    return {
        kind: {SURPRISE: float(one.surprise.mean()), LEADS: float(one.answer_log_prob.mean())}
        for kind, one in found.items()
    }


def _first(texts: Sequence[str], wanted: np.ndarray) -> str:
    """The first text that is wanted; empty where none is."""
    return next((text for text, good in zip(texts, wanted, strict=True) if good), "")


# ---- the record --------------------------------------------------------------------------------------


def start_arm(before: Measured, seeds: Sequence[int]) -> claim.Arm:
    """The model before training."""
    metrics = {ACCURACY: before.numbers["rate"], f"{TEST}: pass@4": before.numbers["pass"]}
    summary = claim.summarise([claim.Run(seeds[0], metrics)])
    summary[ACCURACY] = success_interval(before.score.T)
    return claim.Arm(START, {}, [claim.Run(seeds[0], metrics)], summary)


def quality_arm(kind: str, qualities: Sequence[Means], seeds: Sequence[int]) -> claim.Arm:
    """What chains of a kind are like."""
    runs = [claim.Run(seed, one[kind]) for seed, one in zip(seeds, qualities, strict=True)]
    return claim.Arm(kind, {}, runs, claim.summarise(runs))


def trained_arm(result: ArmResult, seeds: Sequence[int]) -> claim.Arm:
    """An arm at its end, with what its explanations were like over the last steps."""
    logs = {
        "explanations that are right": "explanation/right",
        "tokens of an explanation": "explanation/answer_tokens",
    }
    extra = {
        name: result.final(metric)
        for name, metric in logs.items()
        if all(values for _, values in result.logged(metric))
    }
    return claim_arm(result, seeds, tests=[TEST], extra=extra)


def comparisons(
    results: Mapping[str, ArmResult], before: Measured, qualities: Sequence[Means]
) -> list[claim.Comparison]:
    """What the paper claims."""

    def of_chains(name: str, baseline: str, metric: str, direction: Any) -> claim.Comparison:
        gaps = [one[EXPLANATIONS][metric] - one[baseline][metric] for one in qualities]
        return claim.Comparison(name, EXPLANATIONS, baseline, metric, mean_interval(gaps), 0.0, direction)

    def of_arms(name: str, arm: Arm, baseline: Arm, margin: float) -> claim.Comparison:
        gap = difference(results[arm.label], results[baseline.label], TEST)
        return claim.Comparison(name, arm.label, baseline.label, ACCURACY, gap, margin, "higher")

    plain = results[GRPO.label].scores(TEST)
    still = paired_difference(plain, np.broadcast_to(before.score.mean(1), plain.shape))
    return [
        of_chains("explanations are likelier", EXPERTS, SURPRISE, "lower"),
        of_chains("they lead to the answer", OWN, LEADS, "higher"),
        claim.Comparison("GRPO stays at its start", GRPO.label, START, ACCURACY, still, WITHIN, "not_higher"),
        of_arms("better than GRPO", OURS, GRPO, BETTER),
        of_arms("better than with expert solutions", OURS, EXPERT, BETTER),
        of_arms("better than with a large beta", OURS, STRONG, 0.0),
    ]

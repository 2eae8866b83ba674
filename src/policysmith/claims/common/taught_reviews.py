"""Reviews in rounds beside a teacher's: pairs by points from 0 to 6, and who wins by them in the end.

The teacher's reviews are of a better grammar than those that the start was shown. Points (`reviews.points`)
rank the policy's answers and the teacher's; the arms differ in which pairs of them are learnt, or imitate
the better ones. All have the same prompts and as many steps. Of two reviews the one with more points wins,
and a tie is half a win.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from policysmith.claims.common import imitated
from policysmith.claims.common.language import Arm, ArmResult, by_seed, measured_start
from policysmith.claims.common.measurements import beats
from policysmith.claims.common.review_language import read_record
from policysmith.claims.common.review_learning import (
    HELD_OUT,
    KL,
    TOKENS,
    Begun,
    begun,
    held_out,
    measuring,
)
from policysmith.claims.common.review_writing import write
from policysmith.claims.common.reviews import points, prompts
from policysmith.claims.common.rlhf import ANSWER_LIMIT, Lists
from policysmith.claims.common.starts import Shown
from policysmith.common.config import config_to_json
from policysmith.common.rng import numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.systems import dno

SEEDS, ROUNDS, PROMPTS, SAMPLES = 3, 3, 300, 5
"""Runs; rounds, prompts of each that no other has, and the policy's answers to a prompt."""
ROUND_STEPS, COPIES, QUALITY = 40, 2, 0.7
"""Steps of a round; answers to a held-out prompt; and how good the worst of the teacher's reviews are."""
BUDGET = dno.Config(
    prompts=PROMPTS, group_size=SAMPLES, answer_limit=ANSWER_LIMIT, temperature=1.0, top_p=1.0,
    steps=ROUNDS * ROUND_STEPS, round_steps=ROUND_STEPS, batch_size=32, learning_rate=3e-4, warmup_steps=10,
    eta=0.1,
)  # fmt: skip
"""Points, floor, margins and shares of earlier rounds are the paper's."""
IMITATION = imitated.Config(
    steps=BUDGET.steps, batch_size=2 * BUDGET.batch_size, learning_rate=BUDGET.learning_rate, warmup_steps=10
)
DNO, RESTRICTIVE, SPIN, OFFLINE, IMITATED, UNFILTERED, FIXED, START, TEACHER = (
    f"reviews: {name}"
    for name in (
        "DNO", "DNO-Restrictive", "SPIN", "offline DPO", "SFT on positives", "DNO, no margins",
        "DNO, fixed reference", "start", "teacher",
    )
)  # fmt: skip
POINTS, OVER_TEACHER, OVER_BEFORE = "points", "wins against the teacher", "wins against the round before"
KINDS = {
    "pairs/teacher_wins": "pairs, teacher over own",
    "pairs/student_wins": "pairs, own over teacher",
    "pairs/among_students": "pairs, own over own",
}

Scores = Float[np.ndarray, "prompt copy"]
"""The points of answers to held-out prompts."""


def arms(start: Begun, taught: Prompts, positives: Examples, *, ablations: bool) -> list[Arm]:
    """The ways to learn beside the teacher; with `ablations` DNO without two of its parts."""
    asked = start.asked(taught, points, "points")

    def arm(label: str, **settings: Any) -> Arm:
        return Arm(label, dno, replace(BUDGET, **settings), asked)

    found = [
        Arm(IMITATED, imitated, IMITATION, Shown(start.folder, start.name, positives)),
        arm(OFFLINE, prompts=ROUNDS * BUDGET.prompts, round_steps=BUDGET.steps),
        arm(SPIN, variant="spin"),
        arm(RESTRICTIVE, variant="restrictive"),
        arm(DNO),
    ]
    if ablations:
        found += [
            arm(UNFILTERED, floor=BUDGET.lowest, margin_teacher=0.0, margin_student=0.0),
            arm(FIXED, reference="start"),
        ]
    return found


def learnt(
    seeds: Sequence[int], folder: Path, evaluate: int, *, ablations: bool
) -> Generator[Stage, None, Learnt]:
    """Every arm for each seed, on prompts and with a teacher of its own."""
    start = yield from begun(folder)

    def own(seed: int) -> Generator[Stage, None, list[Arm]]:
        lists = yield from _lists(start, seed).make(folder)
        taught = with_teacher(unlike(_asked(seed)), seed)
        said = {str(row.prompt.text): row.answers for row in lists}
        return arms(start, taught, positives_of(taught, said), ablations=ablations)

    how, tests = replace(measuring(start, copies=COPIES, every=ROUND_STEPS), right=points), held_out(evaluate)
    results = yield from by_seed(
        own,
        start=start.asked(tests[HELD_OUT], points, "points"),
        seeds=seeds,
        tests=tests,
        measuring=how,
        folder=folder,
    )
    before = measured_start(start.asked(tests[HELD_OUT], points, "points"), tests, how)[HELD_OUT]
    return Learnt(results, before.score, teacher_scores(tests[HELD_OUT]))


@dataclass(frozen=True)
class Learnt:
    """What arms came to, the points of the start and those of the teacher."""

    results: Mapping[str, ArmResult]
    start: Scores
    teacher: Scores

    def rounds(self, label: str) -> list[list[Scores]]:
        """For each run the points before the first round, and behind each."""
        return [
            [self.start, *(at.score for at in one[HELD_OUT].values())] for one in self.results[label].measured
        ]

    def over_teacher(self, label: str) -> Float[np.ndarray, "run prompt"]:
        """How often the last policy wins against the teacher."""
        return np.stack([beats(run[-1], self.teacher) for run in self.rounds(label)])

    def over_before(self, label: str, number: int) -> Float[np.ndarray, "run prompt"]:
        """How often the policy behind a round, counted from 1, wins against the one before it."""
        return np.stack([beats(run[number], run[number - 1]) for run in self.rounds(label)])


# ---- prompts, the teacher, positives -----------------------------------------------------------------


def with_teacher(asked: Prompts, seed: int) -> Prompts:
    """The prompts, the teacher's review being their answer."""
    rng = numpy_generator(seed, "teacher")
    return Prompts(Prompt(prompt.text, _taught(prompt, rng)) for prompt in asked)


def teacher_scores(asked: Prompts) -> Scores:
    """The points of the teacher's reviews, as many for each prompt as a policy writes."""
    rng = numpy_generator(0, "teacher, held out")
    return np.array([[points(_taught(prompt, rng), prompt) for _ in range(COPIES)] for prompt in asked])


def positives_of(taught: Prompts, said: Mapping[str, Sequence[str]]) -> Examples:
    """What was `said` to each prompt, and by the teacher, that may be the better one of a pair."""
    return Examples(
        Example(str(prompt.text), text)
        for prompt in taught
        for text in dict.fromkeys([str(prompt.answer), *said.get(str(prompt.text), ())])
        if points(text, prompt) >= BUDGET.floor
    )


def unlike(asked: Prompts) -> Prompts:
    """The first of them that are all different, as many as all rounds ask for."""
    different = {str(prompt.text): prompt for prompt in asked}
    return Prompts(list(different.values())[: ROUNDS * BUDGET.prompts])


def _lists(start: Begun, seed: int) -> Lists:
    return Lists(start.recipe, len(_asked(seed)), BUDGET.group_size, seed)


def _asked(seed: int) -> Prompts:
    """Those that `Lists` asks, some more than are needed, as records may come twice."""
    return prompts(ROUNDS * BUDGET.prompts * 6 // 5, 11 + seed)


def _taught(prompt: Prompt, rng: np.random.Generator) -> str:
    return write(read_record(str(prompt.text)), rng, quality=rng.uniform(QUALITY, 1))


# ---- the record --------------------------------------------------------------------------------------


def in_round(what: str, number: int) -> str:
    """What a metric is called that each round has."""
    return f"{what}, round {number}"


def taught_arms(found: Learnt, seeds: Sequence[int]) -> list[claim.Arm]:
    """Start, teacher and every arm: points and wins in the end and by round, and which pairs were learnt."""
    fixed = {
        START: {
            POINTS: float(found.start.mean()),
            OVER_TEACHER: float(beats(found.start, found.teacher).mean()),
        },
        TEACHER: {POINTS: float(found.teacher.mean())},
    }
    parts = []
    for name, metrics in fixed.items():
        runs = [claim.Run(seed, metrics) for seed in seeds]
        parts.append(claim.Arm(name, {}, runs, claim.summarise(runs)))
    for label, result in found.results.items():
        runs = [claim.Run(seed, _metrics(found, label, run)) for run, seed in enumerate(seeds)]
        parts.append(claim.Arm(label, config_to_json(result.arm.config), runs, claim.summarise(runs)))
    return parts


def _metrics(found: Learnt, label: str, run: int) -> dict[str, float]:
    result, rounds = found.results[label], found.rounds(label)[run]
    metrics = {
        POINTS: float(rounds[-1].mean()),
        OVER_TEACHER: float(beats(rounds[-1], found.teacher).mean()),
        KL: result.mean(HELD_OUT, KL)[run],
        TOKENS: result.mean(HELD_OUT, "tokens")[run],
    }
    for number, at in enumerate(result.measured[run][HELD_OUT].values(), 1):
        metrics |= {
            in_round(POINTS, number): float(at.score.mean()),
            in_round(OVER_TEACHER, number): float(beats(at.score, found.teacher).mean()),
            in_round(OVER_BEFORE, number): float(beats(at.score, rounds[number - 1]).mean()),
            in_round(TOKENS, number): at.numbers["tokens"],
        }
    for name, kind in KINDS.items():
        _, counts = result.logged(name)[run]
        metrics |= {in_round(kind, number): count for number, count in enumerate(counts, 1)}
    return metrics

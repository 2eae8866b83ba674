"""Anyprefer's claim at small scale: a judge with tools and feedback makes truer pairs, and better policies.

A small model that was shown wrong answers too is asked sums and made-up facts. Pairs of its answers are made
in several ways, as many of them each time, and the model learns each set by the same DPO. What is true is
known, so that the pairs can be counted: a pair is true where its better answer is right and its worse one
wrong. Feedback may change the letter that says how to answer, or one weight of the judge's rubric.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from policysmith.claims.common import tooled
from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    Measuring,
    by_seed,
    claim_arm,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.claims.common.starts import Compared, Start
from policysmith.claims.common.tooled import FACTS, GUESS, PLAIN, RUBRIC, SHORT, STEPS, SUMS, right
from policysmith.common.config import config_to_json
from policysmith.common.saving import load_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim, plots
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.statistics import mean_interval
from policysmith.experience.preferences import Preferences, preferences_from_dataset
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.synthesis.feedback import edits
from policysmith.synthesis.judging import own_likelihood
from policysmith.synthesis.players import Assess, Instructions, Players
from policysmith.systems import anyprefer, dpo

SELF, JUDGE, TOOLS, FEEDBACK, FULL = "self-rewarding", "judge", "judge, tools", "judge, feedback", "Anyprefer"
TWICE, ORACLE, BASE = "Anyprefer, 2 rounds", "true labels", "base"
LITTLE = 0.03
"""So much accuracy more than the base is little."""
PAIRS, DPO_STEPS, PROMPTS = 800, 200, 4000
TRUE, TURNED = "true pairs", "pairs the wrong way round"
KEPT, CALLS, REVISED = "pairs per prompt", "tool calls per pair", "revisions kept"
GAME = anyprefer.Config(
    prompts=PROMPTS, answer_limit=tooled.LIMIT, at_a_time=32, system=PLAIN, steps=DPO_STEPS
)
LEARNING: dict[str, Any] = {
    "batch_size": 32, "learning_rate": 1e-4, "warmup_steps": 10, "weight_decay": 0.01, "beta": 0.1,
    "system": PLAIN,
}  # fmt: skip
VERSION = 1
"""Raised by whoever changes what the same way of making pairs makes."""


@dataclass(frozen=True)
class Way:
    """A way of making pairs: with tools, with feedback, by what judge."""

    label: str
    tools: bool = False
    feedback: bool = False
    by: str = "judge"

    def players(self, policy: LanguagePolicy, judge: Assess, truth: dict[str, str]) -> Players:
        """The players, for pairs of the policy's answers."""
        if self.by == "itself":
            return Players(own_likelihood(policy, system=PLAIN), reward=lambda pair: (1.0, ""))
        if self.by == "truth":

            def oracle(prompt: Prompt, candidates: Sequence[str], knowledge: Any, rubric: Any) -> list[float]:
                return [10 * right(text, Prompt("", truth[str(prompt.text)])) for text in candidates]

            return Players(oracle)
        return Players(
            judge,
            rubric=RUBRIC,
            tools=tooled.tools() if self.tools else {},
            revise=edits(neighbours) if self.feedback else None,
        )


WAYS = (
    Way(SELF, by="itself"),
    Way(JUDGE),
    Way(TOOLS, tools=True),
    Way(FEEDBACK, feedback=True),
    Way(FULL, tools=True, feedback=True),
    Way(ORACLE, by="truth"),
)


def neighbours(now: Instructions) -> list[Instructions]:
    """Another letter for the target, or one weight of the rubric a step up or down."""
    letters = [Instructions(letter, now.judge) for letter in (PLAIN, STEPS, SHORT, GUESS)]
    weights = [
        Instructions(now.target, {**now.judge, name: value + step})
        for name, value in now.judge.items()
        for step in (-0.5, 0.5)
        if value + step >= 0
    ]
    return letters + weights


@dataclass(frozen=True)
class Made:
    """Pairs that were made in some way, and what was counted while they were."""

    pairs: Preferences
    numbers: dict[str, float]


def made(
    way: Way, policy: LanguagePolicy, called: str, judge: Assess, *, count: int, seed: int, folder: Path
) -> Generator[Stage, None, Made]:
    """The first `count` pairs of the policy (`called` so), made where they are not in `folder` yet."""
    determined = [VERSION, way.label, called, count, seed, config_to_json(GAME), RUBRIC]
    key = hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "anyprefer-pairs" / f"{key}.jsonl"
    if not path.is_file():
        prompts = tooled.mixed(PROMPTS, 100 + seed)
        truth = {str(one.text): str(one.answer) for one in prompts}
        players = way.players(policy, judge, truth)
        began = time.perf_counter()
        last = None
        for last in anyprefer.synthesise(policy, prompts, players, config=GAME, seed=seed):
            yield Stage(f"{way.label}, seed {seed}", min(count, int(last.metrics["pairs"])), count)
            if last.metrics["pairs"] >= count:
                break
        assert last is not None
        pairs = anyprefer.pairs_of(last.state.sources["game"])[:count]  # type: ignore[arg-type]
        pairs.provenance["numbers"] = numbers(pairs, last.metrics, truth)
        pairs.provenance["seconds"] = time.perf_counter() - began
        pairs.save(path)
    kept = load_json(path.with_suffix(".provenance.json"))
    return Made(preferences_from_dataset(str(path)), kept["numbers"])


def numbers(pairs: Preferences, metrics: dict[str, float], truth: dict[str, str]) -> dict[str, float]:
    """How many of the pairs are true, and what they took."""
    said = [[right(text, Prompt("", truth[str(one.prompt.text)])) for text in one.answers] for one in pairs]
    return {
        TRUE: sum(marks == [1.0, 0.0] for marks in said) / len(said),
        TURNED: sum(marks == [0.0, 1.0] for marks in said) / len(said),
        KEPT: metrics["kept"],
        CALLS: metrics["tool_calls"] / metrics["pairs"],
        REVISED: metrics["revised"],
    }


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 500, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out questions of each task; what is finished is in `folder`."""
    began = time.perf_counter()
    policy = yield from tooled.start().make(folder)
    judge = yield from tooled.judge(folder)
    path = tooled.start().path(folder)
    counted: dict[str, list[dict[str, float]]] = {}

    def arms(seed: int) -> Generator[Stage, None, list[Arm]]:
        found = []
        for way in WAYS:
            one = yield from made(way, policy, path.name, judge, count=PAIRS, seed=seed, folder=folder)
            counted.setdefault(way.label, []).append(one.numbers)
            found.append(_learning(way.label, path, path.name, one.pairs, DPO_STEPS))
        again, one = yield from second_round(path, policy, judge, seed=seed, folder=folder)
        counted.setdefault(TWICE, []).append(one.numbers)
        return [*found, again]

    tests = held_out(evaluate)
    measuring = Measuring(right, tooled.SAMPLING)
    begun = Start(path, path.name, tests[SUMS], right, "right")
    results = yield from by_seed(
        arms,
        start=begun,
        seeds=seeds,
        tests=tests,
        measuring=measuring,
        folder=folder,
    )
    before = measured_start(begun, tests, measuring)
    base = {f"{name}: accuracy": one.numbers["rate"] for name, one in before.items()}
    return claim.build_claim(
        "anyprefer",
        paper_claim="a judge with tools, and feedback on poor pairs, make pairs that improve a model more "
        "than what it finds of its own answers; without tools or feedback less",
        question="true pairs: judge, then with tools, then with feedback too; accuracy after the same DPO on "
        "as many pairs: above self-rewarding, which brings little",
        arms=[
            _base(base, seeds),
            *(_arm(result, counted[name], seeds) for name, result in results.items()),
        ],
        comparisons=comparisons(results, counted, base),
        seeds=seeds,
        settings={
            "task": "sums of three digits, and 400 facts; 30 % of the demonstrations wrong",
            "pairs": PAIRS, "dpo_steps": DPO_STEPS, "questions": evaluate, "start": base,
            "rubric": RUBRIC, "game": config_to_json(GAME), **LEARNING,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )  # fmt: skip


def second_round(
    path: Path, policy: LanguagePolicy, judge: Assess, *, seed: int, folder: Path
) -> Generator[Stage, None, tuple[Arm, Made]]:
    """Half the pairs and steps, and with the policy that came of it the other half."""
    full = next(way for way in WAYS if way.label == FULL)
    half, steps = PAIRS // 2, DPO_STEPS // 2
    first = yield from made(full, policy, path.name, judge, count=half, seed=seed, folder=folder)
    arm = _learning(FULL, path, path.name, first.pairs, steps)
    assert arm.start is not None
    run = CachedRun(arm.module, arm.start.inputs, arm.start.fingerprint, arm.config, seed, folder)
    for now in run.train(checkpoint_every=1000, log_every=1):
        yield Stage(f"{TWICE}, first round, seed {seed}", now.step, now.total)
    learnt = run.policy().requires_grad_(False)
    second = yield from made(full, learnt, run.path.name, judge, count=half, seed=seed + 50, folder=folder)
    both = {name: (first.numbers[name] + second.numbers[name]) / 2 for name in first.numbers}
    return (
        _learning(TWICE, run.path / "policy", run.path.name, second.pairs, steps),
        replace(second, numbers=both),
    )


def held_out(count: int) -> dict[str, Prompts]:
    """Sums that nobody was taught, and facts that no pair was about; asked plainly."""
    return {task: tooled.behind(PLAIN, tooled.asked(task, count, 2, held_out=True)) for task in (SUMS, FACTS)}


def comparisons(
    results: dict[str, ArmResult], counted: dict[str, list[dict[str, float]]], base: dict[str, float]
) -> list[claim.Comparison]:
    """What the claim says, part by part."""

    def truer(name: str, arm: str, baseline: str) -> claim.Comparison:
        pairs = zip(counted[arm], counted[baseline], strict=True)
        apart = mean_interval([a[TRUE] - b[TRUE] for a, b in pairs])
        return claim.Comparison(name, arm, baseline, TRUE, apart, 0.0, "higher")

    found = [
        truer("tools make truer pairs", TOOLS, JUDGE),
        truer("feedback makes truer pairs still", FULL, TOOLS),
    ]
    for task in (SUMS, FACTS):
        metric = f"{task}: accuracy"
        apart = difference(results[FULL], results[SELF], task)
        above = f"above self-rewarding, {task}"
        found.append(claim.Comparison(above, FULL, SELF, metric, apart, 0.0, "higher"))
        gained = mean_interval([rate - base[metric] for rate in results[SELF].mean(task, "rate")])
        little = f"self-rewarding brings little, {task}"
        found.append(claim.Comparison(little, SELF, BASE, metric, gained, LITTLE, "not_higher"))
    return found


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """How many of the pairs are true."""
    bars = {arm.name: arm.summary[TRUE] for arm in found.arms if TRUE in arm.summary}
    return "Pairs with a right answer above a wrong one", plots.bars_with_intervals(
        bars, "share of the pairs"
    )


def _base(base: dict[str, float], seeds: Sequence[int]) -> claim.Arm:
    runs = [claim.Run(seed, base) for seed in seeds]
    return claim.Arm(BASE, {}, runs, claim.summarise(runs))


def _learning(label: str, folder: Path, called: str, pairs: Preferences, steps: int) -> Arm:
    return Arm(label, dpo, dpo.Config(**LEARNING, steps=steps), Compared(folder, called, pairs))


def _arm(result: ArmResult, counted: list[dict[str, float]], seeds: Sequence[int]) -> claim.Arm:
    extra = {name: [one[name] for one in counted] for name in counted[0]}
    return claim_arm(result, seeds, tests=[SUMS, FACTS], extra=extra)

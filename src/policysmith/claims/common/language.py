"""Language experiments: arms side by side from one model, on the same prompts, seeds and questions.

    results = yield from compare(arms, start, seeds=(0, 1, 2), tests={"held out": questions}, folder=folder)
    difference(results["NFT"], results["RFT"], "held out")       paired over seeds and questions

Every arm starts from the same weights. Runs are kept and found again by what determines them (system,
settings, seed, model, prompts, reward), so that experiments share their baselines; so are the answers that a
trained policy was measured by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from policysmith.claims.common.measurements import Measurement, beats
from policysmith.claims.common.starts import Beginning
from policysmith.common.config import config_to_json
from policysmith.common.saving import load_json, save_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.answers import Answers, answer
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import training_seconds
from policysmith.evaluation.statistics import Interval, paired_difference, success_interval
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.verifiers import Verifier


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a system with its settings; `start` where it is not the others'."""

    label: str
    module: ModuleType
    config: Any
    start: Beginning | None = None


@dataclass(frozen=True)
class Measuring:
    """How policies are measured: `copies` answers to each question, and what is right."""

    right: Verifier
    sampling: Sampling
    copies: int = 1
    every: int = 0
    """also after every so many steps of training, for a curve; 0 for the end alone"""
    further: Mapping[str, Measurement] = field(default_factory=dict)
    """what else is measured of the same answers, by its name in `numbers`; see `measurements`"""


@dataclass
class ArmResult:
    """What an arm came to: for each run its metrics, its seconds, and by test and step its answers."""

    arm: Arm
    metrics: list[list[dict[str, float]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    measured: list[dict[str, dict[int, Measured]]] = field(default_factory=list)
    runs: list[CachedRun] = field(default_factory=list)

    def answers(self, test: str) -> Float[np.ndarray, "run prompt copy"]:
        """The score of each answer at the end of each run."""
        return np.stack([_last(one[test]).score for one in self.measured])

    def scores(self, test: str) -> Float[np.ndarray, "run prompt"]:
        """The mean score of each question at the end of each run."""
        return self.answers(test).mean(2)

    def mean(self, test: str, what: str) -> list[float]:
        """Per run, `what` of the answers at its end: rate, pass, tokens, finished, entropy, a further one."""
        return [_last(one[test]).numbers[what] for one in self.measured]

    def curve(self, test: str, what: str = "rate") -> list[tuple[list[float], list[float]]]:
        """Per run, steps and `what` of the answers there."""
        return [
            ([float(step) for step in one[test]], [at.numbers[what] for at in one[test].values()])
            for one in self.measured
        ]

    def logged(self, name: str) -> list[tuple[list[float], list[float]]]:
        """Per run, steps and the metric `name` of training."""
        return [
            ([line["step"] for line in lines if name in line], [line[name] for line in lines if name in line])
            for lines in self.metrics
        ]

    def final(self, name: str, *, last: int = 5) -> list[float]:
        """Per run, the mean of the metric `name` over its `last` logged steps."""
        return [float(np.mean(values[-last:])) for _, values in self.logged(name)]


@dataclass(frozen=True)
class Measured:
    """Answers boiled down: the score of each [prompt, copy], and a few means."""

    score: Float[np.ndarray, "prompt copy"]
    numbers: dict[str, float]

    @classmethod
    def of(cls, found: Answers) -> Measured:
        """What is kept of `found`: `pass` is at as many answers as there are."""
        copies = found.score.shape[1]
        numbers = {
            "rate": float(found.score.mean()),
            "pass": found.pass_at(copies),
            "tokens": float(found.tokens.mean()),
            "finished": float(found.finished.mean()),
            "entropy": found.entropy,
        }
        return cls(found.score, numbers)


def compare(
    arms: Sequence[Arm],
    start: Beginning,
    *,
    seeds: Sequence[int],
    tests: Mapping[str, Prompts],
    measuring: Measuring,
    folder: Path,
    checkpoint_every: int = 50,
) -> Generator[Stage, None, dict[str, ArmResult]]:
    """Train each arm for each seed (or take it from `folder`), and measure it on every set of questions."""
    results = {arm.label: ArmResult(arm) for arm in arms}
    for seed in seeds:
        for arm in arms:
            begun = arm.start or start
            run = CachedRun(
                arm.module, begun.inputs, begun.fingerprint, arm.config, seed, folder, begun.options
            )
            label = f"{arm.label}, seed {seed}"
            for now in run.train(checkpoint_every=checkpoint_every, log_every=1):
                yield Stage(f"train {label}", now.step, now.total, now.metrics.get("reward"))
                if measuring.every and now.step % measuring.every == 0 and now.step < now.total:
                    _measure(run, now.state.policy(), tests, measuring, now.step)
            yield Stage(f"measure {label}", 0, 1)
            policy = run.policy() if _lacking(run, tests, measuring, -1) else None
            result = results[arm.label]
            _measure(run, policy, tests, measuring, -1)
            result.measured.append(_all_measured(run, tests, measuring))
            result.metrics.append(run.directory.metrics())
            result.seconds.append(training_seconds(run))
            result.runs.append(run)
    return results


def add_runs(results: dict[str, ArmResult], found: Mapping[str, ArmResult]) -> None:
    """Put the runs of `found` behind those of the same arms, where each seed has data of its own."""
    for label, result in found.items():
        whole = results.setdefault(label, ArmResult(result.arm))
        whole.metrics += result.metrics
        whole.seconds += result.seconds
        whole.measured += result.measured
        whole.runs += result.runs


def by_seed(
    arms: Callable[[int], Generator[Stage, None, Sequence[Arm]]],
    *,
    start: Beginning,
    seeds: Sequence[int],
    tests: Mapping[str, Prompts],
    measuring: Measuring,
    folder: Path,
) -> Generator[Stage, None, dict[str, ArmResult]]:
    """`compare`, with arms that each seed has its own data for; the same labels for every seed."""
    together: dict[str, ArmResult] = {}
    for seed in seeds:
        own = yield from arms(seed)
        found = yield from compare(
            own, start, seeds=[seed], tests=tests, measuring=measuring, folder=folder, checkpoint_every=1000
        )
        add_runs(together, found)
    return together


def measured_start(
    start: Beginning, tests: Mapping[str, Prompts], measuring: Measuring
) -> dict[str, Measured]:
    """What the model is before any arm has trained it."""
    return measured_policy(LanguagePolicy.load(start.model), tests, measuring)


def measured_policy(
    policy: LanguagePolicy, tests: Mapping[str, Prompts], measuring: Measuring
) -> dict[str, Measured]:
    """What a policy is that no arm has trained, by every set of questions."""
    return {name: _answers(policy, prompts, measuring) for name, prompts in tests.items()}


def difference(arm: ArmResult, baseline: ArmResult, test: str) -> Interval:
    """Arm minus baseline in the score at the end, paired over seeds and questions."""
    return paired_difference(arm.scores(test), baseline.scores(test))


def head_to_head(
    arm: ArmResult, rival: ArmResult | Mapping[str, Measured], test: str
) -> Float[np.ndarray, "run prompt"]:
    """How often an answer at the end beats one of the rival's to the same question; a tie is half a win.

    Answers meet those of the rival's same run, or of a start (`measured_start`); see `measurements.beats`.
    """
    return beats(
        arm.answers(test), rival.answers(test) if isinstance(rival, ArmResult) else rival[test].score[None]
    )


def claim_arm(
    result: ArmResult,
    seeds: Sequence[int],
    *,
    tests: Sequence[str],
    extra: Mapping[str, Sequence[float]] | None = None,
) -> claim.Arm:
    """The arm for a claim record: per run accuracy, pass@copies, tokens and entropy by test, and `extra`."""
    runs = []
    for i, seed in enumerate(seeds):
        metrics: dict[str, float] = {}
        for test in tests:
            at = _last(result.measured[i][test])
            metrics[f"{test}: accuracy"] = at.numbers["rate"]
            if at.score.shape[1] > 1:
                metrics[f"{test}: pass@{at.score.shape[1]}"] = at.numbers["pass"]
            metrics[f"{test}: answer tokens"] = at.numbers["tokens"]
        metrics |= {name: float(values[i]) for name, values in (extra or {}).items()}
        runs.append(claim.Run(seed, metrics))
    summary = claim.summarise(runs)
    for test in tests:
        if (scores := result.scores(test)).size and set(np.unique(scores)) <= {0.0, 1.0}:
            summary[f"{test}: accuracy"] = success_interval(scores)
    return claim.Arm(result.arm.label, config_to_json(result.arm.config), runs, summary)


def trained_seconds(results: Mapping[str, ArmResult]) -> float:
    """Seconds that the runs took, each once, whenever they were made."""
    pairs = [pair for one in results.values() for pair in zip(one.runs, one.seconds, strict=True)]
    return float(sum({run.path: seconds for run, seconds in pairs}.values()))


# ---- kept measurements -------------------------------------------------------------------------------


def _answers(policy: LanguagePolicy, prompts: Prompts, measuring: Measuring) -> Measured:
    found = answer(
        policy, prompts, measuring.right, sampling=measuring.sampling, copies=measuring.copies, seed=0
    )
    measured = Measured.of(found)
    if found.samples is None:
        return measured
    further = {name: measure(policy, found.samples) for name, measure in measuring.further.items()}
    return Measured(measured.score, {**measured.numbers, **further})


def _measure(
    run: CachedRun, policy: Any, tests: Mapping[str, Prompts], measuring: Measuring, step: int
) -> None:
    """Measure what has not been measured yet at `step` (-1: the end) and keep it with the run."""
    for name in _lacking(run, tests, measuring, step):
        found = _answers(policy, tests[name], measuring)
        plain = {"score": found.score.tolist(), "numbers": found.numbers}
        save_json(_place(run, tests[name], measuring, step), plain)


def _lacking(run: CachedRun, tests: Mapping[str, Prompts], measuring: Measuring, step: int) -> list[str]:
    return [name for name in tests if not _place(run, tests[name], measuring, step).is_file()]


def _all_measured(
    run: CachedRun, tests: Mapping[str, Prompts], measuring: Measuring
) -> dict[str, dict[int, Measured]]:
    """By test and step, in the order of the steps, the end last."""
    total = run.directory.metrics()[-1]["step"]
    steps = [step for step in range(measuring.every, int(total), measuring.every)] if measuring.every else []
    found: dict[str, dict[int, Measured]] = {}
    for name, prompts in tests.items():
        found[name] = {}
        for step in [*steps, -1]:
            place = _place(run, prompts, measuring, step)
            if place.is_file():
                plain = load_json(place)
                at = int(total) if step == -1 else step
                found[name][at] = Measured(np.array(plain["score"]), plain["numbers"])
    return found


def _place(run: CachedRun, prompts: Prompts, measuring: Measuring, step: int) -> Path:
    how = [prompts.fingerprint, measuring.copies, config_to_json(measuring.sampling)]
    if measuring.further:
        how.append(sorted(measuring.further))
    key = hashlib.sha256(json.dumps(how).encode()).hexdigest()[:12]
    return run.path / "answers" / f"{key}-{'end' if step == -1 else step}.json"


def _last(measured: Mapping[int, Measured]) -> Measured:
    return measured[max(measured)]

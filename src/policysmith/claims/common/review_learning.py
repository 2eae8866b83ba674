"""Experiments with reviews: where arms start, what they are asked at the end, and the arms of a record.

start = yield from begun(folder)                             the supervised start, by its folder and name
results = yield from by_seed(arms, measuring=measuring(start), tests=held_out(300), ...)
review_arm(results["DPO"], seeds)                            gold, divergence and length, for a record
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policysmith.claims.common.language import ArmResult, Measured, Measuring
from policysmith.claims.common.measurements import Measurement, sequence_kl
from policysmith.claims.common.reviews import gold, prompts
from policysmith.claims.common.rlhf import SAMPLING, Pairs, supervised_start
from policysmith.claims.common.starts import Compared, Start
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.config import config_to_json
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.experience.preferences import Preferences
from policysmith.experience.prompts import Prompts
from policysmith.policies.language.policy import LanguagePolicy

HELD_OUT, VALIDATION = "held out", "validation"
GOLD, KL, TOKENS = "gold", "KL to the start", "answer tokens"
START = "the start"
_MODELS = ("critic", "second")
"""Settings that are folders of models."""


@dataclass(frozen=True)
class Begun:
    """A start that has been made: its recipe, its folder, and itself to be compared with."""

    recipe: WarmStart
    folder: Path
    policy: LanguagePolicy

    @property
    def name(self) -> str:
        """Tells it from other starts."""
        return self.folder.name

    def on(self, preferences: Preferences, reward: object = None, reward_name: str = "") -> Compared:
        """The start of arms that learn from preferences, and from a reward besides where there is one."""
        return Compared(self.folder, self.name, preferences, reward, reward_name)

    def asked(self, asked: Prompts, reward: object, reward_name: str) -> Start:
        """The start of arms that learn from a reward of their answers."""
        return Start(self.folder, self.name, asked, reward, reward_name)


def begun(folder: Path, recipe: WarmStart | None = None) -> Generator[Stage, None, Begun]:
    """The supervised start, made where it is not in the cache `folder` yet."""
    recipe = recipe or supervised_start()
    policy = yield from recipe.make(folder)
    return Begun(recipe, recipe.path(folder), policy.requires_grad_(False))


def measuring(
    start: Begun, *, copies: int = 2, every: int = 0, further: Mapping[str, Measurement] | None = None
) -> Measuring:
    """Gold and the divergence from the start, of `copies` answers to each prompt."""
    return Measuring(gold, SAMPLING, copies, every, {KL: sequence_kl(start.policy), **(further or {})})


def held_out(count: int) -> dict[str, Prompts]:
    """Prompts that are asked in no training."""
    return {HELD_OUT: prompts(count, 2, held_out=True)}


def with_validation(count: int) -> dict[str, Prompts]:
    """Prompts to measure by, and half as many others to choose settings by; none is asked in training."""
    return {**held_out(count), VALIDATION: prompts(count // 2, 3, held_out=True)}


def best(results: Mapping[str, ArmResult], labels: Sequence[str]) -> str:
    """Of the arms of one method with several settings, the one with most gold on the validation prompts."""
    return max(labels, key=lambda label: results[label].scores(VALIDATION).mean())


def labelled(
    start: Begun, folder: Path, *, size: int, rate: float, seed: int, scale: float = 5.0
) -> Generator[Stage, None, Preferences]:
    """The seed's own pairs; their answers are kept in `folder`."""
    return (yield from Pairs(start.recipe, size, scale, rate, seed).make(folder))


def review_arm(
    result: ArmResult,
    seeds: Sequence[int],
    *,
    tests: Sequence[str] = (HELD_OUT,),
    further: Sequence[str] = (),
    extra: Mapping[str, Sequence[float]] | None = None,
) -> claim.Arm:
    """The arm for a claim record: per run gold, the divergence from the start, length, and what is named.

    `further` are measured of the answers to each test; `extra` has a number per run.
    """
    runs = []
    for i, seed in enumerate(seeds):
        ends = {
            test: {name: result.mean(test, name)[i] for name in _said(further).values()} for test in tests
        }
        found = _metrics(ends, further) | {name: float(values[i]) for name, values in (extra or {}).items()}
        runs.append(claim.Run(seed, found))
    settings = config_to_json(result.arm.config)
    # Models are called by their names in the cache, wherever that lies.
    settings |= {name: Path(settings[name]).name for name in _MODELS if settings.get(name)}
    return claim.Arm(result.arm.label, settings, runs, claim.summarise(runs))


def start_arm(
    before: Mapping[str, Measured],
    seeds: Sequence[int],
    *,
    tests: Sequence[str] = (HELD_OUT,),
    further: Sequence[str] = (),
) -> claim.Arm:
    """What `measured_start` says, as the arm of a claim record: the same for every seed."""
    found = _metrics({test: before[test].numbers for test in tests}, further)
    runs = [claim.Run(seed, found) for seed in seeds]
    return claim.Arm(START, {}, runs, claim.summarise(runs))


def _said(further: Sequence[str]) -> dict[str, str]:
    """What a record calls the numbers of a measurement."""
    return {GOLD: "rate", KL: KL, TOKENS: "tokens", **{name: name for name in further}}


def _metrics(ends: Mapping[str, Mapping[str, float]], further: Sequence[str]) -> dict[str, float]:
    said = _said(further)
    return {f"{test}: {name}": numbers[what] for test, numbers in ends.items() for name, what in said.items()}

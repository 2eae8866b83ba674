"""SEED-GRPO's claim at small scale: questions that mislead move the policy less.

The questions are of three kinds: three in five are clean, one in five is far too hard for the model, and one
in five has a wrong reference answer, so that now and then a wrong answer is rewarded. All arms are one
recipe: without damping (`alpha` 0 is Dr. GRPO), with GRPO's division, with damping, and a control that
shrinks all advantages alike by the mean factor; other strengths of damping are ablations. Whether semantic
entropy tells the kinds apart, and which share of the squared gradient is whose, is measured on answers of the
model before training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from scipy import stats

from policysmith.claims.common import reasoning
from policysmith.claims.common.arithmetic import Level, questions, right
from policysmith.claims.common.language import (
    Arm,
    ArmResult,
    claim_arm,
    compare,
    difference,
    measured_start,
    trained_seconds,
)
from policysmith.common.rng import generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.plots import bars_with_intervals
from policysmith.evaluation.statistics import mean_interval
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.rollouts import sampled
from policysmith.objectives.advantages import agreeing, centred_advantage, group_rate
from policysmith.objectives.policy_gradient import policy_gradient_loss
from policysmith.objectives.semantic_entropy import Estimator, uncertainty_factor
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.scored import score
from policysmith.systems import seed_grpo
from policysmith.training.learners.language_collect import as_scoring
from policysmith.training.learners.uncertainty import group_uncertainty

TOO_HARD = Level(4, 2)
"""What the model was not taught, and hardly ever gets right."""
SHARES = {"clean": 0.6, "too hard": 0.2, "corrupted": 0.2}
OFFSETS = (-10, -2, -1, 1, 2, 10)
"""How far a wrong reference is from the right one: as far as slips of arithmetic, so that chance meets it."""
WATCHED = 300
"""Questions whose answers are looked at before training."""
TEST = "clean, held out"
AREA, CORRELATION = "area under the curve", "correlation with the share of wrong answers"
SHARE = "share of the squared gradient from questions that are {}"
TOLD_APART = 0.2
"""By so much the area under the curve has to be above chance's 0.5."""
WITHIN = 0.02
"""Accuracy may be this much below the control's."""


def arms(*, ablations: bool) -> list[Arm]:
    """One recipe with another factor each."""
    plain = seed_grpo.Config(**reasoning.BUDGET, alpha=0.0)
    found = [
        Arm("Dr. GRPO", seed_grpo, plain),
        Arm("GRPO's division", seed_grpo, replace(plain, standardise=True)),
        Arm("SEED-GRPO, 1", seed_grpo, replace(plain, alpha=1.0)),
        Arm("mean factor of SEED-GRPO, 1", seed_grpo, replace(plain, alpha=1.0, selective=False)),
    ]
    if ablations:
        found += [
            Arm("SEED-GRPO, 0.04", seed_grpo, replace(plain, alpha=0.0417)),
            Arm("SEED-GRPO, 0.5", seed_grpo, replace(plain, alpha=0.5)),
            Arm("SEED-GRPO, 1, linear", seed_grpo, replace(plain, alpha=1.0, damping="linear")),
            Arm("SEED-GRPO, 1, printed", seed_grpo, replace(plain, alpha=1.0, estimator="printed")),
            Arm("SEED-GRPO, 1, by numbers", seed_grpo, replace(plain, alpha=1.0, estimator="frequency")),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 150, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out clean questions; finished runs are taken from `folder`."""
    began = time.perf_counter()
    begun = replace((yield from reasoning.start(folder)), prompts=mixed_questions(2000, 1))
    tests = {TEST: reasoning.held_out(evaluate)["held out"]}
    measuring = reasoning.MEASURING
    found = []
    for done, seed in enumerate(seeds):
        yield Stage("watch the model before training", done, len(seeds))
        found.append(watch(LanguagePolicy.load(begun.model), mixed_questions(WATCHED, 2 + seed), seed=seed))
    results = yield from compare(
        arms(ablations=ablations), begun, seeds=seeds, tests=tests, measuring=measuring, folder=folder
    )
    before = measured_start(begun, tests, measuring)[TEST].numbers
    return claim.build_claim(
        "seed-grpo",
        paper_claim="questions on which the model's answers differ in meaning should move it less: "
        "advantages shrunk by semantic entropy give the better policy, at no further cost",
        question="before training, semantic entropy tells clean questions from the others (area under the "
        "curve above 0.7), and damping lowers the corrupted ones' share of the gradient; after it, accuracy "
        "on clean questions at most 2 points below equal damping of all, and above no damping",
        arms=[
            *(_arm(result, found, seeds) for result in results.values()),
            *_entropy_arms(found, seeds),
        ],
        comparisons=comparisons(results, found),
        seeds=seeds,
        settings={
            "task": f"sums of {reasoning.LEVEL}, worked out step by step, {evaluate} held-out questions",
            "answers_per_question": measuring.copies,
            "kinds_of_questions": SHARES,
            "too_hard": str(TOO_HARD),
            "wrong_references_are_off_by": list(OFFSETS),
            "questions_watched_before_training": WATCHED,
            "start": {f"{TEST}: {name}": value for name, value in before.items()},
            "taught": asdict(reasoning.TEACHING),
            "then_with_slips": {"share": reasoning.SLIPS, **asdict(reasoning.SLIPPING)},
            **reasoning.BUDGET,
        },
        seconds=round(max(time.perf_counter() - began, trained_seconds(results)), 1),
        recipe_version=1,
    )


def plot(found: claim.Claim) -> tuple[str, Figure]:
    """The accuracy of every arm that was trained."""
    metric = f"{TEST}: accuracy"
    values = {arm.name: arm.summary[metric] for arm in found.arms if metric in arm.summary}
    return "Accuracy on clean held-out sums", bars_with_intervals(values, "share of answers that are right")


# ---- the questions -----------------------------------------------------------------------------------


def mixed_questions(size: int, seed: int) -> Prompts:
    """Questions of the three kinds in random order; `data` has `kind`, and the `truth` beside `answer`."""
    ends = [round(size * share) for share in np.cumsum(list(SHARES.values()))]
    clean, hard = ends[0], ends[1] - ends[0]
    of_level = list(questions(reasoning.LEVEL, size - hard, seed))
    rng = generator(seed, "kinds")
    mixed = [
        *(_told(prompt, "clean") for prompt in of_level[:clean]),
        *(_told(prompt, "too hard") for prompt in questions(TOO_HARD, hard, seed)),
        *(
            _told(prompt, "corrupted", off=OFFSETS[int(torch.randint(len(OFFSETS), (), generator=rng))])
            for prompt in of_level[clean:]
        ),
    ]
    return Prompts(mixed[index] for index in torch.randperm(len(mixed), generator=rng).tolist())


def _told(prompt: Prompt, kind: str, *, off: int = 0) -> Prompt:
    answer = str(int(prompt.answer) + off)
    return replace(prompt, answer=answer, data={**prompt.data, "kind": kind, "truth": prompt.answer})


# ---- before training ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """What the answers to each question are like, before anything is learnt from them."""

    kind: list[str]
    entropies: Mapping[Estimator, Float[np.ndarray, "question"]]
    """semantic, in nats, by every estimator"""
    error: Float[np.ndarray, "question"]
    """share of answers that are not the truth"""
    rate: Float[np.ndarray, "question"]
    """share of answers that are rewarded"""
    squared: Float[np.ndarray, "question"]
    """squared norm of the gradient of its undamped loss; 0 where all rewards agree"""
    copies: int

    @property
    def entropy(self) -> Float[np.ndarray, "question"]:
        """The semantic entropy by likelihood."""
        return self.entropies["likelihood"]

    @property
    def mixed(self) -> Bool[np.ndarray, "question"]:
        """Whether there is something to learn from the question."""
        return (self.rate > 0) & (self.rate < 1)

    def area(self) -> float:
        """How well entropy tells other questions from clean ones: the chance that one of the former has more.

        Among questions whose rewards are mixed, since no others have an advantage. Half a point for a tie.
        """
        clean = np.array([kind == "clean" for kind in self.kind])
        others, cleans = self.entropy[self.mixed & ~clean], self.entropy[self.mixed & clean]
        if not (len(others) and len(cleans)):
            return 0.5
        return float(stats.mannwhitneyu(others, cleans).statistic / (len(others) * len(cleans)))

    def correlation(self) -> float:
        """Of entropy with the share of wrong answers, over all questions, by ranks."""
        return float(np.corrcoef(stats.rankdata(self.entropy), stats.rankdata(self.error))[0, 1])

    def share(self, kind: str, config: seed_grpo.Config) -> float:
        """The kind's share of the squared gradients, summed over questions, as `config` scales them."""
        pairs = zip(self.entropies[config.estimator], self.rate, strict=True)
        scale = np.array([self._scale(entropy, rate, config) for entropy, rate in pairs])
        weight = self.squared * scale**2
        whole = weight.sum()
        return float(weight[[one == kind for one in self.kind]].sum() / whole) if whole else 0.0

    def _scale(self, entropy: float, rate: float, config: seed_grpo.Config) -> float:
        if config.standardise:
            deviation = math.sqrt(rate * (1 - rate) * self.copies / (self.copies - 1))
            return 1 / deviation if deviation else 0.0
        if not config.selective:
            return 1.0  # any constant: shares do not change
        return uncertainty_factor(entropy, self.copies, alpha=config.alpha, kind=config.damping)


def watch(policy: LanguagePolicy, prompts: Prompts, *, seed: int) -> Watched:
    """Let the policy answer each question as in training, and see what would be learnt from it."""
    copies = reasoning.BUDGET["group_size"]
    sampler = sampled(policy, LocalEngine(policy), reasoning.MEASURING.sampling, copies=copies)
    samples = score(sampler(dict(enumerate(prompts)), rng=generator(seed, "watch")), as_scoring(right))
    reward, ids = samples.batch["reward"], samples.batch["group_id"]
    truth = [replace(prompt, answer=prompt.data["truth"]) for prompt in samples.about]
    true = torch.tensor([right(text, prompt) for text, prompt in zip(samples.texts, truth, strict=True)])
    return Watched(
        kind=[prompt.data["kind"] for prompt in prompts],
        entropies={kind: _entropy(samples, kind) for kind in get_args(Estimator)},
        error=1 - group_rate(true, ids)[::copies].numpy(),
        rate=group_rate(reward, ids)[::copies].numpy(),
        squared=squared_gradients(policy, samples),
        copies=copies,
    )


def _entropy(samples: Samples, kind: Estimator) -> Float[np.ndarray, "question"]:
    return group_uncertainty(samples, right.extract, right.equal, estimator=kind).entropy.numpy()


def squared_gradients(policy: LanguagePolicy, samples: Samples) -> Float[np.ndarray, "question"]:
    """For each question the squared norm of the gradient of its policy-gradient loss, advantages centred."""
    batch = samples.batch
    batch["advantage"] = centred_advantage(batch["reward"], batch["group_id"])[:, None]
    idle = agreeing(batch["reward"], batch["group_id"])
    found = []
    for group in batch["group_id"].unique().tolist():
        rows = batch["group_id"] == group
        part = batch[rows]
        if bool(idle[rows].all()):
            found.append(0.0)
            continue
        log_prob, _ = policy.log_prob(part["token"], part["attended"], mask=part["mask"])
        loss = policy_gradient_loss(log_prob, part["advantage"])[part["mask"]].sum()
        weights = [weight for weight in policy.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(loss, weights)
        found.append(sum(float(gradient.square().sum()) for gradient in gradients))
    return np.array(found)


# ---- the record --------------------------------------------------------------------------------------


def _arm(result: ArmResult, found: Sequence[Watched], seeds: Sequence[int]) -> claim.Arm:
    """Accuracy on clean questions, the mean factor, and whose the gradient is before training."""
    shares = {SHARE.format(kind): _shares(result, found, kind) for kind in SHARES}
    extra: Mapping[str, Sequence[float]] = {
        "mean factor over training": [float(np.mean(values)) for _, values in result.logged("factor")],
        **shares,
    }
    return claim_arm(result, seeds, tests=[TEST], extra=extra)


def _shares(result: ArmResult, found: Sequence[Watched], kind: str) -> list[float]:
    config: Any = result.arm.config
    return [watched.share(kind, config) for watched in found]


def _entropy_arms(found: Sequence[Watched], seeds: Sequence[int]) -> list[claim.Arm]:
    told = {
        "semantic entropy, before training": [(one.area(), one.correlation()) for one in found],
        "chance": [(0.5, 0.0)] * len(found),
    }
    arms_ = []
    for name, values in told.items():
        runs = [
            claim.Run(seed, {AREA: area, CORRELATION: correlation})
            for seed, (area, correlation) in zip(seeds, values, strict=True)
        ]
        arms_.append(claim.Arm(name, {}, runs, claim.summarise(runs)))
    return arms_


def comparisons(results: Mapping[str, ArmResult], found: Sequence[Watched]) -> list[claim.Comparison]:
    """What the claim says, part by part."""
    ours, plain, control = "SEED-GRPO, 1", "Dr. GRPO", "mean factor of SEED-GRPO, 1"
    accuracy, share = f"{TEST}: accuracy", SHARE.format("corrupted")
    pairs = zip(
        _shares(results[ours], found, "corrupted"), _shares(results[plain], found, "corrupted"), strict=True
    )
    return [
        claim.Comparison(
            "entropy tells clean questions from the others", "semantic entropy, before training", "chance",
            AREA, mean_interval([one.area() - 0.5 for one in found]), TOLD_APART, "higher",
        ),
        claim.Comparison(
            "corrupted questions move it less", ours, plain, share,
            mean_interval([damped - undamped for damped, undamped in pairs]), 0.0, "lower",
        ),
        claim.Comparison(
            "as good as smaller steps for all", ours, control, accuracy,
            difference(results[ours], results[control], TEST), WITHIN, "not_lower",
        ),
        claim.Comparison(
            "better than without", ours, plain, accuracy,
            difference(results[ours], results[plain], TEST), 0.0, "higher",
        ),
    ]  # fmt: skip

"""NFT's claim at small scale: wrong answers are worth learning from by likelihood too.

A small model that gets a quarter of its sums right is trained on its own answers: by rejection fine-tuning
(NFT with wrong answers left out), by NFT, and by the group-relative methods, all with the same number of
answers per step and the same start. And while nothing has moved since sampling, the gradient of NFT has to be
that of the group-relative methods, which needs no training: it is computed for random outcomes and logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from policysmith.claims.common import reasoning
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
from policysmith.objectives.advantages import centred_advantage, group_rate
from policysmith.objectives.negative_aware import PromptWeight, negative_aware_loss
from policysmith.objectives.policy_gradient import clipped_policy_loss
from policysmith.systems import dapo, nft

TEST = "held out"
GAP = 0.03
"""By so much NFT has to be above rejection fine-tuning."""
WITHIN = 0.02
"""NFT may be this much below DAPO."""
SAME = 1e-6
"""Relative difference of two gradients that are called equal."""
ENTROPY = "nats per token"
EQUALITY = "relative difference of the gradients"
ON_POLICY: dict[PromptWeight, str] = {
    "difficulty": "NFT beside Dr. GRPO, on policy",
    "spread": "NFT, spread, beside GRPO, on policy",
}
REFERENCE = "group-relative, on policy"


_BATCH = reasoning.BUDGET["prompts"] * reasoning.BUDGET["group_size"] // reasoning.BUDGET["optimizer_steps"]
DENOMINATOR = float(_BATCH * reasoning.LIMIT)
"""What `dr-grpo` divides the tokens of a step by, so that the limit of the gradient's norm is the same."""


def arms(*, ablations: bool) -> list[Arm]:
    """Rejection fine-tuning, NFT and what it is compared with: as many answers for each.

    Prompts whose answers agree are dropped and not replaced (`rounds` is 1), since asking further ones would
    cost further answers.
    """
    both: dict[str, Any] = {**reasoning.BUDGET, "rounds": 1, "warmup_steps": 0, "weight_decay": 0.0}
    ours: dict[str, Any] = {**both, "recompute_old": False, "denominator": DENOMINATOR}
    found = [
        Arm("RFT", nft, nft.Config(**ours, negative_weight=0.0)),
        Arm("NFT", nft, nft.Config(**ours)),
        reasoning.GRPO,
        Arm("DAPO", dapo, dapo.Config(**both, overlong_buffer=0)),
    ]
    if ablations:
        found += [
            Arm("NFT, spread", nft, nft.Config(**ours, weight="spread")),
            Arm("NFT, half the negatives", nft, nft.Config(**ours, negative_weight=0.5)),
            Arm("NFT, floor 0.5", nft, nft.Config(**ours, negative_floor=0.5)),
        ]
    return found


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 150, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment on `evaluate` held-out questions; finished training runs are taken from `folder`."""
    began = time.perf_counter()
    begun = yield from reasoning.start(folder)
    tests = reasoning.held_out(evaluate)
    results = yield from compare(
        arms(ablations=ablations),
        begun,
        seeds=seeds,
        tests=tests,
        measuring=reasoning.MEASURING,
        folder=folder,
    )
    gradients = gradient_arms(seeds)
    before = measured_start(begun, tests, reasoning.MEASURING)[TEST].numbers
    return claim.build_claim(
        "nft",
        paper_claim="fitting wrong answers too, through the policy they imply, clearly beats rejection "
        "fine-tuning and matches reinforcement learning; on policy its gradient is GRPO's",
        question="with as many answers: accuracy more than 3 points above rejection fine-tuning and at most "
        "2 below DAPO, and more entropy left than by rejection fine-tuning; on fresh answers, the gradient "
        "of the group-relative methods",
        arms=[*(_arm(result, seeds) for result in results.values()), *gradients],
        comparisons=comparisons(results, gradients),
        seeds=seeds,
        settings={
            "task": f"sums of {reasoning.LEVEL}, worked out step by step, {evaluate} held-out questions",
            "answers_per_question": reasoning.MEASURING.copies,
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
    return "Accuracy on held-out sums", bars_with_intervals(values, "share of answers that are right")


# ---- on policy ---------------------------------------------------------------------------------------


def gradient_gap(weight: PromptWeight, *, seed: int) -> float:
    """How far NFT's gradient is from its group-relative method's: largest difference over largest entry.

    Random logits of 8 prompts with 8 answers of 12 tokens each, right and wrong ones to each prompt.
    "difficulty" is compared with the reward minus the group's mean, "spread" with that over the deviation.
    """
    rng = generator(seed, "on policy")
    logits = torch.randn(64, 12, 20, generator=rng, dtype=torch.float64)
    token = torch.randint(20, (64, 12), generator=rng)
    group = torch.arange(8).repeat_interleave(8)
    rights = torch.randint(1, 8, (8,), generator=rng)
    correct = torch.arange(8).repeat(8) < rights[group]
    rate = group_rate(correct.double(), group)
    advantage = centred_advantage(correct.double(), group)
    if weight == "spread":
        advantage = advantage / (rate * (1 - rate)).sqrt()
    ours = _gradient(
        logits, token, lambda now, old: negative_aware_loss(now, old, correct, rate, weight=weight)
    )
    theirs = _gradient(logits, token, lambda now, old: clipped_policy_loss(now, old, advantage[:, None]))
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _gradient(
    logits: Float[Tensor, "row time token"],
    token: Int[Tensor, "row time"],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    logits = logits.clone().requires_grad_()
    log_prob = logits.log_softmax(-1).gather(-1, token[..., None])[..., 0]
    loss(log_prob, log_prob.detach()).sum().backward()
    assert logits.grad is not None
    return logits.grad


# ---- the record --------------------------------------------------------------------------------------


def _arm(result: ArmResult, seeds: Sequence[int]) -> claim.Arm:
    """Accuracy, pass@k and length, and how unsure the policy still is at the end."""
    return claim_arm(result, seeds, tests=[TEST], extra={ENTROPY: result.mean(TEST, "entropy")})


def gradient_arms(seeds: Sequence[int]) -> list[claim.Arm]:
    """How far the gradients are apart on policy, beside the group-relative methods' own."""
    gaps: dict[str, list[float]] = {
        ON_POLICY["difficulty"]: [gradient_gap("difficulty", seed=seed) for seed in seeds],
        ON_POLICY["spread"]: [gradient_gap("spread", seed=seed) for seed in seeds],
        REFERENCE: [0.0] * len(seeds),
    }
    found = []
    for name, values in gaps.items():
        runs = [claim.Run(seed, {EQUALITY: value}) for seed, value in zip(seeds, values, strict=True)]
        found.append(claim.Arm(name, {}, runs, claim.summarise(runs)))
    return found


def comparisons(results: dict[str, ArmResult], gradients: Sequence[claim.Arm]) -> list[claim.Comparison]:
    """What the claim says, part by part."""
    nft_, rft, rl = results["NFT"], results["RFT"], results["DAPO"]
    accuracy = f"{TEST}: accuracy"
    entropies = zip(rft.mean(TEST, "entropy"), nft_.mean(TEST, "entropy"), strict=True)
    fewer = mean_interval([without - with_ for without, with_ in entropies])
    gap = {arm.name: arm.summary[EQUALITY] for arm in gradients}
    return [
        claim.Comparison(
            "above rejection fine-tuning", "NFT", "RFT", accuracy, difference(nft_, rft, TEST), GAP, "higher"
        ),
        claim.Comparison(
            "as good as DAPO", "NFT", "DAPO", accuracy, difference(nft_, rl, TEST), WITHIN, "not_lower"
        ),
        claim.Comparison("rejection fine-tuning grows surer", "RFT", "NFT", ENTROPY, fewer, 0.0, "lower"),
        *(
            claim.Comparison(
                f"{name}: the same gradient", name, REFERENCE, EQUALITY, gap[name], SAME, "not_higher"
            )
            for name in ON_POLICY.values()
        ),
    ]

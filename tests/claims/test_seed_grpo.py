"""The experiment of SEED-GRPO: three kinds of questions, whose gradient is whose, what decides."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("reasoning_gym")

from policysmith.claims import seed_grpo as experiment
from policysmith.claims.common import reasoning
from policysmith.claims.common.arithmetic import right
from policysmith.claims.common.language import ArmResult, Measured
from policysmith.claims.seed_grpo import (
    OFFSETS,
    SHARE,
    TEST,
    TOO_HARD,
    Watched,
    arms,
    comparisons,
    mixed_questions,
    squared_gradients,
    watch,
)
from policysmith.experience.rollouts import sampled
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.systems import seed_grpo


def named():
    return {arm.label: arm for arm in arms(ablations=True)}


def test_three_kinds_of_questions_in_their_shares():
    prompts = list(mixed_questions(100, 1))
    kinds = [prompt.data["kind"] for prompt in prompts]
    assert [kinds.count(kind) for kind in ("clean", "too hard", "corrupted")] == [60, 20, 20]
    assert kinds != sorted(kinds)
    for prompt in prompts:
        off = int(prompt.answer) - int(prompt.data["truth"])
        solved = right(prompt.data["solution"], prompt)
        if prompt.data["kind"] == "corrupted":
            assert off in OFFSETS
            assert solved == 0
        else:
            assert off == 0
            assert solved == 1
        assert (prompt.data["level"] == TOO_HARD) == (prompt.data["kind"] == "too hard")
    assert mixed_questions(100, 1).fingerprint == mixed_questions(100, 1).fingerprint


def test_the_arms_are_one_recipe_with_one_word_changed():
    plain = asdict(named()["Dr. GRPO"].config)
    assert plain["alpha"] == 0
    changed = {
        label: {key for key, value in asdict(arm.config).items() if value != plain[key]}
        for label, arm in named().items()
    }
    assert changed["GRPO's division"] == {"standardise"}
    assert changed["SEED-GRPO, 1"] == {"alpha"}
    assert changed["mean factor of SEED-GRPO, 1"] == {"alpha", "selective"}
    assert all(arm.module is seed_grpo for arm in named().values())
    assert {key: plain[key] for key in reasoning.BUDGET} == reasoning.BUDGET


def watched() -> Watched:
    """A clean question of which the model is half sure, a corrupted one of which it is not, two idle ones."""
    return Watched(
        kind=["clean", "corrupted", "clean", "too hard"],
        entropies={"likelihood": np.array([0.5, 1.0, 0.0, 1.2]) * np.log(8)},
        error=np.array([0.5, 0.9, 0.0, 1.0]),
        rate=np.array([0.5, 0.125, 1.0, 0.0]),
        squared=np.array([3.0, 1.0, 0.0, 0.0]),
        copies=8,
    )


def test_shares_of_the_squared_gradient_by_hand():
    of = {
        label: watched().share("corrupted", arm.config)
        for label, arm in named().items()
        if arm.config.estimator == "likelihood"
    }
    assert of["Dr. GRPO"] == of["mean factor of SEED-GRPO, 1"] == pytest.approx(1 / 4)
    # Variances with n - 1: 2/7 and 1/8; the squares are divided by them.
    assert of["GRPO's division"] == pytest.approx(8 / (8 + 3 * 3.5))
    # Factors 1 / 1.5 and 1 / 2, squared.
    assert of["SEED-GRPO, 1"] == pytest.approx((1 / 4) / (1 / 4 + 3 * 4 / 9))
    assert of["SEED-GRPO, 1, linear"] == pytest.approx(0)


def test_only_questions_with_mixed_rewards_are_told_apart():
    assert watched().area() == 1.0
    assert watched().correlation() == pytest.approx(1.0)


def test_an_untrained_model_is_never_right_and_learns_nothing():
    found = watch(small_decoder(0, width=16, layers=1, heads=2, context=96), mixed_questions(5, 1), seed=0)
    assert found.kind == [prompt.data["kind"] for prompt in mixed_questions(5, 1)]
    assert found.error.tolist() == [1] * 5
    assert found.squared.tolist() == [0] * 5


def test_a_questions_gradient_is_that_of_its_own_loss():
    policy = small_decoder(0, width=16, layers=1, heads=2, context=96)
    sampler = sampled(policy, LocalEngine(policy), Sampling(limit=4), copies=2)
    samples = sampler(dict(enumerate(mixed_questions(2, 1))), rng=torch.Generator().manual_seed(0))
    samples.batch["reward"] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    first, idle = squared_gradients(policy, samples)
    batch = samples.batch[:2]
    log_prob, _ = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])
    sums = (log_prob * batch["mask"]).sum(1)
    weights = list(policy.parameters())
    gradients = torch.autograd.grad(0.5 * (sums[0] - sums[1]), weights)
    assert first == pytest.approx(sum(float(one.square().sum()) for one in gradients), rel=1e-5)
    assert idle == 0


def result(label: str, rate: float) -> ArmResult:
    score = np.tile((np.arange(100) < 100 * rate).astype(float)[:, None], (1, 8))
    numbers = {"rate": rate, "pass": rate, "tokens": 18.0, "finished": 1.0, "entropy": 0.2}
    return ArmResult(named()[label], measured=[{TEST: {80: Measured(score, numbers)}}] * 3)


def verdicts(ours: float, control: float, plain: float) -> dict[str, str]:
    rates = {"SEED-GRPO, 1": ours, "mean factor of SEED-GRPO, 1": control, "Dr. GRPO": plain}
    results = {label: result(label, rate) for label, rate in rates.items()}
    return {one.name: one.verdict for one in comparisons(results, [watched()] * 3)}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    assert set(verdicts(0.8, 0.7, 0.6).values()) == {"holds"}


def test_accuracy_decides_its_parts():
    assert verdicts(0.5, 0.8, 0.3)["as good as smaller steps for all"] == "fails"
    assert verdicts(0.5, 0.5, 0.8)["better than without"] == "fails"


def test_an_arms_record_and_the_plot_tell_what_is_compared():
    runs = result("SEED-GRPO, 1", 0.5)
    runs.metrics = [[{"step": 1.0, "factor": 0.6}, {"step": 2.0, "factor": 0.8}]] * 3
    made = experiment._arm(runs, [watched()] * 3, [0, 1, 2])
    assert made.summary["mean factor over training"].value == pytest.approx(0.7)
    assert made.summary[SHARE.format("corrupted")].value == pytest.approx(3 / 19)
    others = experiment._entropy_arms([watched()] * 3, [0, 1, 2])
    axes = experiment.plot(SimpleNamespace(arms=[made, *others]))[1].axes[0]  # type: ignore[arg-type]
    assert len(axes.patches) == 1

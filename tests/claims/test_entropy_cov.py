"""The experiment on entropy: its arms, its theory, what decides the verdict, and a record from small runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from policysmith.claims import entropy_cov as experiment
from policysmith.claims.common.arithmetic import right
from policysmith.claims.common.language import Arm, ArmResult, Measured
from policysmith.claims.common.starts import Start
from policysmith.claims.entropy_cov import CORRELATION, SLOPE, TEST, arms, comparisons, theory_check
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation.record import from_json, to_json
from policysmith.experience.prompts import from_rows
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder

torch.set_num_threads(1)


def test_the_arms_differ_in_what_is_done_about_entropy_alone():
    plain, bonus, higher, clip_cov, kl_cov = (arm.config for arm in arms(ablations=False))
    assert (plain.clip_low, plain.clip_high, plain.entropy_bonus) == (0.2, 0.2, 0.0)
    assert bonus == replace(plain, entropy_bonus=experiment.BONUS)
    assert higher == replace(plain, clip_high=0.28)
    assert clip_cov == replace(kl_cov, method="clip-cov")
    shared = set(vars(plain)) & set(vars(kl_cov)) - {"recompute_old"}
    assert {name: getattr(plain, name) for name in shared} == {name: getattr(kl_cov, name) for name in shared}
    assert len({arm.label for arm in arms(ablations=True)}) == 8


def test_one_step_changes_the_entropy_as_the_covariance_says():
    found = theory_check(0)
    assert found[CORRELATION] > 0.999
    assert found[SLOPE] < 0.01


def result(label: str, *, entropy: float, solved: float, explained: bool = True) -> ArmResult:
    """Three runs of a hundred questions that end at an entropy, so many of them solved by all answers."""
    score = np.repeat((np.arange(100) < 100 * solved)[:, None], 8, axis=1).astype(float)
    numbers = {"rate": solved, "pass": solved, "tokens": 18.0, "finished": 1.0, "entropy": entropy}
    h = np.linspace(0.4, entropy, 20)
    reward = 0.9 - 0.3 * np.exp(h) if explained else np.arange(20) % 2
    lines = [
        {"step": i, "entropy": a, "reward": float(b)} for i, (a, b) in enumerate(zip(h, reward, strict=True))
    ]
    measured = [{TEST: {20: Measured(score, numbers)}} for _ in range(3)]
    return ArmResult(Arm(label, experiment.entropy_cov, None), metrics=[lines] * 3, measured=measured)


BEFORE = Measured(np.zeros((100, 8)), {"entropy": 0.4, "rate": 0.3, "pass": 0.6, "tokens": 18.0})
GOOD = [{CORRELATION: 0.9999, SLOPE: 0.001}] * 3


def verdicts(plain: ArmResult, ours: ArmResult, theory=GOOD) -> list[str]:
    return [one.verdict for one in comparisons({"GRPO": plain, "KL-Cov": ours}, BEFORE, theory)]


PLAIN = {"entropy": 0.05, "solved": 0.6}
OURS = {"entropy": 0.2, "solved": 0.8}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    assert verdicts(result("GRPO", **PLAIN), result("KL-Cov", **OURS)) == ["holds"] * 7


@pytest.mark.parametrize(
    ("plain", "ours", "failing"),
    [
        ({"entropy": 0.15}, {"entropy": 0.4}, [0]),
        ({"explained": False}, {}, [1]),
        ({}, {"entropy": 0.06}, [2]),
        ({}, {"solved": 0.3}, [3, 4]),
    ],
)
def test_each_part_of_the_claim_can_fail(plain, ours, failing):
    found = verdicts(result("GRPO", **PLAIN | plain), result("KL-Cov", **OURS | ours))
    assert [number for number, one in enumerate(found) if one == "fails"] == failing


def test_the_theory_can_fail_too():
    wrong = [{CORRELATION: 0.5, SLOPE: 0.5}] * 3
    assert verdicts(result("GRPO", **PLAIN), result("KL-Cov", **OURS), wrong)[-2:] == ["fails", "fails"]


def test_a_record_comes_of_small_runs(tmp_path: Path, monkeypatch):
    small_decoder(0, width=32, layers=2, heads=2, context=64).save_pretrained(tmp_path / "model")
    questions = from_rows({"prompt": f"{a}+1=", "answer": a + 1} for a in range(6))

    def start(folder: Path):
        yield Stage("warm start", 0, 1)
        # A reward that an untrained model gets now and then.
        return Start(tmp_path / "model", "tiny", questions, lambda text, _: float("1" in text), "ones")

    def small(arm: Arm) -> Arm:
        return replace(arm, config=replace(arm.config, steps=4, prompts=4, group_size=2, answer_limit=6))

    made = [small(arm) for arm in arms(ablations=False)]
    monkeypatch.setattr(experiment, "start", start)
    monkeypatch.setattr(experiment, "arms", lambda *, ablations: made)
    monkeypatch.setattr(experiment, "held_out", lambda size: {TEST: questions[:size]})
    monkeypatch.setattr(
        experiment, "MEASURING", replace(experiment.MEASURING, right=right, sampling=Sampling(limit=6))
    )
    found = result_of(experiment.reproduce(seeds=[0, 1], folder=tmp_path / "cache", evaluate=3))
    assert from_json(to_json(found)) == found
    assert [arm.name for arm in found.arms] == [
        "start", "GRPO", "GRPO + entropy bonus", "clip-higher", "Clip-Cov", "KL-Cov",
        experiment.THEORY, experiment.ASKED,
    ]  # fmt: skip
    assert len(found.comparisons) == 7
    assert found.arms[1].settings["clip_high"] == 0.2
    caption, figure = experiment.plot(found)
    assert "entropy" in caption
    assert figure.axes

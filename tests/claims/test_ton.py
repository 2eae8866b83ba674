"""The experiment of TON: its two kinds of questions, and what decides the verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("reasoning_gym")

from policysmith.claims import ton as experiment
from policysmith.claims.common.language import Arm, ArmResult, Measured, compare
from policysmith.claims.common.starts import Start
from policysmith.claims.ton import EASY, HARD, LAYOUT, OURS, PLAIN
from policysmith.common.stages import result_of
from policysmith.evaluation import claim
from policysmith.policies.language.small import small_decoder

SEEDS = [0, 1, 2]


def test_everything_behind_the_first_number_of_an_easy_question_cancels():
    for prompt in experiment.easy(50, 0):
        first, *rest = (int(term) for term in re.findall(r"[+-]?\d+", str(prompt.text)))
        assert first == int(prompt.answer)
        assert len(rest) == 4
        assert rest[0] == -rest[1]
        assert rest[2] == -rest[3]


@pytest.mark.parametrize("kind", [experiment.easy, experiment.hard])
def test_thoughts_work_the_question_out(kind):
    for prompt in kind(50, 0):
        text = LAYOUT.write(prompt.data["thought"], prompt.answer)
        assert experiment.right(text, prompt) == 1.0
        assert prompt.data["thought"].split(";")[-1].endswith(f"={prompt.answer}")


def test_the_questions_of_the_test_are_not_those_of_training_nor_of_the_start(monkeypatch):
    monkeypatch.setattr(experiment, "TAUGHT_EASY", 300)
    asked = {str(one.text) for one in experiment.prompts()}
    taught = {str(one.text) for one in [*experiment.easy(300, 0), *experiment.hard(300, 0)]}
    tests = experiment.unseen(12)
    assert {kind: len(prompts) for kind, prompts in tests.items()} == {EASY: 12, HARD: 3}
    for prompts in tests.values():
        assert not {str(one.text) for one in prompts} & (asked | taught)


def test_thoughts_of_easy_questions_are_the_longer_ones():
    length = {
        kind: np.mean([len(one.data["thought"]) for one in kind(100, 0)])
        for kind in (experiment.easy, experiment.hard)
    }
    assert length[experiment.easy] > 1.5 * length[experiment.hard]


def test_the_arms_differ_in_dropout_alone():
    assert replace(PLAIN.config, dropout=0.5) == OURS.config
    changed = [arm.config for arm in experiment.arms(ablations=True)[2:]]
    assert [(one.dropout, one.average) for one in changed] == [
        (0.2, "sequence"), (0.8, "sequence"), (0.5, "token"),
    ]  # fmt: skip


# ---- the verdict -------------------------------------------------------------------------------------


def result(arm: Arm, rate: float, tokens: float) -> ArmResult:
    """Three runs that answer so large a share of a hundred questions of each kind, at so many tokens."""
    found = ArmResult(arm)
    for seed in SEEDS:
        score = np.zeros((100, 4))
        score[: round(100 * rate)] = 1.0
        numbers = {"rate": float(score.mean()), "pass": float(score.mean()), "tokens": tokens + 0.1 * seed}
        found.measured.append({test: {400: Measured(score, numbers)} for test in (EASY, HARD)})
        found.metrics.append([])
        found.seconds.append(1.0)
    return found


def made(*, rate: float = 0.9, tokens: float = 10.0, easy: float = 0.9, hard: float = 0.1):
    results = {PLAIN.label: result(PLAIN, 0.9, 25.0), OURS.label: result(OURS, rate, tokens)}
    skips = {
        PLAIN.label: {EASY: [0.0] * 3, HARD: [0.0] * 3},
        OURS.label: {EASY: [easy, easy, easy + 0.01], HARD: [hard] * 3},
    }
    return results, skips


def verdicts(**changes: float) -> dict[str, str]:
    return {one.name: one.verdict for one in experiment.comparisons(*made(**changes))}


def test_the_claim_holds_where_all_that_it_says_is_seen():
    found = verdicts()
    assert set(found.values()) == {"holds"}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"tokens": 15.0}, "at most half as long"),
        ({"rate": 0.5}, "as often right"),
        ({"hard": 0.9}, "skips where it is easy"),
    ],
)
def test_each_part_of_the_claim_can_fail(changes, failing):
    found = verdicts(**changes)
    assert found.pop(failing) == "fails"
    assert set(found.values()) == {"holds"}


def test_a_record_is_made_of_both_kinds_and_of_all_together():
    results, skips = made()
    found = claim.build_claim(
        "ton",
        paper_claim="p",
        question="q",
        arms=[experiment.record_arm(one, skips[label], SEEDS) for label, one in results.items()],
        comparisons=experiment.comparisons(results, skips),
        seeds=SEEDS,
        settings={},
        seconds=1.0,
        recipe_version=1,
    )
    ours = found.arms[1]
    assert ours.runs[0].metrics[f"{EASY}: thoughts left out"] == 0.9
    assert ours.summary[experiment.TOKENS].value == pytest.approx(10.1)
    caption, figure = experiment.plot(found)
    assert "Tokens" in caption
    assert len(figure.axes[0].patches) == 4


def test_the_arms_run_and_their_thoughts_are_counted(tmp_path: Path):
    small_decoder(0, width=32, layers=1, heads=2, context=64).save_pretrained(tmp_path / "model")
    begun = Start(tmp_path / "model", "tiny", experiment.prompts()[:8], experiment.right, "right")
    small = {
        "steps": 3, "prompts": 2, "group_size": 2, "answer_limit": 8,
        "imitation_steps": 2,
        "imitation_batch": 2,
    }  # fmt: skip
    arms = [replace(arm, config=replace(arm.config, **small)) for arm in experiment.arms(ablations=False)]
    tests = {EASY: experiment.easy(2, 2), HARD: experiment.hard(2, 2)}
    results = result_of(
        compare(arms, begun, seeds=[0], tests=tests, measuring=experiment.MEASURING, folder=tmp_path)
    )
    for one in results.values():
        skips = experiment.skipping(one, tests)
        assert {test: len(values) for test, values in skips.items()} == {EASY: 1, HARD: 1}
        record = experiment.record_arm(one, skips, [0])
        assert 0 <= record.runs[0].metrics[experiment.TOKENS] <= 48

"""DNO: which answers make pairs, what a round learns from, and what is refused."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.pairing import teacher_pairs
from policysmith.experience.prompts import from_rows
from policysmith.policies.language.small import small_decoder
from policysmith.systems import dno

PROMPTS = from_rows({"prompt": f"{n}=", "answer": "eeee"} for n in range(30))
POINTS = {"floor": 5, "margin_teacher": 2, "margin_student": 1}


def tiny():
    return small_decoder(0, width=32, layers=1, heads=2, context=32)


def letters(text, prompt):
    return min(1.0, text.count("e") / 2)


def run(asked=PROMPTS, reward=letters, **settings):
    settings = {"floor": 0.5, "margin_teacher": 0.5, "margin_student": 0.5} | settings
    return list(dno.train(tiny(), asked, reward, config=replace(dno.PRESETS["tiny"], **settings)))


def test_pairs_by_points_of_a_worked_prompt():
    scores, teacher = torch.tensor([6.0, 4, 5, 3, 5, 5]), [False] * 5 + [True]
    assert teacher_pairs(scores, teacher, **POINTS) == [
        (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (2, 1), (2, 3), (4, 1), (4, 3), (5, 3),
    ]  # fmt: skip
    only = teacher_pairs(scores, teacher, **POINTS, only_teacher=True)
    assert only == [(5, 3)], "4 is but one point below the teacher"


def test_below_the_floor_nobody_wins():
    assert teacher_pairs(torch.tensor([4.0, 1.0]), [False, True], **POINTS) == []


def test_the_policy_comes_to_write_what_scores():
    settings = {"floor": 0.25, "margin_teacher": 0.125, "margin_student": 0.125, "answer_limit": 8}
    progress = run(
        reward=lambda text, prompt: min(1.0, text.count("e") / 8),
        steps=30,
        round_steps=10,
        prompts=10,
        group_size=6,
        batch_size=16,
        learning_rate=3e-3,
        **settings,
    )
    scores = [now.metrics["own_score"] for now in progress if "own_score" in now.metrics]
    assert len(scores) == 3
    assert scores[-1] > scores[0] + 0.1


def test_kinds_of_pairs_are_counted_by_variant():
    first = {variant: run(variant=variant, prompts=20, group_size=6)[0].metrics for variant in
             ("dno", "restrictive", "spin")}  # fmt: skip
    assert first["restrictive"]["pairs/student_wins"] == first["restrictive"]["pairs/among_students"] == 0
    assert first["restrictive"]["rows"] == first["dno"]["pairs/teacher_wins"] > 0
    assert first["dno"]["pairs/among_students"] > 0
    assert first["spin"]["rows"] == 20 * 6


def test_earlier_rounds_are_replayed_and_rows_are_seen_once():
    progress = run(steps=4, round_steps=2, prompts=10, group_size=4, batch_size=64)
    second = progress[2].metrics
    assert second["learnt_rows"] > second["rows"]


def test_an_answer_that_repeats_itself_is_the_worst():
    assert dno.repeats("a b c d a b c d a b c d", 4)
    assert not dno.repeats("a b c d a b c d", 4)
    assert not dno.repeats("a b", 4)


def test_the_reference_moves_with_the_rounds_or_stays():
    for reference, same in (("round", True), ("start", False)):
        progress = run(
            steps=4, round_steps=2, prompts=10, group_size=4, learning_rate=1e-2, reference=reference
        )
        assert (abs(progress[2].metrics["loss"] - 0.693147) < 1e-4) is same


def test_what_cannot_be_learnt_from_is_said():
    with pytest.raises(DataError, match="no answer of the teacher"):
        run(from_rows([{"prompt": "1"}]))
    with pytest.raises(DataError, match=r"a score of 3"):
        run(reward=lambda text, prompt: 3.0)
    with pytest.raises(DataError, match="gave a preference"):
        run(reward=lambda text, prompt: 0.0)
    with pytest.warns(UserWarning, match="rounds share prompts"):
        run(asked=PROMPTS[:6])
    for wrong in ({"eta": 0.0}, {"shares": (1.0, 1.5)}, {"variant": "sft"}, {"lowest": 7.0}):
        with pytest.raises(SettingError):
            dno.Config(**wrong)

"""Sums with help: a hint begins the answer, and a failed solution fails by one slip."""

import itertools
import re

import pytest
import torch

pytest.importorskip("reasoning_gym")

from policysmith.claims.common.arithmetic import Level, questions, right
from policysmith.claims.common.helped_arithmetic import (
    HINT,
    REFINE,
    WORDING,
    corrected_examples,
    with_slip,
)
from policysmith.experience.guidance import with_hint
from policysmith.experience.prompts import Prompt

LONG = questions(Level(4, 1), 40, 0)


def value(sum_: str) -> int:
    return sum(map(int, re.findall(r"[+-]?\d+", sum_)))


def test_a_hint_stands_where_the_answer_begins():
    prompt = LONG[0]
    asked = with_hint(prompt, 0.5, template=HINT)
    assert (str(prompt.text) + prompt.data["solution"]).startswith(str(asked.text))
    assert len(str(asked.text)) == len(str(prompt.text)) + round(len(prompt.data["solution"]) / 2)


def test_what_is_to_be_mended_is_wrong_and_what_is_written_right():
    told = 0
    for prompt, example in zip(LONG, corrected_examples(LONG, 0), strict=True):
        question, rest = example.prompt.removesuffix(":").split("!")
        failed, critique = rest.split("~")
        assert question == prompt.text
        assert right(failed, prompt) == 0
        assert right(example.answer, prompt) == 1
        truth = WORDING.truth.format(truth=prompt.answer)
        assert critique in (WORDING.wrong, WORDING.wrong + truth)
        told += critique.endswith(truth)
        assert example.prompt == REFINE.format(question=question, answer=failed, critique=critique)
    assert 10 <= told <= 30


def test_behind_a_slip_everything_is_worked_out_from_the_wrong_total():
    rng = torch.Generator().manual_seed(0)
    for prompt in LONG:
        slipped = with_slip(prompt.data["solution"], rng)
        steps, answer = slipped.split("#")
        totals = [step.split("=") for step in steps.rstrip(";").split(";")]
        wrong = [value(sum_) != int(total) for sum_, total in totals]
        assert wrong.count(True) == 1
        for (_, before), (sum_, _) in itertools.pairwise(totals):
            assert sum_.startswith(before)
        assert answer == totals[-1][1]


def test_the_same_seed_makes_the_same_examples():
    assert corrected_examples(LONG, 1).fingerprint == corrected_examples(LONG, 1).fingerprint
    assert corrected_examples(LONG, 1).fingerprint != corrected_examples(LONG, 2).fingerprint


def test_totals_below_zero_are_carried_on():
    rng = torch.Generator().manual_seed(0)
    prompt = Prompt("1-9-9=", "-17")
    for _ in range(20):
        assert right(with_slip("1-9=-8;-8-9=-17;#-17", rng), prompt) == 0

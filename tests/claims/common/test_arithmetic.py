"""Arithmetic questions: what they and their solutions look like, and which are kept apart."""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest

from policysmith.claims.common.arithmetic import (
    Level,
    Mixture,
    careless_examples,
    questions,
    right,
    solution,
    worked_examples,
)
from policysmith.common.errors import DataError, SettingError

needs_tasks = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra 'language'"
)
LEVELS = [Level(2, 1), Level(3, 1), Level(3, 2), Level(5, 2), Level(2, 3)]


@pytest.mark.parametrize(
    ("question", "worked_out"),
    [
        ("12+73-35=", "12+73=85;85-35=50;#50"),
        ("5-7-1=", "5-7=-2;-2-1=-3;#-3"),
        ("0-0=", "0-0=0;#0"),
    ],
)
def test_a_solution_is_the_running_totals_and_the_answer(question, worked_out):
    assert solution(question) == worked_out


@pytest.mark.parametrize("text", ["", "12=", "12+=", "12+3", "12*3=", "what is 12+3="])
def test_what_is_no_question_is_refused(text):
    with pytest.raises(DataError, match="not a question"):
        solution(text)


@needs_tasks
@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_every_solution_is_right_and_what_differs_from_it_is_not(level):
    for prompt in questions(level, 200, 3):
        worked_out = prompt.data["solution"]
        assert right(worked_out, prompt) == 1
        for wrong in (
            worked_out + "1",
            worked_out.replace("#", ""),
            f"{worked_out};#{int(prompt.answer) + 1}",
        ):
            assert right(wrong, prompt) == 0


@needs_tasks
@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_a_question_has_the_terms_and_digits_of_its_level(level):
    for prompt in questions(level, 50, 0):
        terms = prompt.text[:-1].replace("-", "+").split("+")
        assert [len(term) for term in terms] == [level.digits] * level.terms
        assert prompt.data["level"] == level


@needs_tasks
def test_questions_depend_on_their_arguments_alone():
    some = questions(Level(3, 2), 60, 0)
    assert questions(Level(3, 2), 60, 0).fingerprint == some.fingerprint
    assert questions(Level(3, 2), 20, 0).fingerprint == some[:20].fingerprint
    assert questions(Level(3, 2), 60, 1).fingerprint != some.fingerprint


@needs_tasks
@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_what_is_held_out_is_never_asked_otherwise(level):
    held_out = {prompt.text for prompt in questions(level, 300, 0, held_out=True)}
    for seed in (0, 1):
        assert held_out.isdisjoint(prompt.text for prompt in questions(level, 2000, seed))


@needs_tasks
def test_a_mixture_has_each_level_as_often_as_its_share_says():
    easy, hard = Level(2, 1), Level(3, 2)
    mixture = Mixture(((easy, 3.0), (hard, 1.0)))
    prompts = mixture.questions(100, 0)
    assert Counter(prompt.data["level"] for prompt in prompts) == {easy: 75, hard: 25}
    assert {prompt.data["level"] for prompt in prompts[:20]} == {easy, hard}  # mixed, not one after the other
    assert mixture.questions(100, 0).fingerprint == prompts.fingerprint
    taught = {example.prompt for example in worked_examples(prompts)}
    assert taught.isdisjoint(prompt.text for prompt in mixture.questions(100, 0, held_out=True))


@pytest.mark.parametrize(
    "make",
    [lambda: Level(1, 1), lambda: Level(2, 0), lambda: Mixture(()), lambda: Mixture(((Level(2, 1), 0),))],
)
def test_levels_and_mixtures_out_of_range_are_refused(make):
    with pytest.raises(SettingError):
        make()


@needs_tasks
def test_careless_solutions_slip_as_often_as_asked_and_go_on_from_there():
    prompts = questions(Level(3, 1), 400, 0)
    worked = careless_examples(prompts, 0.0, 0)
    assert [one.answer for one in worked] == [prompt.data["solution"] for prompt in prompts]
    slips = steps = 0
    for one in careless_examples(prompts, 0.3, 0):
        lines = one.answer.split(";")
        for line in lines[:-1]:
            asked, _, total = line.partition("=")
            steps += 1
            off = int(total) - int(solution(asked + "=").rpartition("#")[2])
            slips += off != 0
            assert abs(off) <= 3
        assert lines[1].startswith(lines[0].rpartition("=")[2])
        assert lines[-1] == "#" + lines[-2].rpartition("=")[2]
    assert 0.25 < slips / steps < 0.35

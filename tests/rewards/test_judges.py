"""Judges: what they may say, who looks at the order, and matrices of wins."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.judges import checked, checked_points, judge_by, symmetric, win_matrix
from policysmith.rewards.scoring import Scoring, batched

PROMPT = Prompt("which?")
PROMPTS = [PROMPT, Prompt("or?")]


def length(text, prompt):
    return float(len(text))


def says(*numbers):
    return lambda prompts, first, second: list(numbers)[: len(prompts)]


def first_liked(prompts, first, second):
    """Adds 0.2 to whoever stands first."""
    return [min(1.0, 0.5 + 0.1 * (len(a) - len(b)) + 0.2) for a, b in zip(first, second, strict=True)]


def rock_paper_scissors(prompts, first, second):
    beats = {("paper", "rock"), ("rock", "scissors"), ("scissors", "paper")}
    return [0.5 if a == b else float((a, b) in beats) * 0.8 + 0.1 for a, b in zip(first, second, strict=True)]


# ---- of rewards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reward",
    [length, batched(lambda texts, prompts: [len(text) for text in texts]), Scoring({"length": length})],
)
def test_a_reward_judges_by_its_differences(reward):
    judge = judge_by(reward)
    assert judge(PROMPTS, ["aaa", "b"], ["a", "b"]) == pytest.approx([1 / (1 + math.exp(-2)), 0.5])
    assert judge(PROMPTS, ["a", "b"], ["aaa", "b"]) == pytest.approx([1 / (1 + math.exp(2)), 0.5])


def test_its_scale_is_how_unsure_it_is():
    assert judge_by(length, scale=4.0)([PROMPT], ["aaa"], ["a"]) == pytest.approx([1 / (1 + math.exp(-0.5))])
    for wrong in (0.0, -1.0, math.inf):
        with pytest.raises(SettingError, match="scale"):
            judge_by(length, scale=wrong)


# ---- order -------------------------------------------------------------------------------------------


def test_the_mean_of_both_orders_sums_to_one():
    judge = symmetric(first_liked)
    there, back = judge(PROMPTS, ["aaa", "b"], ["a", "b"]), judge(PROMPTS, ["a", "b"], ["aaa", "b"])
    assert [p + q for p, q in zip(there, back, strict=True)] == pytest.approx([1, 1])
    assert there == pytest.approx([(0.9 + 1 - 0.5) / 2, 0.5])


def test_a_judge_that_looks_at_the_order_is_warned_of_and_the_cure_offered():
    with pytest.warns(UserWarning, match=r"order(.|\n)*'which\?'(.|\n)*0\.900 one way(.|\n)*symmetric"):
        checked(first_liked)([PROMPT], ["aaa"], ["a"])


@pytest.mark.parametrize("judge", [symmetric(first_liked), judge_by(length), rock_paper_scissors])
def test_and_one_that_does_not_is_not(judge):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(judge)(PROMPTS, ["rock", "paper"], ["paper", "rock"])


def test_a_small_dependence_on_the_order_passes():
    asked = iter([[0.62], [0.42]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(lambda *texts: next(asked))([PROMPT], ["a"], ["b"])


def test_only_the_first_comparisons_are_asked_twice():
    asked = []

    def judge(prompts, first, second):
        asked.append(len(prompts))
        return [0.5] * len(prompts)

    probing = checked(judge, probe=3)
    probing(PROMPTS, ["a", "b"], ["c", "d"])
    probing(PROMPTS, ["a", "b"], ["c", "d"])
    probing(PROMPTS, ["a", "b"], ["c", "d"])
    assert asked == [2, 2, 2, 1, 2]


# ---- what it may say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge", "what"),
    [
        (says(0.5, 1.2), r"gave 1\.2(.|\n)*'or\?'(.|\n)*from 0 to 1"),
        (says(-0.1, 0.5), r"gave -0\.1(.|\n)*'which\?'"),
        (says(0.5), r"gave 1 probabilities(.|\n)*2, one for each"),
        (says(0.5, math.nan), r"gave nan(.|\n)*'or\?'"),
        (says(0.5, None), "2 probabilities"),
        (lambda *texts: None, "gave None"),
        (lambda *texts: torch.zeros(2, 3), "2 probabilities"),
    ],
)
def test_a_judge_gives_one_probability_per_comparison(judge, what):
    with pytest.raises(DataError, match=what):
        checked(judge)(PROMPTS, ["a", "b"], ["c", "d"])


@pytest.mark.parametrize("number", [1.5, -0.5, math.nan])
def test_nor_is_a_wrong_number_averaged_away(number):
    wrong = lambda prompts, first, second: [number] * len(prompts)  # noqa: E731
    with pytest.raises(DataError, match="gave"):
        symmetric(wrong)(PROMPTS, ["a", "b"], ["c", "d"])
    with pytest.raises(DataError, match="gave"):
        win_matrix(wrong, PROMPT, ["a", "b"])


def test_comparisons_need_two_answers_each():
    with pytest.raises(DataError, match="2 prompts with 1 first and 2 second"):
        checked(rock_paper_scissors)(PROMPTS, ["rock"], ["paper", "rock"])
    assert checked(rock_paper_scissors)([], [], []) == []


# ---- win matrices ------------------------------------------------------------------------------------


def test_wins_may_go_in_a_circle():
    matrix = win_matrix(rock_paper_scissors, PROMPT, ["rock", "paper", "scissors"])
    assert matrix.tolist() == [
        [0.5, pytest.approx(0.1), pytest.approx(0.9)],
        [pytest.approx(0.9), 0.5, pytest.approx(0.1)],
        [pytest.approx(0.1), pytest.approx(0.9), 0.5],
    ]


def test_a_judge_whose_orders_sum_to_one_is_asked_once_per_pair():
    asked = []

    @batched
    def counted(texts, prompts):
        asked.append(len(texts))
        return [len(text) for text in texts]

    matrix = win_matrix(judge_by(counted), PROMPT, ["a", "bbb", "cc"])
    assert asked == [6]  # both sides of three pairs
    torch.testing.assert_close(matrix + matrix.t(), torch.ones(3, 3, dtype=torch.float64))
    assert float(matrix[1, 0]) == pytest.approx(1 / (1 + math.exp(-2)))


def test_wins_that_do_not_sum_to_one_name_the_two_answers():
    with pytest.raises(DataError, match=r"P\(0 better than 1\) is 0\.700(.|\n)*'which(.|\n)*symmetric"):
        win_matrix(first_liked, PROMPT, ["a", "b"])
    assert win_matrix(symmetric(first_liked), PROMPT, ["a", "b"]).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_matrix_takes_two_answers():
    with pytest.raises(DataError, match="1 answers"):
        win_matrix(rock_paper_scissors, PROMPT, ["rock"])


# ---- points side by side -----------------------------------------------------------------------------


def test_points_are_one_number_in_range_for_each_answer():
    answers = ["a", "bb", "ccc"]
    assert checked_points(lambda p, texts: [len(t) for t in texts], low=0, high=6)(PROMPT, answers) == [
        1,
        2,
        3,
    ]
    for wrong, what in (
        ([1, 2], r"gave 2 scores(.|\n)*3, one for each"),
        ([1, 7, 2], r"score of 7 for answer 1(.|\n)*'which\?'(.|\n)*0 to 6"),
        ([1, math.nan, 2], r"gave nan(.|\n)*'which\?'"),
        (["good", 1, 2], "gave"),
    ):
        with pytest.raises(DataError, match=what):
            checked_points(lambda p, texts, wrong=wrong: wrong, low=0, high=6)(PROMPT, answers)
    with pytest.raises(SettingError, match="range"):
        checked_points(lambda p, texts: [], low=1, high=1)

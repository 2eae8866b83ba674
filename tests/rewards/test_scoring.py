"""Scoring: sums by name, and rewards that break."""

import time

import pytest

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.scoring import Scoring, batched

PROMPTS = [Prompt("a", "1"), Prompt("b", "2"), Prompt("c", "3")]
TEXTS = ["1", "22", "333"]


def length(text, prompt):
    return len(text)


def right(text, prompt):
    return float(text == prompt.answer)


def broken(text, prompt):
    return 1 / (len(text) - 2)


def test_rewards_are_weighted_by_name_and_logged_apart():
    scores = Scoring({"length": length, "right": right}, weights={"right": 10})(TEXTS, PROMPTS)
    assert scores.total.tolist() == [11, 2, 3]
    assert {name: column.tolist() for name, column in scores.columns.items()} == {
        "length": [1, 2, 3],
        "right": [1, 0, 0],
    }


def test_a_batched_reward_is_called_once():
    calls = []

    @batched
    def judge(texts, prompts):
        calls.append(len(texts))
        return [0.5] * len(texts)

    assert Scoring({"judge": judge})(TEXTS, PROMPTS).total.tolist() == [0.5] * 3
    assert calls == [3]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_reward_that_raises_stops_the_run_naming_the_sample(workers):
    with pytest.raises(
        DataError, match=r"'broken' raised ZeroDivisionError(.|\n)*row 1: prompt 'b', answer '22'"
    ):
        Scoring({"broken": broken}, workers=workers)(TEXTS, PROMPTS)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (broken, "ZeroDivision"),
        (lambda t, p: float("nan") if t == "22" else 1 / (len(t) - 2), "returned nan"),
    ],
)
def test_or_is_replaced_and_reported(reward, said):
    scores = Scoring({"broken": reward}, on_error="replace", replacement=-7)(TEXTS, PROMPTS)
    assert scores.total.tolist() == [-1, -7, 1]
    assert len(scores.problems) == 1
    assert said in scores.problems[0]


def test_a_reward_that_hangs_is_not_waited_for():
    def slow(text, prompt):
        time.sleep(0.5 if text == "22" else 0)
        return 1.0

    scores = Scoring({"slow": slow}, workers=3, seconds=0.1, on_error="replace")(TEXTS, PROMPTS)
    assert scores.total.tolist() == [1, 0, 1]
    assert "no answer within 0.1 seconds" in scores.problems[0]


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(SettingError, match="at least one"):
        Scoring({})
    with pytest.raises(SettingError, match=r"weights for \['form'\]"):
        Scoring({"right": right}, weights={"form": 1})
    with pytest.raises(SettingError, match="needs 2 or more"):
        Scoring({"right": right}, seconds=1)


def test_answers_whose_reward_failed_are_told_and_can_be_dropped():
    scores = Scoring({"broken": broken}, on_error="drop")(TEXTS, PROMPTS)
    assert scores.failed == {1}
    assert len(scores.problems) == 1

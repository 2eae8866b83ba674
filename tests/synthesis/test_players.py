"""Rewards of pairs by hand, and what a judge may and may not say."""

import math

import pytest

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.synthesis.players import JudgedPair, assessed, by_scores

ASKED = Prompt("What is 2 + 3?", answer="5")


def rewarded(better, worse, answers=("5", "6"), **options):
    return by_scores(**options)(JudgedPair(ASKED, answers, (better, worse)))


def test_the_plain_reward_by_hand():
    assert rewarded(9, 3)[0] == pytest.approx(0.982014, abs=1e-6)
    assert rewarded(6, 5)[0] == pytest.approx(0.268941, abs=1e-6)
    assert rewarded(5, 1)[0] == 0, "the better one is below the floor"
    assert rewarded(8, 6)[0] == 0.5, "exactly the margin apart"
    assert rewarded(8, 4, scale=2)[0] == pytest.approx(1 / (1 + math.exp(-1)))


def test_the_critique_says_what_is_lacking():
    assert "below 6" in rewarded(5, 1)[1]
    assert "6 and 5" in rewarded(6, 5)[1]


def test_a_verifier_decides_where_it_tells_the_two_apart():
    def right(text, prompt):
        return float(text == prompt.answer)

    assert rewarded(3, 2.9, ("5", "6"), verify=right)[0] == 1
    plain = rewarded(6, 5)[0]
    assert rewarded(6, 5, ("6", "5"), verify=right)[0] == plain, "the wrong way round: by the scores"
    assert rewarded(6, 5, ("5", "5"), verify=right)[0] == plain


def test_the_scale_is_above_zero():
    with pytest.raises(SettingError, match="a scale of 0"):
        by_scores(scale=0)


def test_a_judge_may_give_scores_alone_reasons_too_or_nothing_for_one():
    assert assessed(lambda *_: [1, 2], ASKED, ["a", "b"], {}, "") == ([1.0, 2.0], ["", ""])
    assert assessed(lambda *_: (1, 2), ASKED, ["a", "b"], {}, "") == ([1.0, 2.0], ["", ""])
    said = assessed(lambda *_: ([1, None], ["so", "?"]), ASKED, ["a", "b"], {}, "")
    assert said == ([1.0, None], ["so", "?"])


@pytest.mark.parametrize("wrong", [[1], [1, 2, 3], [1, math.nan], [math.inf, 1], "ab", 3, ([1, 2], ["one"])])
def test_what_a_judge_may_not_say_names_the_prompt(wrong):
    with pytest.raises(DataError, match=r"What is 2 \+ 3") as error:
        assessed(lambda *_: wrong, ASKED, ["a", "b"], {}, "")
    assert isinstance(error.value, ValueError)

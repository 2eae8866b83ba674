"""What is said of answers, and what happens where a critic fails."""

import pytest
import torch

pytest.importorskip("transformers")

from scripted import Scripted

from policysmith.common.errors import DataError
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.small import small_decoder
from policysmith.rewards.critiques import Wording, verdicts, written
from policysmith.rewards.scoring import Scoring

POLICY = small_decoder(0, width=32, layers=1, heads=2, context=64)
RIGHT = Scoring({"right": lambda text, prompt: float(text == prompt.answer)})


def answered(*texts: str, answer: str | None = "5") -> Samples:
    inside = Scripted(POLICY, lambda prompt, copy: texts[copy], RIGHT, copies=len(texts))
    return inside({0: Prompt("2+3=", answer)}, rng=torch.Generator())


def test_a_verdict_says_whether_the_answer_is_right_and_what_is_where_it_may():
    samples = answered("5", "6")
    wording = Wording(right="ok", wrong="no", truth=", {truth}")
    assert verdicts(tell_truth=False, wording=wording)(samples) == ["ok", "no"]
    assert verdicts(tell_truth=True, wording=wording)(samples) == ["ok, 5", "no, 5"]


def test_the_truth_cannot_be_told_where_there_is_none():
    samples = answered("5", answer=None)
    assert verdicts(tell_truth=False)(samples) == [Wording().wrong]
    with pytest.raises(DataError, match=r"(?s)2\+3=.*'answer'.*'simple'"):
        verdicts(tell_truth=True)(samples)


def test_the_critic_is_asked_about_wrong_answers_only():
    said = written(lambda text, prompt: f"{text} is not {prompt.text}")(answered("5", "6"))
    assert said == [verdicts(tell_truth=True)(answered("5"))[0], "6 is not 2+3="]


@pytest.mark.parametrize("silent", [False, True])
def test_where_the_critic_fails_the_truth_is_told_and_the_failure_counted(silent):
    def critic(text: str, prompt: Prompt) -> str:
        if text != "6":
            return "mind the carry"
        if silent:
            return " "
        raise ConnectionError("the server is gone")

    samples = answered("6", "7", "5")
    truth = verdicts(tell_truth=True)(samples)
    assert written(critic)(samples) == [truth[0], "mind the carry", truth[2]]
    assert samples.batch["log", "failed_critiques"].tolist() == [1, 1, 1]


def test_a_critic_that_always_fails_stops_the_run():
    def critic(text: str, prompt: Prompt) -> str:
        raise ConnectionError("the server is gone")

    with pytest.raises(DataError, match=r"(?s)all 2 wrong answers.*server is gone.*simple_gt"):
        written(critic)(answered("6", "7", "5"))
    assert len(written(critic)(answered("5", "5"))) == 2, "it was not asked"

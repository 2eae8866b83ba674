"""Models that compare two answers: both orders, the text they read, and their files."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.rewards.judges import checked, win_matrix
from policysmith.rewards.preference_model import PreferenceModel

PROMPTS = [Prompt("2+3="), Prompt("why? ")]
FIRST, SECOND = ["5", "no"], ["six", "because"]


@pytest.fixture
def model(make_policy, opinionated):
    return opinionated(PreferenceModel(make_policy(2)))


def test_both_orders_are_averaged_and_sum_to_one(model):
    there, back = model(PROMPTS, FIRST, SECOND), model(PROMPTS, SECOND, FIRST)
    assert (there + back).tolist() == pytest.approx([1, 1])
    with torch.no_grad():
        one, other = (
            torch.sigmoid(model.logit(PROMPTS, *order)) for order in ((FIRST, SECOND), (SECOND, FIRST))
        )
    assert there.tolist() == pytest.approx(((one + 1 - other) / 2).tolist(), abs=1e-6)
    assert float((one + other - 1).abs().max()) > 1e-3  # of one order alone they do not


def test_an_answer_is_as_good_as_itself(model):
    assert model(PROMPTS, FIRST, FIRST).tolist() == [0.5, 0.5]


def test_the_text_is_the_prompt_and_both_answers_each_with_its_end(model):
    policy = model.policy
    end = policy.end_tokens[0]
    ((prompt, answers),) = model.rows(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert prompt == policy.encode("2+3=")
    assert answers == [*policy.encode("5"), end, *policy.encode("six"), end]


def test_a_template_is_put_as_a_question(make_policy):
    model = PreferenceModel(make_policy(2), template="{prompt}|{second}|{first}?")
    ((before, last),) = model.rows(PROMPTS[:1], ["{x}"], SECOND[:1])
    assert model.policy.decode([*before, *last]) == "2+3=|six|{x}?"
    assert len(last) == 1
    with pytest.raises(SettingError, match=r"lacks \{second\}"):
        PreferenceModel(make_policy(2), template="{prompt} {first}")


def test_it_is_a_judge(model):
    assert checked(model)(PROMPTS, FIRST, SECOND) == pytest.approx(model(PROMPTS, FIRST, SECOND).tolist())
    matrix = win_matrix(model, PROMPTS[0], ["5", "6", "no"])
    torch.testing.assert_close(matrix + matrix.t(), torch.ones(3, 3, dtype=torch.float64))
    with pytest.raises(DataError, match="one of each"):
        model(PROMPTS, FIRST, SECOND[:1])


def test_what_is_saved_compares_as_before(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = PreferenceModel.from_pretrained(tmp_path / "model")
    assert again(PROMPTS, FIRST, SECOND).tolist() == model(PROMPTS, FIRST, SECOND).tolist()

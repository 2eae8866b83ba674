"""The two properties of a chain of thought, against log-probabilities taken token by token."""

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError
from policysmith.evaluation.chains import Chain, chain_quality
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder

QUESTION = Prompt("12+7=", "19")


@pytest.fixture
def policy() -> LanguagePolicy:
    return small_decoder(0, width=32, layers=2, heads=2, context=32)


def token_log_probs(policy: LanguagePolicy, text: str) -> torch.Tensor:
    token = torch.tensor([policy.encode(text)])
    with torch.no_grad():
        return policy.log_prob(token, torch.ones_like(token, dtype=torch.bool))[0][0]


def test_surprise_is_of_the_chain_and_the_rest_of_the_answer(policy):
    found = chain_quality(policy, [Chain(QUESTION, "7+12;#", "19"), Chain(QUESTION, "#", "19")])
    each = token_log_probs(policy, "12+7=7+12;#19")
    assert found.surprise[0].item() == pytest.approx(-each[5:11].mean().item(), abs=1e-5)
    assert found.answer_log_prob[0].item() == pytest.approx(each[11:].sum().item(), abs=1e-5)
    short = token_log_probs(policy, "12+7=#19")
    assert found.surprise[1].item() == pytest.approx(-short[5].item(), abs=1e-5)
    assert found.answer_log_prob[1].item() == pytest.approx(short[6:].sum().item(), abs=1e-5)


def test_a_chain_without_text_is_named(policy):
    with pytest.raises(DataError) as caught:
        chain_quality(policy, [Chain(QUESTION, "x", "19"), Chain(QUESTION, "", "19")])
    assert caught.value.where.startswith("chain 1")


def test_a_chain_longer_than_the_context_is_named(policy):
    with pytest.raises(DataError, match="37 tokens"):
        chain_quality(policy, [Chain(QUESTION, "x" * 30, "19")])


def test_no_chains_are_no_measurement(policy):
    with pytest.raises(DataError):
        chain_quality(policy, [])

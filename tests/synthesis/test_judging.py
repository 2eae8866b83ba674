"""Language models as judge, target and rewriter, by what they are asked and what is read from their words."""

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder
from policysmith.synthesis.feedback import alternatives, rewritten_by
from policysmith.synthesis.judging import LanguageJudge, Writing, own_likelihood, read_score
from policysmith.synthesis.players import Instructions

ASKED = Prompt("What is 2+3?")


@pytest.fixture(scope="module")
def policy():
    return small_decoder(0, width=32, layers=1, heads=2, context=256)


@pytest.mark.parametrize(
    ("text", "score"),
    [(" 7", 7), ("10/10, right", 10), ("8.5 since it is well put", 8.5), ("It is 3.", 3), ("0", 0),
     ("none", None), ("12 points", None), ("-", None), ("10.5", None), ("a4", None), ("9 of 10", 9)],
)  # fmt: skip
def test_the_score_is_the_first_number_from_0_to_10(text, score):
    assert read_score(text) == score


def test_the_judge_is_asked_about_each_candidate_with_rubric_and_knowledge(policy, monkeypatch):
    judge = LanguageJudge(policy)
    asked = {}

    class Said:
        texts = ("Score 9", "no idea")

    def sampler(groups, *, rng):
        asked.update(groups)
        return Said

    monkeypatch.setattr(judge, "_sampler", sampler)
    found = judge(ASKED, ["5", "{rubric}"], {"calculator": "5", "web": ""}, "Be strict.")
    assert found == ([9.0, None], ("Score 9", "no idea"))
    assert asked[0].text.startswith("Be strict.\n\nQuestion: What is 2+3?\nKnown (calculator): 5\nAnswer: 5")
    assert "web" not in asked[0].text
    assert "Answer: {rubric}" in asked[1].text, "what is filled in is not a place"


def test_a_real_judge_says_the_same_twice(policy):
    judge = LanguageJudge(policy, template="{question}{answer}", sampling=Sampling(limit=4, temperature=0))
    assert judge(ASKED, ["5", "6"], {}, "") == judge(ASKED, ["5", "6"], {}, "")
    with pytest.raises(SettingError, match=r"lacks \{answer\}"):
        LanguageJudge(policy, template="{question}")


def test_own_likelihood_is_the_geometric_mean_by_hand(policy):
    judge = own_likelihood(policy)
    scores = judge(ASKED, ["5", "is it six"], {}, "")
    assert judge.policy is policy
    for text, score in zip(["5", "is it six"], scores, strict=True):
        begin, answer = policy.encode_question("What is 2+3?"), [*policy.encode(text), policy.end_tokens[0]]
        token = torch.tensor([begin + answer])
        with torch.no_grad():
            log_prob, _ = policy.log_prob(token, torch.ones_like(token, dtype=torch.bool))
        assert score == pytest.approx(10 * float(log_prob[0, len(begin) :].mean().exp()), rel=1e-5)


def test_the_target_writes_behind_its_instruction_and_leaves_out_what_was_cut(policy):
    rng = torch.Generator().manual_seed(0)
    target = Writing(policy, Sampling(limit=3), copies=4, finished_only=False)
    (texts,) = target([ASKED], "Briefly. ", rng)
    assert len(texts) == 4
    prompt = target.last.requests[0].prompt
    assert policy.decode(prompt) == "Briefly. What is 2+3?"
    (texts,) = Writing(policy, Sampling(limit=3), copies=4)([ASKED], "", rng)
    assert len(texts) < 4


def test_instructions_are_rewritten_by_a_model_and_stay_where_it_says_nothing(policy, monkeypatch):
    from policysmith.synthesis import feedback

    asked = {}

    class Said:
        texts = ("  Think first. ", " ")

    def sampler(groups, *, rng):
        asked.update(groups)
        return Said

    monkeypatch.setattr(feedback, "sampled", lambda *args, **options: sampler)
    revise = rewritten_by(policy)
    new = revise(Instructions("Answer.", "Be fair."), ["too short", "too short", "{x}"], torch.Generator())
    assert new == Instructions("Think first.", "Be fair.")
    assert "Instruction: Answer." in asked[0].text
    assert asked[0].text.count("too short") == 1
    assert "{x}" in asked[0].text
    assert "Instruction: Be fair." in asked[1].text


def test_alternatives_are_drawn_among_those_that_are_others():
    revise = alternatives(targets=["a", "b"], judges=["x"])
    rng = torch.Generator().manual_seed(0)
    drawn = {revise(Instructions("a", "y"), [], rng) for _ in range(40)}
    assert drawn == {Instructions("b", "y"), Instructions("a", "x")}
    same = Instructions("a", "x")
    assert alternatives(targets=["a"])(same, [], rng) == same
    with pytest.raises(SettingError, match="nothing is to be tried"):
        alternatives()

"""Resets: which answers are begun for the policy, how far, and which of their tokens are its own."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.examples import Example, Examples
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.experience.resets import (
    References,
    Resetting,
    drawn,
    drawn_weight,
    reference_answer,
    reset_length,
    sampled_from,
    with_references,
    written,
)
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.samples import Request
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder

POLICY = small_decoder(0, width=32, layers=1, heads=2, context=64)
SAMPLING = Sampling(limit=6)
GOOD = Prompt("2+3=", data={"chosen": "five"})


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def asked(count: int, *, prompt: Prompt = GOOD) -> list[Request]:
    tokens = POLICY.encode(str(prompt.text))
    return [Request(tokens, group_id=group, about=prompt) for group in range(count)]


def begun(count: int, probability: float, *, prompt: Prompt = GOOD, seed: int = 0):
    engine = Resetting(LocalEngine(POLICY), written(POLICY), probability=probability)
    return engine.sample(asked(count, prompt=prompt), SAMPLING, rng=rng(seed))


# ---- which, and how far ------------------------------------------------------------------------------


def test_lengths_are_even_over_all_that_leave_a_token_to_the_policy():
    places = [(i + 0.5) / 400 for i in range(400)]
    assert Counter(reset_length(5, one) for one in places) == {1: 100, 2: 100, 3: 100, 4: 100}
    assert {reset_length(2, one) for one in places} == {1}
    assert {reset_length(short, one) for short in (0, 1) for one in places} == {0}


def test_begun_answers_are_the_reference_so_far_and_then_the_policys_own():
    samples = begun(200, 1.0)
    reference = [*POLICY.encode("five"), POLICY.end_tokens[0]]
    lengths = samples.batch["prefix_length"].tolist()
    assert set(lengths) == {1, 2, 3, 4}
    for row, length in enumerate(lengths):
        assert samples.answer(row)[:length] == reference[:length]
        assert samples.texts[row].startswith("five"[:length])
        assert length < len(samples.answer(row)) <= SAMPLING.limit


def test_the_share_of_begun_answers_is_the_probability():
    share = float(begun(1000, 0.75).batch["log", "reset"].mean())
    assert share == pytest.approx(0.75, abs=0.04)
    assert not begun(50, 0.0).batch["prefix_length"].any()


def test_without_resets_the_engine_is_left_alone_draw_by_draw():
    generator = rng()
    ours = Resetting(LocalEngine(POLICY), written(POLICY), probability=0.0).sample(
        asked(20), SAMPLING, rng=generator
    )
    other = rng()
    plain = LocalEngine(POLICY).sample(asked(20), SAMPLING, rng=other)
    assert torch.equal(ours.batch["token"], plain.batch["token"])
    assert torch.equal(generator.get_state(), other.get_state())


def test_a_rows_reset_does_not_depend_on_the_company_it_keeps():
    whole = begun(12, 0.5)
    engine = Resetting(LocalEngine(POLICY), written(POLICY), probability=0.5)
    alone = engine.sample(asked(12)[5:8], SAMPLING, rng=rng())
    assert alone.batch["prefix_length"].tolist() == whole.batch["prefix_length"][5:8].tolist()
    assert alone.texts == whole.texts[5:8]
    assert begun(12, 0.5).texts == whole.texts
    assert begun(12, 0.5, seed=1).texts != whole.texts


def test_a_reference_of_one_token_begins_nothing():
    end_alone = lambda requests, sampling, *, rng: [[POLICY.end_tokens[0]] for _ in requests]  # noqa: E731
    engine = Resetting(LocalEngine(POLICY), end_alone, probability=1.0)
    assert not engine.sample(asked(10), SAMPLING, rng=rng()).batch["prefix_length"].any()


def test_a_reference_longer_than_an_answer_may_be_is_cut_and_leaves_a_token():
    samples = begun(200, 1.0, prompt=Prompt("2+3=", data={"chosen": "a long answer"}))
    assert set(samples.batch["prefix_length"].tolist()) == {1, 2, 3, 4, 5}
    assert max(len(samples.answer(row)) for row in range(200)) == SAMPLING.limit


def test_answers_can_begin_as_a_model_that_does_not_learn_would():
    start = small_decoder(3, width=32, layers=1, heads=2, context=64)
    beginnings = sampled_from(LocalEngine(start), top_p=1e-6)
    samples = Resetting(LocalEngine(POLICY), beginnings, probability=1.0).sample(
        asked(40), SAMPLING, rng=rng()
    )
    greedy = LocalEngine(start).sample(asked(1), replace(SAMPLING, temperature=0.0), rng=rng()).answer(0)
    for row, length in enumerate(samples.batch["prefix_length"].tolist()):
        assert 1 <= length < len(greedy)
        assert samples.answer(row)[:length] == greedy[:length], "top-p near 0 takes the likeliest"


# ---- whose tokens ------------------------------------------------------------------------------------


def test_given_tokens_are_scored_but_are_not_the_policys_own():
    batch = begun(30, 1.0).batch
    own, mask = drawn(batch), batch["mask"]
    assert torch.equal((mask & ~own).sum(1), batch["prefix_length"])
    assert bool(own.any(1).all())
    scored, _ = POLICY.log_prob(batch["token"], batch["attended"], mask=mask)
    assert torch.allclose(scored.detach(), batch["behaviour_log_prob"], atol=1e-4)
    assert bool((batch["weights_version"][mask & ~own] == -1).all())


def test_given_tokens_weigh_nothing_and_drawn_ones_all_the_same():
    batch = begun(30, 0.5).batch
    weight, own = drawn_weight(batch), drawn(batch)
    assert not weight[~own].any()
    assert weight[own].tolist() == pytest.approx([1 / int(own.sum())] * int(own.sum()))


def test_a_batch_of_nothing_but_given_tokens_is_refused():
    batch = begun(3, 1.0).batch
    batch["prefix_length"] = batch["attended"].sum(1) - batch["prompt_length"]
    with pytest.raises(DataError, match="every token of the batch was given"):
        drawn_weight(batch)


# ---- reference answers -------------------------------------------------------------------------------


def test_the_preferred_answer_of_a_pair_is_the_reference_and_never_the_other():
    pairs = Preferences([Preference(Prompt("1"), ("good", "bad")), Preference(Prompt("2"), ("fine", "poor"))])
    prompts = with_references(pairs)
    assert [(one.text, one.data) for one in prompts] == [("1", {"chosen": "good"}), ("2", {"chosen": "fine"})]
    lists = Preferences([Preference(Prompt("1"), ("a", "b", "c"), (1.0, 0.5, 0.0))])
    with pytest.raises(DataError, match="needs pairs"):
        with_references(lists)


def test_examples_and_prompts_with_a_column_are_references_too():
    examples = with_references(Examples([Example("1", "one")]), "worked")
    assert examples[0].data == {"worked": "one"}
    prompts = Prompts([GOOD])
    assert with_references(prompts) is prompts


def test_of_a_conversation_the_last_message_is_the_reference():
    asks, says = {"role": "user", "content": "1"}, {"role": "assistant", "content": "one"}
    assert reference_answer(Prompt("1", data={"chosen": [says]})) == "one"
    assert reference_answer(Prompt("1", data={"chosen": [asks, says]})) == "one"
    with pytest.raises(DataError, match="no text"):
        reference_answer(Prompt("1", data={"chosen": [says, asks]}))


@pytest.mark.parametrize("nothing", [{}, {"chosen": None}, {"chosen": "  "}])
def test_a_prompt_without_a_reference_is_named(nothing):
    prompts = Prompts([GOOD, Prompt("7+7=", data=nothing)])
    with pytest.raises(DataError, match=r"(?s)no reference answer.*row 1 '7\+7='.*column 'chosen'"):
        References(POLICY, prompts, limit=8)


def test_tokens_are_no_reference_since_they_may_be_another_tokenizers():
    with pytest.raises(DataError, match="no text"):
        reference_answer(Prompt("1", data={"chosen": [4, 5, 6]}))


def test_references_that_are_cut_are_warned_of(recwarn):
    prompts = Prompts([GOOD, Prompt("1", data={"chosen": "a long answer"})])
    References(POLICY, prompts, limit=14)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"1 of 2 reference answers .*\(13 tokens; row 1 has 14\)"):
        References(POLICY, prompts, limit=13)


def test_a_saved_run_goes_on_with_its_own_references_alone():
    mine = References(POLICY, Prompts([GOOD]), limit=9)
    mine.load_state_dict(References(POLICY, Prompts([GOOD]), limit=9).state_dict())
    other = References(POLICY, Prompts([replace(GOOD, data={"chosen": "four"})]), limit=9)
    with pytest.raises(DataError, match="not those of the saved run"):
        mine.load_state_dict(other.state_dict())


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_its_range_is_refused(wrong):
    with pytest.raises(SettingError, match="0 to 1"):
        Resetting(LocalEngine(POLICY), written(POLICY), probability=wrong)

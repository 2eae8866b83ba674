"""Rows of outcomes: from text, from samples, and which answers make a pair."""

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.outcomes import (
    PreferenceSampler,
    outcome_rows,
    padded_together,
    pair_rows,
    picked,
    preference_rows,
)
from policysmith.experience.pairing import all_margin, best_worst
from policysmith.experience.preferences import pairs_from_rows
from policysmith.experience.prompts import from_rows
from policysmith.experience.rollouts import sampled
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder

PAIRS = pairs_from_rows(
    [
        {"prompt": "ab", "chosen": "cde", "rejected": "f", "score_chosen": 2, "score_rejected": 1},
        {"prompt": "a", "chosen": "g", "rejected": "hi", "score_chosen": 3, "score_rejected": -1},
    ]
)


@pytest.fixture(scope="module")
def policy():
    return small_decoder(0, width=32, layers=1, heads=2, context=24)


def test_rows_hold_prompt_answer_and_end_and_learn_from_the_last_two(policy):
    rows = preference_rows(policy, PAIRS)
    end = policy.end_tokens[0]
    assert rows["token"].shape == (2, 2, 6)
    first = rows[0]
    assert first["token"][0].tolist() == [*policy.encode("abcde"), end]
    assert first["mask"].int().tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]]
    assert first["attended"].int().tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]
    assert rows["label"].tolist() == [[1, 0], [1, 0]]
    assert rows["score"].tolist() == [[2, 1], [3, -1]]
    assert rows["row_id"].tolist() == [0, 1]


def test_a_cut_answer_has_no_end(policy):
    rows = preference_rows(policy, PAIRS, answer_limit=2)
    assert rows["token"][0, 0, :4].tolist() == policy.encode("abcd")
    assert rows["mask"].sum(2).tolist() == [[2, 2], [2, 2]]


def test_what_cannot_be_a_row_is_named(policy):
    long = pairs_from_rows([{"prompt": "ab", "chosen": "c" * 30, "rejected": "d"}])
    with pytest.raises(DataError, match="exceed the context") as caught:
        preference_rows(policy, [*PAIRS, *long])
    assert "row 2" in str(caught.value)
    alike = pairs_from_rows([{"prompt": "ab", "chosen": "cde", "rejected": "cdf"}])
    with pytest.raises(DataError, match="the same in their first 2"):
        preference_rows(policy, alike, answer_limit=2)
    with pytest.raises(SettingError, match="at most 0 tokens"):
        preference_rows(policy, PAIRS, answer_limit=0)


def test_an_answer_of_which_the_tokenizer_leaves_nothing_is_named(policy, monkeypatch):
    monkeypatch.setattr(type(policy), "encode", lambda self, text: [])
    with pytest.raises(DataError, match="makes nothing of answer 0"):
        preference_rows(policy, PAIRS)


def test_the_reference_is_remembered_by_preference(policy):
    sampler = PreferenceSampler(PAIRS, policy, rng=torch.Generator().manual_seed(0))
    assert sorted(sampler.missing(2)) == [0, 1]
    sampler.prepare([1], torch.tensor([[-3.0, -4.0]]))
    assert sampler.missing(2) == [0]
    rows = sampler.rows([1, 0])
    assert rows["reference_log_prob"][0].tolist() == [-3.0, -4.0]
    assert bool(rows["reference_log_prob"][1].isnan().all())
    again = PreferenceSampler(PAIRS, policy, rng=torch.Generator())
    again.load_state_dict(sampler.state_dict())
    assert again.missing(2) == [0]


# ---- of what was sampled --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(policy):
    sampler = sampled(policy, LocalEngine(policy), Sampling(limit=4), copies=3)
    prompts = from_rows([{"prompt": "ab"}, {"prompt": "c"}])
    found = sampler(dict(enumerate(prompts)), rng=torch.Generator().manual_seed(0))
    found.batch["reward"] = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, 5.0])
    return found


def test_rows_of_samples_are_the_samples(samples):
    rows = outcome_rows(samples, torch.tensor([[1, 0, -1], [3, 4, 5]]), torch.ones(2, 3))
    assert torch.equal(rows["token"][0, 0], samples.batch["token"][1])
    assert torch.equal(rows["mask"][1, 2], samples.batch["mask"][5])
    assert rows["present"].tolist() == [[True, True, False], [True] * 3]
    assert not bool(rows["mask"][0, 2].any())
    assert rows["label"][0].tolist() == [1, 1, 0]
    assert rows["score"][0].tolist() == [3, 1, 0]


def test_pairs_are_picked_within_a_prompt(samples):
    rows = picked(best_worst)(samples)
    assert rows["score"].tolist() == [[3, 1]], "the second prompt's answers are equal"
    assert picked(all_margin)(samples)["score"].tolist() == [[3, 1], [3, 2], [2, 1]]
    assert len(pair_rows(samples, [])) == 0


def test_rows_of_several_rollouts_are_padded_to_the_longest(samples):
    short = pair_rows(samples, [(1, 0)])
    short["token"], short["mask"], short["attended"] = (
        short[key][..., :3] for key in ("token", "mask", "attended")
    )
    both = padded_together([short, pair_rows(samples, [(2, 0)])], pad=7)
    time = samples.batch["token"].shape[1]
    assert both["token"].shape == (2, 2, time)
    assert bool((both["token"][0, :, 3:] == 7).all())
    assert not bool(both["attended"][0, :, 3:].any())


# ---- which answers make a pair ---------------------------------------------------------------------------


def test_best_over_worst_takes_the_first_of_equals_and_nothing_of_all_equal():
    assert best_worst(torch.tensor([7.0, 3, 9, 3, 8])) == [(2, 1)]
    assert best_worst(torch.tensor([6.0, 5, 5.5])) == [(0, 1)]
    assert best_worst(torch.tensor([4.0, 4, 4])) == []


def test_a_margin_leaves_near_ties_out():
    scores = torch.tensor([3.0, 1.0, 2.5])
    assert all_margin(scores, margin=1.0) == [(0, 1), (2, 1)]
    with pytest.raises(SettingError, match="margin"):
        all_margin(scores, margin=-1.0)

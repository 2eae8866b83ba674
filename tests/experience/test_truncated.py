"""Rollouts in windows: what goes on, what enters, what is kept of earlier windows."""

import pytest
import torch

pytest.importorskip("transformers")

from policysmith.common.errors import DataError, SettingError
from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.prompts import from_rows
from policysmith.experience.truncated import TruncatedRollout
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.sampling import Sampling
from policysmith.policies.language.small import small_decoder

PROMPTS = from_rows({"prompt": f"{a}+{b}=", "answer": a + b} for a in range(3) for b in range(3))


@pytest.fixture(scope="module")
def policy() -> LanguagePolicy:
    made = small_decoder(0, width=32, layers=2, heads=2, context=64)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(3)  # fresh weights are indifferent between all tokens
    return made


def rollout(policy: LanguagePolicy, **changes) -> TruncatedRollout:
    options = {"slots": 4, "window": 3, "copies": 2, "sampling": Sampling(limit=8, stop=("5", "8", "a", "Q"))}
    options |= changes
    sampling = options.pop("sampling")
    rng = torch.Generator().manual_seed(0)
    return TruncatedRollout(policy, LocalEngine(policy), PROMPTS, sampling, rng=rng, **options)


def windows(made: TruncatedRollout, count: int, *, seed: int = 1) -> list[Samples]:
    """`count` windows, each token valued by its place in the row."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for version in range(count):
        samples = made.sample(rng=rng, version=version)
        place = torch.arange(samples.batch["token"].shape[1]).float().expand_as(samples.batch["old_value"])
        samples.batch["old_value"] = torch.where(samples.batch["mask"], place, samples.batch["old_value"])
        made.put_back(samples)
        found.append(samples)
    return found


def test_the_number_of_answers_under_way_stays_the_same(policy):
    found = windows(rollout(policy), 8)
    assert [len(samples) for samples in found] == [4] * 8
    assert any(bool(samples.batch["truncated"].any()) for samples in found)
    assert any(not bool(samples.batch["truncated"].all()) for samples in found)


def test_a_window_is_at_most_so_many_tokens_and_exactly_so_many_where_it_is_cut(policy):
    for samples in windows(rollout(policy), 8):
        drawn = samples.batch["mask"].sum(1)
        assert int(drawn.max()) <= 3
        assert (drawn[samples.batch["truncated"]] == 3).all()


def test_an_answer_that_is_cut_goes_on_with_the_tokens_it_had(policy):
    first, second = windows(rollout(policy), 2)
    cut = first.batch["truncated"].nonzero()[:, 0].tolist()
    assert cut
    for row, before in enumerate(cut):
        assert second.requests[row].group_id == first.requests[before].group_id
        assert second.answer(row)[:3] == first.answer(before)
        assert int(second.batch["prefix_length"][row]) == 3


def test_only_the_last_window_is_learnt_from_and_every_window_is_known_of(policy):
    made = rollout(policy, sampling=Sampling(limit=8))
    first, second = windows(made, 2)
    batch, begin = second.batch, int(second.batch["prompt_length"][0])
    assert batch["written"][0].nonzero()[:, 0].tolist() == list(range(begin, begin + 6))
    assert batch["mask"][0].nonzero()[:, 0].tolist() == list(range(begin + 3, begin + 6))
    assert batch["weights_version"][0, begin : begin + 6].tolist() == [0, 0, 0, 1, 1, 1]
    earlier = first.batch["behaviour_log_prob"][0, begin : begin + 3]
    assert torch.equal(batch["behaviour_log_prob"][0, begin : begin + 3], earlier)


def test_values_stay_what_they_were_when_the_tokens_were_drawn(policy):
    made = rollout(policy, sampling=Sampling(limit=8))
    windows(made, 2)
    third = made.sample(rng=torch.Generator().manual_seed(5))
    begin = int(third.batch["prompt_length"][0])
    expected = [float(begin + place) for place in range(6)]
    assert third.batch["old_value"][0, begin : begin + 6].tolist() == expected
    assert not third.batch["old_value"][0, begin + 6 :].any()


def test_an_answer_that_met_the_limit_has_ended(policy):
    made = rollout(policy, sampling=Sampling(limit=7))
    truncated = [samples.batch["truncated"].tolist() for samples in windows(made, 4)]
    assert truncated == [[True] * 4, [True] * 4, [False] * 4, [True] * 4]


def test_a_window_as_long_as_the_limit_is_a_plain_rollout(policy):
    for samples in windows(rollout(policy, window=8), 3):
        assert not samples.batch["truncated"].any()
        assert torch.equal(samples.batch["mask"], samples.batch["written"])


def test_every_prompt_is_asked_as_often_as_it_should(policy):
    made = rollout(policy, window=8, slots=3, copies=2)
    asked = [(r.group_id, r.copy) for samples in windows(made, 4) for r in samples.requests]
    assert asked == [(group, copy) for group in range(6) for copy in range(2)]


def test_what_is_saved_goes_on_to_the_same_tokens(policy, tmp_path):
    made = rollout(policy)
    windows(made, 3)
    save_tree(tmp_path / "state.safetensors", {"rollout": made.state_dict(), "rng": made.rng.get_state()})
    expected = windows(made, 3, seed=9)

    saved = load_tree(tmp_path / "state.safetensors")
    again = rollout(policy)
    again.load_state_dict(saved["rollout"])
    again.rng.set_state(saved["rng"])
    for mine, theirs in zip(windows(again, 3, seed=9), expected, strict=True):
        assert mine.texts == theirs.texts
        assert [r.about for r in mine.requests] == [r.about for r in theirs.requests]
        for key in ("token", "behaviour_log_prob", "old_value", "weights_version", "truncated"):
            assert torch.equal(mine.batch[key], theirs.batch[key]), key


def test_answers_under_way_to_other_prompts_are_refused(policy):
    made = rollout(policy)
    windows(made, 1)
    rng = torch.Generator().manual_seed(0)
    other = TruncatedRollout(
        policy, LocalEngine(policy), PROMPTS[:4], Sampling(limit=8), slots=4, window=3, copies=2, rng=rng
    )
    with pytest.raises(DataError, match="not those of the saved run"):
        other.load_state_dict(made.state_dict())


@pytest.mark.parametrize(("window", "slots", "copies"), [(0, 4, 1), (9, 4, 1), (3, 0, 1), (3, 4, 0)])
def test_windows_and_slots_out_of_range_are_refused(policy, window, slots, copies):
    with pytest.raises(SettingError, match="1"):
        rollout(policy, window=window, slots=slots, copies=copies)


def test_a_prompt_that_does_not_fit_with_the_longest_answer_is_named(policy):
    made = rollout(policy, sampling=Sampling(limit=62), window=3)
    with pytest.raises(DataError, match="do not fit the context") as caught:
        made.sample(rng=torch.Generator())
    assert "+" in caught.value.where

"""The stages of learning from preferences: made once, and labelled as the labeller is said to label."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace

import pytest
import torch
from reviews_in_small import START

from policysmith.claims.common.reviews import gold
from policysmith.claims.common.rlhf import (
    Lists,
    Pairs,
    Proxy,
    Rankings,
    fine_tuned,
    misordered,
    proxy_accuracy,
)
from policysmith.common.errors import SettingError
from policysmith.common.stages import result_of
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt
from policysmith.training.learners.reward_models import RewardModelSettings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'"
)
torch.set_num_threads(1)

PAIRS = Pairs(START, size=60, flip_rate=0.0, scale=1e9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_lists_have_the_gold_reward_of_each_answer_and_are_sampled_once(folder):
    lists = Lists(START, size=5, answers=3)
    made = result_of(lists.make(folder))
    for row in made:
        assert row.labels == tuple(row.data["scores"])
        assert row.labels == pytest.approx([gold(text, row.prompt) for text in row.answers])
    with pytest.raises(StopIteration) as end:  # no stage: there was nothing to do
        next(lists.make(folder))
    assert end.value.value.fingerprint == made.fingerprint
    assert replace(lists, seed=1).path(folder) != lists.path(folder)


def test_a_labeller_of_sharp_sight_puts_the_better_answer_first_and_a_blind_one_tosses_a_coin(folder):
    assert misordered(result_of(PAIRS.make(folder))) == 0
    blind = result_of(replace(PAIRS, scale=1e-9).make(folder))
    assert 0.25 < misordered(blind) < 0.75
    assert result_of(replace(PAIRS, scale=1e-9).make(folder)).fingerprint == blind.fingerprint


def test_flips_turn_pairs_round_with_their_scores(folder):
    turned = result_of(replace(PAIRS, flip_rate=0.3).make(folder))
    flips = sum(bool(row.data.get("flipped")) for row in turned)
    assert flips == turned.provenance["flips"] > 0
    for row in turned:
        assert row.data["scores"] == pytest.approx([gold(text, row.prompt) for text in row.answers])
        if row.data["scores"][0] != row.data["scores"][1]:
            assert (row.data["scores"][0] < row.data["scores"][1]) == bool(row.data.get("flipped"))


def test_rankings_prefer_as_pairs_do(folder):
    sharp = result_of(Rankings(START, size=20, answers=4, scale=1e9).make(folder))
    for row in sharp:
        assert sorted(row.labels) == list(range(len(row.answers)))
        ranked = sorted(zip(row.labels, row.data["scores"], strict=True))
        assert [score for _, score in ranked] == sorted(row.data["scores"])
    noisy = Rankings(START, size=20, answers=4, scale=1.0)
    assert result_of(noisy.make(folder)).fingerprint == result_of(noisy.make(folder)).fingerprint
    assert result_of(noisy.make(folder)).fingerprint != sharp.fingerprint


def test_the_noise_of_rankings_is_bradley_and_terrys(folder, monkeypatch):
    row = Preference(Prompt("a"), ("b", "c"), (1.0, 0.0), {"scores": (0.4, 0.1)})

    def lists(self, folder):
        yield from ()
        return Preferences([row] * 4000)

    monkeypatch.setattr(Lists, "make", lists)
    made = result_of(Rankings(START, scale=3.0).make(folder))
    first = sum(one.labels[0] > one.labels[1] for one in made) / len(made)
    assert first == pytest.approx(1 / (1 + math.exp(-0.9)), abs=0.02)


def test_the_proxy_is_trained_once_and_ranks_what_it_was_shown_as_gold_does(folder):
    settings = RewardModelSettings(steps=60, batch_size=16, learning_rate=1e-2, warmup_steps=0)
    proxy = Proxy(PAIRS, settings)
    model = result_of(proxy.make(folder))
    pairs = result_of(PAIRS.make(folder))
    assert proxy_accuracy(model, pairs) > 0.75
    with pytest.raises(StopIteration) as end:
        next(proxy.make(folder))
    again = end.value.value
    texts, asked = [row.answers[0] for row in pairs], list(pairs.prompts)
    assert torch.equal(again(texts, asked), model(texts, asked))
    assert replace(proxy, seed=1).name != proxy.name


def test_two_that_go_on_from_one_start_are_shown_other_parts_of_the_same_reviews(folder):
    both = [fine_tuned(seed, first=START, size=40, steps=3) for seed in (0, 1)]
    shown = [{(one.prompt, one.answer) for one in recipe.examples} for recipe in both]
    assert len(shown[0]) == len(shown[1]) == 32
    assert shown[0] != shown[1]
    assert len(shown[0] | shown[1]) <= 40
    assert both[0].first == both[1].first == START
    made = [result_of(recipe.make(folder)).state_dict() for recipe in both]
    apart = [float((made[0][name] - made[1][name]).abs().max()) for name in made[0]]
    assert 0 < max(apart) < 0.1
    assert "first" not in START.identity


@pytest.mark.parametrize(
    "make",
    [
        lambda: Lists(START, size=0),
        lambda: Lists(START, answers=1),
        lambda: Pairs(START, scale=0),
        lambda: Rankings(START, scale=0),
        lambda: Pairs(START, flip_rate=0.5),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(SettingError):
        make()

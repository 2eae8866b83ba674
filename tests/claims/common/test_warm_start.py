"""Warm starts: trained once, found again by their recipe."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch

from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.stages import result_of
from policysmith.experience.examples import Example, Examples
from policysmith.training.learners.supervised import SupervisedSettings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'"
)
torch.set_num_threads(1)

RECIPE = WarmStart(
    Examples([Example("1+1=", "2"), Example("2+2=", "4")]),
    settings=SupervisedSettings(steps=3, batch_size=2),
    width=16,
    layers=1,
    heads=2,
    context=16,
)


def weights(policy):
    return torch.cat([weight.detach().flatten() for weight in policy.parameters()])


def test_a_warm_start_is_trained_once_and_kept(tmp_path):
    assert RECIPE.load(tmp_path) is None
    stages = RECIPE.make(tmp_path)
    first = next(stages)
    assert (first.done, first.total) == (1, 3)
    made = result_of(stages)
    with pytest.raises(StopIteration) as end:  # no stage: there was nothing to do
        next(RECIPE.make(tmp_path))
    assert torch.equal(weights(end.value.value), weights(made))
    kept = RECIPE.load(tmp_path)
    assert torch.equal(weights(kept), weights(made))
    assert kept.encode("1+1=") == made.encode("1+1=")
    assert kept.end_tokens == made.end_tokens
    assert kept.context == 16


def test_one_that_was_cut_short_is_not_taken_for_a_whole_one(tmp_path):
    stages = RECIPE.make(tmp_path)
    next(stages)
    stages.close()
    assert RECIPE.load(tmp_path) is None
    assert not RECIPE.path(tmp_path).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"examples": Examples([Example("1+1=", "3"), Example("2+2=", "4")])},
        {"settings": SupervisedSettings(steps=4, batch_size=2)},
        {"seed": 1},
        {"layers": 2},
        {"spread": 0.1},
        {"words": ("1+1=", "2+2=", "2", "4")},
    ],
)
def test_another_recipe_has_another_place(change, tmp_path):
    assert replace(RECIPE, **change).path(tmp_path) != RECIPE.path(tmp_path)


def test_the_same_recipe_makes_the_same_weights(tmp_path):
    both = [result_of(RECIPE.make(tmp_path / name)) for name in ("one", "other")]
    assert torch.equal(*map(weights, both))
    other = result_of(replace(RECIPE, seed=1).make(tmp_path / "one"))
    assert not torch.equal(weights(other), weights(both[0]))


def test_a_start_goes_on_from_the_one_before_and_is_another_one(tmp_path):
    second = replace(RECIPE, first=RECIPE, settings=SupervisedSettings(steps=2, batch_size=2, warmup_steps=0))
    assert "first" not in RECIPE.identity
    assert second.path(tmp_path) != RECIPE.path(tmp_path)
    stages = [stage.total for stage in second.make(tmp_path)]
    assert stages == [3, 3, 3, 2, 2]
    before, after = RECIPE.load(tmp_path), second.load(tmp_path)
    assert 0 < float((weights(after) - weights(before)).abs().max()) < 0.05


def test_a_start_over_characters_is_found_where_it_was_before_there_were_words(tmp_path):
    assert set(RECIPE.identity) == {"version", "examples", "settings", "seed", "sizes"}
    assert set(RECIPE.identity["sizes"]) == {"width", "layers", "heads", "context"}
    assert RECIPE.path(tmp_path).name == "84708c880f6a4026"


def test_a_start_over_words_reads_words(tmp_path):
    spoken = replace(RECIPE, words=("1+1=", "2+2=", "2", "4"))
    policy = result_of(spoken.make(tmp_path))
    assert policy.encode("2+2= 4") == [4, 6]
    assert spoken.load(tmp_path).encode("2+2= 4") == [4, 6]

"""Key names: a reader's missing keys are named, with what they should hold."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError
from policysmith.common.keys import KEYS, require_keys

BATCHES = [{"action": 1, "odd": 2}, TensorDict({"action": torch.zeros(3), "odd": torch.zeros(3)}, [3])]


@pytest.mark.parametrize("batch", BATCHES)
def test_a_batch_with_all_keys_passes(batch):
    require_keys(batch, ["action"], reader="the loss")
    require_keys(batch, (key for key in ("action", "odd")), reader="the loss")
    require_keys(batch, [], reader="the loss")


@pytest.mark.parametrize("batch", BATCHES)
def test_missing_keys_are_named_with_their_shape_and_meaning(batch):
    with pytest.raises(DataError) as caught:
        require_keys(batch, ["reward", "action", "mystery"], reader="the TD loss")
    assert caught.value.what == "the TD loss needs 'reward', 'mystery'"
    assert caught.value.where == "a batch with the keys ['action', 'odd']"
    assert caught.value.expected == f"reward: {KEYS['reward']}"


def test_a_key_nobody_documented_gives_no_empty_expectation():
    with pytest.raises(DataError) as caught:
        require_keys({}, ["mystery"], reader="x")
    assert "expected" not in str(caught.value)


def test_every_key_says_its_axes_and_its_meaning():
    for name, text in KEYS.items():
        shape, _, meaning = text.partition("  ")
        assert shape.startswith("[row"), name
        assert len(meaning) > 10, name

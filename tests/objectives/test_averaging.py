"""Weights over the optimiser batch: what they sum to and what they favour."""

import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.averaging import (
    constant_weight,
    fixed_weight,
    segment_mean_weight,
    sequence_mean_weight,
    token_mean_weight,
)

MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_tokens_count_alike_in_the_token_mean():
    assert token_mean_weight(MASK).tolist() == [[0.25, 0.25, 0.25], [0.25, 0, 0]]


def test_sequences_count_alike_in_the_sequence_mean():
    weight = sequence_mean_weight(MASK)
    assert weight.sum(1).tolist() == pytest.approx([0.5, 0.5])
    assert weight[1, 0] == pytest.approx(3 * float(weight[0, 0]))


def test_a_sequence_without_tokens_takes_no_share():
    weight = sequence_mean_weight(torch.cat([MASK, torch.zeros(1, 3, dtype=torch.bool)]))
    assert weight.sum(1).tolist() == pytest.approx([0.5, 0.5, 0])


def test_a_constant_denominator_does_not_depend_on_how_long_the_answers_are():
    assert constant_weight(MASK, length=10)[MASK].tolist() == pytest.approx([1 / 20] * 4)


def test_segments_count_alike():
    weight = segment_mean_weight(MASK, torch.tensor([[0, 0, 1], [2, 9, 9]]))
    assert weight.tolist() == [
        [pytest.approx(1 / 6)] * 2 + [pytest.approx(1 / 3)],
        [pytest.approx(1 / 3), 0, 0],
    ]


def test_a_batch_without_tokens_is_refused():
    with pytest.raises(DataError, match="no token"):
        token_mean_weight(torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(SettingError, match="at least 1"):
        constant_weight(MASK, length=0)


def test_a_sum_over_a_constant_does_not_know_how_many_tokens_there_are():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert fixed_weight(mask, denominator=4).tolist() == [[0.25, 0.25, 0], [0.25, 0, 0]]
    with pytest.raises(SettingError, match="denominator"):
        fixed_weight(mask, denominator=0)

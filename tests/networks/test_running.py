"""Running moments: the same however values are cut, saved, and what they scale."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policysmith.common.errors import DataError
from policysmith.networks.running import RunningMoments, RunningNormalizer, RunningReturnScale


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


VALUES = torch.randn(60, 3, generator=rng()) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 3.0, -7.0])


@given(cuts=st.lists(st.integers(1, 59), max_size=5))
def test_moments_do_not_depend_on_how_values_are_cut(cuts):
    whole, parts = RunningNormalizer(3), RunningNormalizer(3)
    whole.update(VALUES)
    edges = [0, *sorted(set(cuts)), 60]
    for start, end in pairwise(edges):
        parts.update(VALUES[start:end])
    torch.testing.assert_close(whole.mean, parts.mean)
    torch.testing.assert_close(whole.variance, parts.variance)
    torch.testing.assert_close(whole.mean, VALUES.double().mean(0))
    torch.testing.assert_close(whole.variance, VALUES.double().var(0, correction=0))


def test_values_come_out_standardised_and_clipped():
    normalizer = RunningNormalizer(3, clip=2.0)
    assert torch.equal(normalizer(torch.tensor([[0.5, 1.0, 9.0]])), torch.tensor([[0.5, 1.0, 2.0]]))
    normalizer.update(VALUES)
    scaled = RunningNormalizer(3, clip=10.0)
    scaled.load_state_dict(normalizer.state_dict())
    found = scaled(VALUES)
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert float(normalizer(VALUES + 100).max()) == 2


def test_rewards_are_divided_by_the_deviation_of_discounted_sums():
    scale = RunningReturnScale(1, 0.5)
    sums = []
    total = 0.0
    for step in range(20):
        reward = float(step % 3)
        total = 0.5 * total + reward
        sums.append(total)
        scale.update(torch.tensor([reward]), torch.tensor([step % 7 == 6]))
        total = 0.0 if step % 7 == 6 else total
    deviation = torch.tensor(sums, dtype=torch.float64).std(correction=0)
    assert float(scale.deviation) == pytest.approx(float(deviation), rel=1e-6)
    assert float(scale(torch.tensor(1.0))) == pytest.approx(1 / float(deviation), rel=1e-6)
    other = RunningReturnScale(1, 0.5)
    other.load_state_dict(scale.state_dict())
    assert float(other.deviation) == float(scale.deviation)


def test_each_objective_has_a_scale_of_its_own():
    scale = RunningReturnScale(2, 0.9, objectives=2)
    for _ in range(5):
        reward = torch.randn(2, 2, generator=rng()) * torch.tensor([1.0, 100.0])
        scale.update(reward, torch.tensor([False, False]))
    assert scale.deviation.shape == (2,)
    assert float(scale.deviation[1]) > 10 * float(scale.deviation[0])


def test_the_first_batch_sets_the_moments_of_numbers_by_hand():
    moments = RunningMoments()
    moments.update(torch.tensor([1.0, 2.0, 4.0, -1.0]))
    assert float(moments.mean) == pytest.approx(1.5)
    assert float(moments.deviation) == pytest.approx(2.081666, abs=1e-6)


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30),
    cuts=st.lists(st.integers(1, 29), max_size=4),
)
def test_moments_of_numbers_are_the_unbiased_ones_however_they_are_cut(values, cuts):
    moments, everything = RunningMoments(), torch.tensor(values, dtype=torch.float64)
    edges = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    for start, end in pairwise(edges):
        moments.update(everything[start:end])
    assert float(moments.mean) == pytest.approx(float(everything.mean()), abs=1e-9)
    if float(everything.std()) > 1e-6:
        assert float(moments.deviation) == pytest.approx(float(everything.std()), rel=1e-6)


def test_a_deviation_that_says_nothing_is_one():
    moments = RunningMoments()
    assert float(moments.deviation) == 1
    moments.update(torch.tensor([3.0]))
    assert float(moments.deviation) == 1
    moments.update(torch.tensor([3.0, 3.0]))
    assert float(moments.deviation) == 1
    moments.update(torch.zeros(0))
    assert float(moments.count) == 3


def test_moments_go_on_from_what_was_saved_and_refuse_what_is_not_finite():
    first, second = RunningMoments(), RunningMoments()
    first.update(VALUES[:, 0])
    second.load_state_dict(first.state_dict())
    second.update(VALUES[:, 1])
    assert float(first.count) == 60  # a copy, not a share
    first.update(VALUES[:, 1])
    assert float(second.deviation) == float(first.deviation)
    with pytest.raises(DataError, match="row 1"):
        first.update(torch.tensor([0.0, torch.inf]))

"""Level patterns against the paper's definition, position by position, and what the regimes draw."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError
from policysmith.networks.levels import (
    chunk_count,
    chunk_index,
    chunkwise_levels,
    constant_levels,
    increasing_levels,
    independent_levels,
    mixed_levels,
    streaming_levels,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_definition(steps: int, horizon: int, observed: int, acted: int) -> list[int]:
    """The definition of the pattern read aloud, one position at a time."""
    chunks = (horizon - (observed - 1)) // acted
    levels = []
    for position in range(horizon):
        chunk = 0 if position < observed else (position - (observed - 1)) // acted
        if position >= acted * chunks + (observed - 1):
            chunk = chunks - 1
        levels.append(steps * (chunk + 1) // chunks - 1)
    return levels


# ---- the pattern -------------------------------------------------------------------------------------


def test_pattern_of_sixteen_positions_in_three_chunks():
    expected = [5, 5, 5, 5, 5, 12, 12, 12, 12, 19, 19, 19, 19, 19, 19, 19]
    assert streaming_levels(20, 16, 2, 4).tolist() == expected
    assert chunk_count(16, 2, 4) == 3


def test_pattern_of_the_published_settings():
    # Tp 20, To 2, Ta 8: two chunks, three positions left over that count as the second.
    assert streaming_levels(100, 20, 2, 8).tolist() == [49] * 9 + [99] * 11
    assert streaming_levels(100, 20, 2, 5).tolist() == [32] * 6 + [65] * 5 + [99] * 9
    assert streaming_levels(16, 20, 2, 5).tolist() == [4] * 6 + [9] * 5 + [15] * 9


def test_pattern_of_single_action_chunks_rises_at_every_step():
    levels = streaming_levels(50, 16, 2, 1)
    assert chunk_count(16, 2, 1) == 15
    assert levels[:3].tolist() == [2, 2, 5]
    assert bool((levels[1:].diff() >= 3).all())
    assert int(levels[-1]) == 49


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(1, 120),
    horizon=st.integers(1, 40),
    observed=st.integers(1, 5),
    acted=st.integers(1, 12),
)
def test_pattern_is_the_definition_and_never_falls(steps, horizon, observed, acted):
    assume(horizon >= observed - 1 + acted)
    chunks = chunk_count(horizon, observed, acted)
    assume(steps >= chunks)
    levels = streaming_levels(steps, horizon, observed, acted)
    assert levels.dtype == torch.long
    assert levels.tolist() == by_definition(steps, horizon, observed, acted)
    assert bool((levels.diff() >= 0).all())
    assert int(levels.min()) >= 0
    assert int(levels[-1]) == steps - 1
    chunk = chunk_index(horizon, observed, acted)
    assert chunk.unique().tolist() == list(range(chunks))
    assert levels.unique().numel() == chunks  # no two chunks share a level


def test_one_chunk_is_ordinary_diffusion_from_pure_noise():
    assert streaming_levels(10, 9, 2, 8).tolist() == [9] * 9


@pytest.mark.parametrize("make", [streaming_levels, chunkwise_levels])
def test_fewer_levels_than_chunks_are_refused_naming_both(make):
    with pytest.raises(SettingError, match="2 noise levels cannot be spread over 3 chunks") as caught:
        make(2, 16, 2, 4)
    assert "3 or more" in caught.value.cure
    make(3, 16, 2, 4)


@pytest.mark.parametrize("make", [chunk_count, chunk_index])
@pytest.mark.parametrize(
    ("horizon", "observed", "acted"), [(8, 2, 8), (1, 3, 1), (8, 2, 0), (8, 0, 2), (8, 2, -1)]
)
def test_a_horizon_without_one_whole_chunk_is_refused_naming_the_numbers(make, horizon, observed, acted):
    message = f"a horizon of {horizon} is too short for {observed} observation steps and {acted} action steps"
    with pytest.raises(SettingError, match=message) as caught:
        make(horizon, observed, acted)
    if acted > 0 and observed > 0:
        assert f"at least {observed - 1 + acted}" in caught.value.expected
    with pytest.raises(SettingError, match=message):
        streaming_levels(20, horizon, observed, acted)


# ---- regimes -----------------------------------------------------------------------------------------

REGIMES = {
    "constant": constant_levels(6, 8),
    "increasing": increasing_levels(6, 8),
    "independent": independent_levels(6, 8),
    "chunkwise": chunkwise_levels(6, 8, 2, 2),
    "mixed": mixed_levels([(0.5, constant_levels(6, 8)), (0.5, independent_levels(6, 8))]),
}


@pytest.mark.parametrize("name", REGIMES)
def test_levels_are_whole_in_range_repeatable_and_drawn_from_their_own_stream(name):
    before = torch.get_rng_state()
    levels = REGIMES[name](300, rng())
    assert levels.shape == (300, 8)
    assert levels.dtype == torch.long
    assert int(levels.min()) >= 0
    assert int(levels.max()) == 5
    assert torch.equal(levels, REGIMES[name](300, rng()))
    assert torch.equal(torch.get_rng_state(), before)


def test_constant_levels_agree_within_a_sample_and_are_uniform_over_samples():
    levels = REGIMES["constant"](6000, rng())
    assert bool((levels == levels[:, :1]).all())
    counts = levels[:, 0].bincount(minlength=6)
    assert bool((counts - 1000).abs().max() < 150)  # five deviations


def test_increasing_levels_rise_evenly_from_clean_to_noise():
    assert increasing_levels(8, 8)(2, rng()).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]] * 2
    levels = increasing_levels(100, 12)(1, rng())[0]
    assert levels.tolist() == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]


def test_independent_levels_differ_between_positions_and_are_uniform_at_each():
    levels = REGIMES["independent"](6000, rng()).float()
    correlation = torch.corrcoef(levels.T) - torch.eye(8)
    assert float(correlation.abs().max()) < 0.07
    assert bool(((levels.mean(0) - 2.5).abs() < 0.12).all())


def test_chunkwise_levels_are_the_pattern_lowered_by_less_than_one_chunk():
    pattern = streaming_levels(20, 16, 2, 4)
    levels = chunkwise_levels(20, 16, 2, 4)(6000, rng())
    lowered = pattern - levels
    assert bool((lowered == lowered[:, :1]).all())
    counts = lowered[:, 0].bincount()
    assert len(counts) == 20 // 3
    assert bool((counts - 1000).abs().max() < 150)
    assert levels[:, 0].min() == 0


def test_a_mixture_draws_one_regime_for_the_whole_batch_in_its_proportions():
    def marked(number):
        return lambda batch, stream: torch.full((batch, 4), number)

    draw = mixed_levels([(0.2, marked(0)), (0.0, marked(1)), (0.0, marked(2)), (0.8, marked(3))])
    stream = rng()
    batches = [draw(3, stream) for _ in range(2000)]
    assert all(batch.unique().numel() == 1 for batch in batches)
    shares = torch.stack([batch[0, 0] for batch in batches]).bincount(minlength=4) / 2000
    assert shares[1] == shares[2] == 0
    assert float(shares[0]) == pytest.approx(0.2, abs=0.04)


def test_a_mixture_of_one_draws_that_one():
    draw = mixed_levels([(0.0, constant_levels(6, 8)), (1.0, increasing_levels(6, 8))])
    assert torch.equal(draw(5, rng()), increasing_levels(6, 8)(5, rng()))


@pytest.mark.parametrize(
    "probabilities", [[0.5, 0.4], [1.2, -0.2], [], [float("nan"), 1.0], [float("inf"), 0.0], [0.0, 0.0]]
)
def test_probabilities_that_are_none_are_listed(probabilities):
    with pytest.raises(SettingError) as caught:
        mixed_levels([(probability, constant_levels(6, 8)) for probability in probabilities])
    assert str(probabilities) in caught.value.what
    assert "sum of 1" in caught.value.expected


def test_probabilities_may_be_off_by_rounding():
    mixed_levels([(0.1, constant_levels(6, 8))] * 10)

"""Measures of made rows, against numbers worked by hand, SciPy and slow loops."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from policysmith.common.errors import ShapeError
from policysmith.objectives.fidelity import (
    correlation_similarity,
    dynamics_error,
    kolmogorov_smirnov,
    marginal_similarity,
    nearest_distance,
    nearest_other_distance,
)


def rows(count: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))


def test_kolmogorov_smirnov_is_scipys():
    first, second = rows(200, 3), 0.3 + rows(150, 3, 1)
    expected = [stats.ks_2samp(first[:, i], second[:, i]).statistic for i in range(3)]
    assert kolmogorov_smirnov(first, second).tolist() == pytest.approx(expected)


def test_kolmogorov_smirnov_by_hand_and_with_ties():
    first, second = torch.tensor([[1.0], [2.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0]])
    assert float(kolmogorov_smirnov(first, second)) == pytest.approx(0.5)


def test_marginals_are_alike_where_rows_are_and_apart_where_they_do_not_meet():
    one = rows(50, 2)
    assert float(marginal_similarity(one, one.flip(0))) == 1.0
    assert float(marginal_similarity(one, one + 100)) == 0.0


def test_correlation_similarity_is_zero_for_opposite_columns_and_one_for_a_copy():
    x = rows(100, 1)
    same, opposite = torch.cat([x, x], 1), torch.cat([x, -x], 1)
    assert float(correlation_similarity(same, opposite)) == pytest.approx(0.0, abs=1e-9)
    assert float(correlation_similarity(same, same)) == pytest.approx(1.0)


def test_constant_columns_have_no_correlation_and_do_not_count():
    x = rows(100, 2)
    constant = torch.cat([x, torch.ones(100, 1)], 1)
    assert float(correlation_similarity(constant, constant)) == pytest.approx(1.0)
    assert float(correlation_similarity(constant[:, 1:], constant[:, 1:])) == 1.0


def test_nearest_distance_is_that_of_a_slow_loop_however_it_is_cut():
    some, reference = rows(7, 3), rows(11, 3, 1)
    expected = [min(float((row - other).norm()) for other in reference) for row in some]
    for chunk in (1, 4, 100):
        assert nearest_distance(some, reference, chunk=chunk).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_copy_is_at_distance_zero():
    reference = 1000 + rows(3000, 4)
    assert float(nearest_distance(reference[:30], reference).max()) == 0.0


def test_dynamics_error_is_the_mean_square_over_state_and_reward():
    said = dynamics_error(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([3.0]),
        true_next_observation=torch.tensor([[1.0, 4.0]]),
        true_reward=torch.tensor([0.0]),
    )
    assert said.tolist() == pytest.approx([(0 + 4 + 9) / 3])


def test_dynamics_error_in_units_of_a_scale():
    said = dynamics_error(
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([3.0]),
        true_next_observation=torch.tensor([[1.0, 4.0]]),
        true_reward=torch.tensor([0.0]),
        scale=torch.tensor([1.0, 2.0, 3.0]),
    )
    assert said.tolist() == pytest.approx([(0 + 1 + 1) / 3])


def test_other_widths_and_no_rows_are_refused():
    with pytest.raises(ShapeError, match="as many columns"):
        kolmogorov_smirnov(rows(3, 2), rows(3, 3))
    with pytest.raises(ShapeError):
        nearest_distance(rows(3, 2), rows(0, 2))


def test_the_nearest_other_row_is_not_the_row_itself_however_it_is_cut():
    some = rows(9, 2)
    expected = [min(float((a - b).norm()) for j, b in enumerate(some) if j != i) for i, a in enumerate(some)]
    for chunk in (2, 100):
        assert nearest_other_distance(some, chunk=chunk).tolist() == pytest.approx(expected, abs=1e-5)
    assert nearest_other_distance(some, rows=3, chunk=2).tolist() == pytest.approx(expected[:3], abs=1e-5)


def test_of_two_equal_rows_each_is_the_other_and_a_single_row_has_none():
    assert nearest_other_distance(torch.ones(2, 3)).tolist() == [0, 0]
    assert nearest_other_distance(torch.ones(1, 3)).tolist() == [float("inf")]

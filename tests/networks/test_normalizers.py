"""Normalizers: hand numbers, inverses, columns that never vary, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, ShapeError
from policysmith.common.saving import from_pretrained, save_pretrained
from policysmith.networks.normalizers import Normalizer

DATA = torch.tensor([[0.0, 10.0, 5.0], [2.0, 30.0, 5.0], [1.0, 20.0, 5.0]])
COLUMNS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=20)


def test_an_unfitted_normalizer_changes_nothing():
    values = torch.randn(4, 2, 3, generator=torch.Generator())
    assert torch.equal(Normalizer(3)(values), values)
    assert torch.equal(Normalizer(3).inverse(values), values)


def test_the_range_becomes_minus_one_to_one():
    normalizer = Normalizer(3).fit_range(DATA)
    assert normalizer.offset.tolist() == [1, 20, 5]
    assert normalizer.scale.tolist() == [1, 10, 1]
    assert normalizer(DATA).tolist() == [[-1, -1, 0], [1, 1, 0], [0, 0, 0]]
    assert normalizer(torch.tensor([4.0, 0.0, 6.0])).tolist() == [3, -2, 1]


def test_the_moments_become_zero_and_one():
    normalizer = Normalizer(3).fit_moments(DATA)
    assert normalizer.offset.tolist() == [1, 20, 5]
    assert normalizer.scale.tolist() == [1, 10, 1]  # unbiased: sqrt(((-1)^2 + 1^2 + 0) / 2)
    assert Normalizer(1).fit_moments(torch.tensor([[1.0], [3.0]])).scale.item() == pytest.approx(math.sqrt(2))


def test_epsilon_is_added_to_deviations_only_where_a_column_varies():
    assert Normalizer(3).fit_moments(DATA, epsilon=0.5).scale.tolist() == [1.5, 10.5, 1]


@settings(deadline=None, max_examples=50)
@given(values=COLUMNS)
def test_fitted_data_lie_in_the_box_and_come_back(values):
    data = torch.tensor(values)[:, None]
    normalizer = Normalizer(1).fit_range(data)
    scaled = normalizer(data)
    if float(data.max() - data.min()) > 1e-2:
        assert float(scaled.min()) == pytest.approx(-1, abs=0.02)
        assert float(scaled.max()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(normalizer.inverse(scaled), data, atol=2e-4, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(values=COLUMNS)
def test_standardised_data_have_mean_zero_and_come_back(values):
    data = torch.tensor(values)[:, None]
    normalizer = Normalizer(1).fit_moments(data)
    scaled = normalizer(data)
    if float(data.max() - data.min()) > 1e-2:
        assert float(scaled.double().mean()) == pytest.approx(0, abs=0.05)
        assert float(scaled.double().std()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(normalizer.inverse(scaled), data, atol=2e-4, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 11, 1000])
@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e6])
@pytest.mark.parametrize("fit", ["fit_range", "fit_moments"])
def test_a_column_that_never_varies_is_only_shifted(rows, value, fit):
    # In double precision the mean of equal numbers is not always that number.
    data = torch.full((rows, 1), value, dtype=torch.float64)
    normalizer = getattr(Normalizer(1), fit)(data)
    assert normalizer.scale.item() == 1
    assert normalizer.offset.item() == pytest.approx(value, rel=1e-6)
    assert abs(float(normalizer(data.float())[0])) <= 0.1
    assert float(normalizer(data.float() + 2)[0]) == pytest.approx(2, abs=0.1)


def test_the_smallest_width_that_counts_can_be_chosen():
    data = torch.tensor([[0.0], [1e-4]])
    assert Normalizer(1).fit_range(data).scale.item() == pytest.approx(5e-5)
    assert Normalizer(1).fit_range(data, minimum_width=1e-3).scale.item() == 1


def test_fitting_again_forgets_and_returns_itself():
    normalizer = Normalizer(3)
    assert normalizer.fit_range(100 * DATA) is normalizer
    assert torch.equal(normalizer.fit_range(DATA).scale, Normalizer(3).fit_range(DATA).scale)


def test_it_is_saved_with_the_weights_and_not_learnt(tmp_path):
    normalizer = Normalizer(3).fit_range(DATA)
    assert list(normalizer.parameters()) == []
    save_pretrained(normalizer, tmp_path / "n")
    loaded = from_pretrained(tmp_path / "n", expected=Normalizer)
    assert torch.equal(loaded.offset, normalizer.offset)
    assert torch.equal(loaded.scale, normalizer.scale)


def test_gradients_pass_through_scaled():
    values = torch.zeros(3, requires_grad=True)
    Normalizer(3).fit_range(DATA)(values).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([1, 0.1, 1]))


@pytest.mark.parametrize("fit", ["fit_range", "fit_moments"])
@pytest.mark.parametrize("shape", [(4, 2), (3,), (2, 4, 3), (0, 3)])
def test_data_of_another_shape_are_refused(fit, shape):
    with pytest.raises(ShapeError) as caught:
        getattr(Normalizer(3), fit)(torch.zeros(shape))
    assert str(tuple(shape)) in caught.value.what
    assert "[row, 3]" in caught.value.expected


@pytest.mark.parametrize("fit", ["fit_range", "fit_moments"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_naming_the_column(fit, bad):
    data = DATA.clone()
    data[2, 1] = bad
    normalizer = Normalizer(3)
    with pytest.raises(DataError, match="not finite") as caught:
        getattr(normalizer, fit)(data)
    assert "column 1" in caught.value.where
    assert torch.equal(normalizer(DATA), DATA)

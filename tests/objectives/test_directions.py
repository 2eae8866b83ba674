"""Principal directions: hand numbers, what they are invariant to, and what the quotients are worth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives import directions
from policysmith.objectives.decisions import unstable_direction
from policysmith.objectives.directions import (
    concentration,
    correlation_quotient,
    instability_trace,
    overlap,
    principal_direction,
    spectrum,
    variation,
)


def rows(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_two_states_of_the_identity_by_hand():
    states = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.double)
    found = principal_direction(unstable_direction(lambda s: s.clone(), states))
    assert found.eigenvalue == pytest.approx(0.17307765, abs=1e-7)
    assert found.vector.abs().tolist() == pytest.approx([0.70710678] * 2, abs=1e-7)
    assert float(found.vector.sum()) == pytest.approx(0, abs=1e-7)
    assert found.explained == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (1, 5), (5, 1)])
def test_it_is_the_first_eigenvector_of_the_summed_outer_products(shape):
    some = rows(*shape)
    values, vectors = torch.linalg.eigh(some.T @ some)
    found = principal_direction(some)
    assert found.eigenvalue == pytest.approx(float(values[-1]))
    assert found.explained == pytest.approx(float(values[-1] / values.sum()))
    assert float((found.vector @ vectors[:, -1]).abs()) == pytest.approx(1.0)
    assert float(found.vector.norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_large_sets_come_to_the_same(shape, monkeypatch):
    exact = principal_direction(rows(*shape))
    monkeypatch.setattr(directions, "EXACT", 10)
    found = principal_direction(rows(*shape))
    assert found.eigenvalue == pytest.approx(exact.eigenvalue, rel=1e-10)
    assert torch.allclose(found.vector, exact.vector, atol=1e-8)


def test_it_is_not_centred():
    some = torch.tensor([[10.0, 1.0], [10.0, -1.0]])
    assert principal_direction(some).vector.tolist() == pytest.approx([1.0, 0.0])


def test_its_sign_is_that_of_the_largest_entry_whatever_the_rows_signs():
    some = rows(12, 5)
    found = principal_direction(some).vector
    assert found[found.abs().argmax()] > 0
    assert torch.allclose(found, principal_direction(-some).vector)


def test_it_has_the_shape_of_a_state():
    assert principal_direction(rows(4, 24).reshape(4, 3, 4, 2)).vector.shape == (3, 4, 2)


def test_normalised_rows_count_alike_and_zeros_nothing():
    some = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert principal_direction(some).vector.tolist() == pytest.approx([1.0, 0.0])
    found = principal_direction(some, normalise=True)
    assert found.vector.tolist() == pytest.approx([0.0, 1.0])
    assert found.eigenvalue == pytest.approx(2.0)


def test_where_every_direction_is_zero_a_temperature_is_advised():
    with pytest.raises(DataError, match="temperature"):
        principal_direction(torch.zeros(3, 2))
    with pytest.raises(DataError, match="no directions"):
        principal_direction(torch.zeros(0, 2))


# ---- quotients ----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from(["shifted", "base"]))
def test_quotients_are_between_zero_and_one_and_one_on_the_same_set(seed, normalise, reference):
    a, b = rows(9, 6, seed), rows(5, 6, seed + 1)
    found = correlation_quotient(a, b, reference=reference, normalise=normalise)
    assert 0 <= found <= 1
    assert correlation_quotient(a, a, reference=reference, normalise=normalise) == pytest.approx(1.0)
    assert correlation_quotient(a, -3 * a, reference=reference) == pytest.approx(1.0)


def test_quotients_by_hand_are_not_symmetric():
    base = torch.tensor([[1.0, 0.0]])
    shifted = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # L' = [[0.36, 0.48], [0.48, 1.64]]: trace 2, determinant 0.36, largest eigenvalue 1.8; G' ~ (1, 3).
    assert correlation_quotient(base, shifted) == pytest.approx(0.36 / 1.8)
    assert correlation_quotient(base, shifted, reference="base") == pytest.approx(0.1)
    assert correlation_quotient(shifted, base) == pytest.approx(0.1)


def test_directions_on_other_places_explain_nothing():
    assert correlation_quotient(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])) == 0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ShapeError, match="one environment"):
        correlation_quotient(rows(3, 2), rows(3, 4))
    with pytest.raises(SettingError, match="reference"):
        correlation_quotient(rows(3, 2), rows(3, 2), reference="both")  # type: ignore[arg-type]


# ---- numbers of one direction, and of a run -----------------------------------------------------------


def test_a_trace_is_the_length_at_every_step_and_varies_by_hand():
    trace = instability_trace(torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]], [[0.0, 0.0]]]))
    assert trace.tolist() == [5.0, 1.0, 0.0]
    assert variation(trace) == pytest.approx(math.sqrt((9 + 1 + 4) / 3) / 2)
    assert variation(7 * trace) == pytest.approx(variation(trace))
    assert variation(torch.ones(4)) == variation(torch.zeros(4)) == 0


def test_overlap_ignores_signs():
    a, b = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    assert overlap(a, b) == pytest.approx(1.0)
    assert overlap(a, torch.tensor([0.0, 0.0, 2.0])) == 0
    assert overlap(a, torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(math.sqrt(0.5))


def test_concentration_is_the_share_in_the_largest_places():
    direction = torch.tensor([[4.0, -1.0], [1.0, 2.0]])
    assert concentration(direction, share=0.25) == pytest.approx(0.5)
    assert concentration(direction, share=0.01) == pytest.approx(0.5)  # one place at least
    assert concentration(direction, share=1.0) == pytest.approx(1.0)
    with pytest.raises(SettingError, match="share"):
        concentration(direction, share=0.0)


def test_the_spectrum_of_a_constant_is_its_middle_and_of_a_point_is_flat():
    constant = spectrum(torch.ones(4, 6))
    assert float(constant[2, 3]) == pytest.approx(24.0)
    assert float(constant.sum()) == pytest.approx(24.0)
    point = torch.zeros(4, 6, 2)
    point[1, 2, 0] = 1.0
    assert torch.allclose(spectrum(point)[..., 0], torch.ones(4, 6, dtype=torch.double))
    assert float(spectrum(point)[..., 1].sum()) == 0
    with pytest.raises(ShapeError, match="height"):
        spectrum(torch.ones(4))

"""Boxes of uncertain parameters: their points, and the boxes that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.worlds.uncertainty import Parameter, UncertaintyBox, told

BOX = UncertaintyBox((Parameter("pole mass", 1, 31, 4.9), Parameter("cart mass", 1, 11)))


def test_shares_of_the_way_are_points_of_the_box():
    np.testing.assert_allclose(BOX.point([0, 1]), [1, 11])
    np.testing.assert_allclose(BOX.point([[0.5, 0.5], [1, 0.1]]), [[16, 6], [31, 2]])


def test_a_grid_has_all_combinations_evenly_from_end_to_end():
    grid = BOX.grid(3)
    assert grid.tolist() == [[p, c] for p in (1, 16, 31) for c in (1, 6, 11)]
    assert BOX.grid(10).shape == (100, 2)


def test_draws_fill_the_box_and_repeat_by_their_generator():
    draws = BOX.draw(2000, rng=torch.Generator().manual_seed(0))
    again = BOX.draw(2000, rng=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(draws, again)
    assert (draws >= BOX.low).all()
    assert (draws <= BOX.high).all()
    np.testing.assert_allclose(draws.mean(0), [16, 6], rtol=0.05)


def test_a_point_has_names():
    assert BOX.named([2, 3]) == {"pole mass": 2.0, "cart mass": 3.0}
    assert told(BOX.named([31, 1.25])) == "pole mass 31, cart mass 1.25"


def test_a_box_is_made_of_names_and_ends():
    made = UncertaintyBox.of(("pole mass", "cart mass"), (1, 1), (31, 11))
    np.testing.assert_array_equal(made.grid(4), BOX.grid(4))


@pytest.mark.parametrize("ends", [(2, 1), (1, 1), (0, float("inf")), (float("nan"), 1)])
def test_ends_in_the_wrong_order_name_their_parameter(ends):
    with pytest.raises(SettingError, match="'torso mass'") as raised:
        Parameter("torso mass", *ends)
    assert isinstance(raised.value, ValueError)


def test_a_nominal_value_outside_of_its_range_names_its_parameter():
    with pytest.raises(ValueError, match=r"nominal value 3\.53 of the parameter 'torso mass'"):
        Parameter("torso mass", 0.1, 3.0, 3.53)


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_a_box_needs_parameters_with_names_of_their_own(names):
    with pytest.raises(SettingError, match="each with its own name"):
        UncertaintyBox(tuple(Parameter(name, 0, 1) for name in names))


def test_ends_and_points_of_other_sizes_are_refused():
    with pytest.raises(SettingError, match="2 parameters with 1 low"):
        UncertaintyBox.of(("a", "b"), (0,), (1, 1))
    for point in ([1], [[1, 2, 3]], 1.0):
        with pytest.raises(ShapeError, match="2 numbers"):
            BOX.point(point)
    with pytest.raises(ShapeError, match=r"\[2\]"):
        BOX.named([[1, 2]])
    with pytest.raises(SettingError, match="at least 2"):
        BOX.grid(1)

"""Limits of actions against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policysmith.common.errors import SettingError, ShapeError
from policysmith.policies.limits import ActionLimits

NOTHING = np.full((1, 2), np.nan, np.float32)


def rows(*values):
    return np.array(values, np.float32)


def test_without_limits_actions_pass_as_they_are():
    action = rows([1e9, -1e9])
    assert np.array_equal(ActionLimits(2).apply(action, rows([0, 0])), action)


def test_a_box_holds_in_every_dimension_by_itself():
    limits = ActionLimits(2, low=[-1, -2], high=3)
    assert limits.apply(rows([-5, -5], [5, 0]), np.full((2, 2), np.nan)).tolist() == [[-1, -2], [3, 0]]


def test_an_action_moves_at_most_by_the_largest_change_from_the_last():
    limits = ActionLimits(2, largest_change=[0.5, 2])
    assert limits.apply(rows([9, 1]), rows([1, 0])).tolist() == [[1.5, 1]]
    assert limits.apply(rows([-9, -9]), rows([1, 0])).tolist() == [[0.5, -2]]


def test_a_first_action_may_go_anywhere_in_the_box():
    assert ActionLimits(2, high=5, largest_change=0.1).apply(rows([9, -7]), NOTHING).tolist() == [[5, -7]]


def test_the_box_has_the_last_word_where_the_last_action_was_outside_of_it():
    limits = ActionLimits(1, low=-1, high=1, largest_change=0.5)
    assert limits.apply(rows([9]), rows([3])).tolist() == [[1]]


finite = st.floats(-5, 5, width=32)


@given(
    arrays(np.float32, (3, 2), elements=finite),
    arrays(np.float32, (3, 2), elements=st.floats(-1, 1, width=32)),
    st.floats(0.125, 4, width=32),
)
def test_from_within_the_box_both_limits_hold(action, last, change):
    limited = ActionLimits(2, low=-1, high=1, largest_change=change).apply(action, last)
    assert (np.abs(limited) <= 1).all()
    assert (np.abs(limited - last) <= change + 1e-6).all()
    inside = (np.abs(action) <= 1) & (np.abs(action - last) <= change)
    # Not to the last bit: at the very edge, last + change is rounded like any float32.
    np.testing.assert_allclose(limited[inside], action[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 1, "high": 0}, SettingError, "low below high"),
        ({"low": np.nan}, SettingError, "low below high"),
        ({"largest_change": 0}, SettingError, "above 0"),
        ({"high": [1, 2, 3]}, ShapeError, "'high' has shape"),
        ({"largest_change": [[1, 2]]}, ShapeError, "one for each of 2 actions"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        ActionLimits(2, **options)

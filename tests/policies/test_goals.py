"""The condition of goal policies: which numbers of a goal are told, scaled as what, and what says "none"."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.policies.goals import GoalCondition, own_dimensions, rows_by_length


def condition(**options) -> GoalCondition:
    made = GoalCondition(4, **options)
    made.normalizer.offset.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    made.normalizer.scale.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    return made


def test_a_goal_is_scaled_like_a_state_and_zero_in_the_other_dimensions():
    made = condition(goal_dimensions=(3, 1))
    assert made.goal_size == 2
    scaled = made.scale_goal(torch.tensor([[[2004.0, 12.0]]]))
    assert scaled.tolist() == [[[0.0, 1.0, 0.0, 2.0]]]


def test_a_whole_state_as_goal_is_scaled_as_the_state_it_is():
    made, states = condition(goal_steps=2), torch.arange(16.0).view(2, 2, 4)
    assert torch.equal(made.scale_goal(states), made.normalizer(states))


def test_goals_come_before_states_in_the_condition():
    made = condition(goal_dimensions=(0,))
    told = made(torch.tensor([[[1.0, 2.0, 3.0, 1004.0]]]), made.scale_goal(torch.tensor([[[6.0]]])))
    assert told.tolist() == [[5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    assert made.size(1) == 8


def test_the_mask_makes_zeros_after_scaling():
    made = condition(goal_dimensions=(0, 1))
    goal = torch.tensor([[[5.0, 22.0]], [[5.0, 22.0]]])
    rows = made.scale_goal(goal, torch.tensor([True, False])[:, None, None])
    assert rows.tolist() == [[[4.0, 2.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]
    numbers = made.scale_goal(goal[:1], torch.tensor([[[False, True]]]))
    assert numbers.tolist() == [[[0.0, 2.0, 0.0, 0.0]]]


def test_of_a_hindsight_goal_only_the_goal_dimensions_count():
    goal = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert own_dimensions(goal, condition(goal_dimensions=(2, 0))).tolist() == [[[3.0, 1.0]]]


def test_a_goal_to_hold_is_told_as_many_times_as_a_goal_has_states():
    held = condition(goal_dimensions=(0,), goal_steps=3).held(torch.tensor([[2.0]]))
    assert held[0, :, 0].tolist() == [1.0, 1.0, 1.0]


def test_a_goal_that_would_say_none_is_refused():
    with pytest.raises(DataError, match=r"stands for no goal(.|\n)*\[1\.0, 2\.0\]"):
        condition(goal_dimensions=(0, 1)).held(torch.tensor([[3.0, 5.0], [1.0, 2.0]]))


def test_a_goal_of_another_width_names_both():
    with pytest.raises(
        ShapeError, match=r"\[1, 3\], where a state has width 4(.|\n)*\[1, 2\](.|\n)*dimensions"
    ):
        condition(goal_dimensions=(0, 1)).scale_goal(torch.zeros(2, 1, 3))


@pytest.mark.parametrize("dimensions", [(0, 0), (4,), (-1,)])
def test_goal_dimensions_are_those_of_the_state(dimensions):
    with pytest.raises(SettingError, match="state of width 4"):
        GoalCondition(4, goal_dimensions=dimensions)


def test_rows_come_by_their_length():
    found = {length: rows.tolist() for length, rows in rows_by_length(torch.tensor([2, 1, 2, 4]))}
    assert found == {1: [1], 2: [0, 2], 4: [3]}

"""The windy walk: where steps end, with and without wind."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.objectives.tabular import optimal_q, policy_value
from policysmith.worlds.windy_walk import DISCOUNT, GOAL, MOVES, STRENGTHS, WALLS, state_of, windy_walk

ACTION = {name: number for number, name in enumerate(MOVES)}


def ends(cell, action, alpha):
    """Cell -> chance, of one step."""
    row = windy_walk([alpha]).transition[0, state_of(cell), ACTION[action]]
    return {divmod(int(i), 6): pytest.approx(float(row[i])) for i in row.nonzero()[:, 0]}


def test_the_set_is_twenty_five_winds_evenly_up_to_a_half():
    assert (len(STRENGTHS), STRENGTHS[0], STRENGTHS[-1]) == (25, 0.0, 0.5)
    torch.testing.assert_close(windy_walk().transition.sum(-1), torch.ones(25, 36, 4, dtype=torch.double))


def test_in_the_north_corridor_every_step_but_west_may_be_blown_west():
    assert ends((0, 2), "east", 0.25) == {(0, 3): 0.75, (0, 1): 0.25}
    assert ends((0, 2), "north", 0.25) == {(0, 2): 0.75, (0, 1): 0.25}
    assert ends((0, 2), "south", 0.25) == {(0, 2): 0.75, (0, 1): 0.25}
    assert ends((0, 2), "west", 0.25) == {(0, 1): 1.0}


def test_the_other_corridors_have_the_third_and_the_sixth_power_of_the_wind():
    assert ends((2, 1), "east", 0.5) == {(2, 2): 1 - 0.5**3, (2, 0): 0.5**3}
    assert ends((4, 3), "south", 0.5) == {(5, 3): 1 - 0.5**6, (4, 2): 0.5**6}


def test_out_of_the_corridors_there_is_no_wind_and_walls_and_edges_hold():
    assert ends((5, 2), "east", 0.5) == {(5, 3): 1.0}
    assert ends((0, 0), "north", 0.5) == {(0, 0): 1.0}
    assert ends((1, 0), "east", 0.5) == {(1, 0): 1.0}
    assert len(WALLS) == 6


def test_nobody_leaves_the_goal_and_it_costs_nothing():
    walk = windy_walk([0.5])
    goal = state_of(GOAL)
    assert (walk.transition[0, goal, :, goal] == 1).all()
    assert (walk.reward[goal] == 0).all()
    assert (walk.reward.sum(), walk.start[0]) == (-35 * 4, 1)


def test_without_wind_the_goal_is_five_steps_away_and_nine_by_the_middle():
    walk = windy_walk([0.0])
    q = optimal_q(walk.transition[0], walk.reward, DISCOUNT)
    five = -(1 - DISCOUNT**5) / (1 - DISCOUNT)
    assert float(walk.start @ q.amax(-1)) == pytest.approx(five)
    detour = torch.full((36,), ACTION["east"])
    detour[[state_of((0, 0)), state_of((1, 0))]] = ACTION["south"]
    detour[[state_of((row, 5)) for row in (1, 2)]] = ACTION["north"]
    value = policy_value(detour, walk.transition, walk.reward, DISCOUNT)[0, 0]
    assert float(value) == pytest.approx(-(1 - DISCOUNT**9) / (1 - DISCOUNT))


@pytest.mark.parametrize("alpha", [-0.1, 0.6, float("nan")])
def test_a_wind_out_of_the_set_is_refused(alpha):
    with pytest.raises(SettingError, match=r"between 0 and 0\.5"):
        windy_walk([alpha])

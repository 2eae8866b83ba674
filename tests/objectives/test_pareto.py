import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.pareto import (
    archived,
    crowding_distance,
    emptiest,
    expected_utility,
    hypervolume,
    nondominated,
    preference_grid,
    sparsity,
    weight_grid,
)

quick = settings(max_examples=60, deadline=None)
POINTS = torch.tensor([[1.0, 5], [2, 4.5], [4, 3], [3, 3], [5, 1], [4.5, 2.8]])
FRONT = torch.tensor([[1.0, 5], [2, 4.5], [4, 3], [4.5, 2.8], [5, 1]])
ZERO = torch.zeros(2)


@st.composite
def whole_points(draw, objectives=(1, 4), count=(1, 7), high=4):
    """Points at whole numbers, so that ties are common and volumes can be counted in unit cubes."""
    width = draw(st.integers(*objectives))
    rows = draw(st.lists(st.lists(st.integers(0, high), min_size=width, max_size=width),
                         min_size=count[0], max_size=count[1]))  # fmt: skip
    return torch.tensor(rows, dtype=torch.float32)


# ---- which points to keep ----------------------------------------------------------------------------


def test_the_front_of_the_worked_example():
    assert nondominated(POINTS).tolist() == [True, True, True, False, True, True]


def test_equal_points_do_not_dominate_each_other():
    assert nondominated(torch.tensor([[1.0, 2], [1, 2], [0, 2]])).tolist() == [True, True, False]


@quick
@given(whole_points())
def test_the_front_is_what_the_definition_says(points):
    rows = points.tolist()

    def dominates(a, b):
        return all(x >= y for x, y in zip(a, b, strict=True)) and a != b

    assert nondominated(points).tolist() == [not any(dominates(a, b) for a in rows) for b in rows]


def test_crowding_of_the_worked_example():
    assert crowding_distance(FRONT).tolist() == pytest.approx([math.inf, 1.25, 1.05, 0.75, math.inf])


def test_crowding_does_not_depend_on_order_or_scale():
    shuffled = torch.tensor([3, 0, 4, 2, 1])
    scaled = FRONT[shuffled] * torch.tensor([10.0, 0.01]) + 3
    assert torch.allclose(crowding_distance(scaled), crowding_distance(FRONT)[shuffled], atol=1e-5)


def test_an_objective_in_which_all_agree_adds_nothing_to_crowding():
    flat = torch.cat([FRONT, torch.ones(5, 1)], dim=1)
    assert torch.equal(crowding_distance(flat), crowding_distance(FRONT))
    assert crowding_distance(torch.ones(3, 2)).isinf().all()


def test_one_or_two_points_have_infinite_room():
    assert crowding_distance(FRONT[:1]).isinf().all()
    assert crowding_distance(FRONT[:2]).isinf().all()


def test_the_archive_keeps_what_reaches_the_reference_undominated_and_once():
    points = torch.cat([POINTS, POINTS[:1]])
    assert archived(points, reference=ZERO).tolist() == [0, 1, 2, 4, 5]
    # A point exactly at the reference reaches it.
    assert archived(points, reference=torch.tensor([2.0, 2.5])).tolist() == [1, 2, 5]


def test_a_full_archive_keeps_the_points_with_most_room():
    assert archived(POINTS, reference=ZERO, limit=3).tolist() == [0, 1, 4]
    assert archived(POINTS, reference=ZERO, limit=99).tolist() == [0, 1, 2, 4, 5]


def test_an_archive_that_no_point_enters_names_the_best_of_each_objective():
    with pytest.raises(DataError, match=r"\['5', '5'\], the reference \[6.0, 0.0\]"):
        archived(POINTS, reference=torch.tensor([6.0, 0.0]))
    # Each objective is reached by some point, but no point reaches both.
    with pytest.raises(DataError, match="in every objective"):
        archived(POINTS, reference=torch.tensor([4.9, 4.9]))


def test_the_emptiest_points_come_first_and_none_twice():
    assert emptiest(FRONT, 3).tolist() == [0, 4, 1]
    taken = torch.tensor([True, False, False, False, True])
    assert emptiest(FRONT, 3, taken=taken).tolist() == [1, 2, 3]
    assert emptiest(FRONT, 9, taken=~taken).tolist() == [0, 4]
    with pytest.raises(SettingError):
        emptiest(FRONT, 0)


# ---- how good a set is -------------------------------------------------------------------------------


def test_the_metrics_of_the_worked_example():
    assert float(hypervolume(POINTS, reference=ZERO)) == pytest.approx(17.4)
    assert float(sparsity(FRONT)) == pytest.approx(2.82)
    preferences = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert float(expected_utility(FRONT, preferences)) == pytest.approx(4.55)


@quick
@given(whole_points(high=3), st.integers(0, 1))
def test_hypervolume_counts_the_unit_cubes_that_are_dominated(points, floor):
    width = points.shape[1]
    cubes = itertools.product(range(floor, 3), repeat=width)
    covered = sum(any(all(p > c for p, c in zip(row, cube, strict=True)) for row in points.tolist())
                  for cube in cubes)  # fmt: skip
    reference = torch.full((width,), float(floor))
    assert float(hypervolume(points, reference=reference)) == covered


@quick
@given(whole_points(objectives=(2, 4)), st.randoms(use_true_random=False))
def test_hypervolume_does_not_depend_on_the_order_of_points_or_objectives(points, random):
    points = points + 0.37
    rows, columns = list(range(len(points))), list(range(points.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    reference = torch.arange(points.shape[1]) * 0.5
    moved = hypervolume(points[rows][:, columns], reference=reference[columns])
    assert torch.allclose(moved, hypervolume(points, reference=reference))


def test_hypervolume_of_five_objectives_agrees_with_inclusion_and_exclusion():
    points = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    expected = 0.0
    for size in range(1, 7):
        for rows in itertools.combinations(range(6), size):
            expected -= (-1) ** size * float(points[list(rows)].amin(0).prod())
    assert float(hypervolume(points, reference=torch.zeros(5))) == pytest.approx(expected)


def test_hypervolume_is_zero_where_nothing_reaches_the_reference():
    assert float(hypervolume(POINTS, reference=torch.tensor([6.0, 6.0]))) == 0.0
    assert float(hypervolume(torch.empty(0, 2), reference=ZERO)) == 0.0


def test_sparsity_of_one_point_is_zero():
    assert float(sparsity(FRONT[:1])) == 0.0


def test_expected_utility_is_linear_where_there_is_one_point():
    grid = preference_grid(3, 4)
    point = torch.tensor([[3.0, 6.0, 9.0]])
    assert float(expected_utility(point, grid)) == pytest.approx(6.0)


# ---- preferences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objectives", "parts"), [(2, 100), (3, 10), (4, 7)])
def test_a_grid_of_preferences_has_every_vector(objectives, parts):
    grid = preference_grid(objectives, parts)
    assert len(grid) == math.comb(parts + objectives - 1, objectives - 1)
    assert len(grid.unique(dim=0)) == len(grid)
    assert torch.allclose(grid.sum(1), torch.ones(len(grid), dtype=torch.double))


def test_first_weights_of_the_published_settings():
    assert torch.allclose(
        weight_grid(2, step=0.5), torch.tensor([[0, 1], [0.5, 0.5], [1, 0]], dtype=torch.double)
    )
    assert len(weight_grid(2, step=0.2)) == 6
    three = weight_grid(3, low=0.2, high=0.8, step=0.3)
    expected = [
        [0.2, 0.2, 0.6],
        [0.2, 0.5, 0.3],
        [0.2, 0.8, 0],
        [0.5, 0.2, 0.3],
        [0.5, 0.5, 0],
        [0.8, 0.2, 0],
    ]
    assert torch.allclose(three, torch.tensor(expected, dtype=torch.double))
    assert len(weight_grid(6, step=1.0)) == 6


@pytest.mark.parametrize(
    "bad", [{"low": 0.6, "high": 0.4, "step": 0.1}, {"step": 0.0}, {"low": 0.6, "high": 0.9, "step": 0.1}]
)
def test_weights_that_do_not_exist_are_refused(bad):
    with pytest.raises(SettingError):
        weight_grid(3, **bad)


# ---- bad input ---------------------------------------------------------------------------------------


def test_a_reference_of_another_length_is_refused():
    for call in (hypervolume, archived):
        with pytest.raises(ShapeError, match="one value per objective"):
            call(POINTS, reference=torch.zeros(3))


def test_points_that_are_not_finite_or_not_points_are_refused():
    bad = POINTS.clone()
    bad[2, 1] = torch.nan
    with pytest.raises(DataError, match="point 2, objective 1"):
        nondominated(bad)
    with pytest.raises(ShapeError):
        crowding_distance(torch.ones(3))
    with pytest.raises(ShapeError):
        expected_utility(FRONT, torch.ones(2, 3))
    with pytest.raises(ShapeError):
        sparsity(torch.empty(0, 2))

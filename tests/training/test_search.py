"""Search in a box: the lowest point of known landscapes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from policysmith.common.errors import NotFiniteError, SettingError, ShapeError
from policysmith.training.search import cmaes_search, grid_search
from policysmith.worlds.uncertainty import Parameter, UncertaintyBox

BOX = UncertaintyBox((Parameter("pole mass", 1, 31), Parameter("cart mass", 1, 11)))
LOWEST = np.array([21.0, 3.0])


def bowl(points):
    """A tilted bowl in shares of the box, lowest (0) at `LOWEST`."""
    first, second = ((points - LOWEST) / (BOX.high - BOX.low)).T
    return first**2 + 4 * second**2 + first * second


def test_the_grid_finds_its_lowest_point():
    found = grid_search(bowl, BOX, points=11)
    np.testing.assert_allclose(found.point, [22, 3])
    assert found.value == bowl(found.point[None])[0] == found.values.min()
    assert found.points.shape == (121, 2)


def test_cmaes_comes_nearer_than_the_grid_with_as_many_points():
    pytest.importorskip("cmaes")
    found = cmaes_search(bowl, BOX, population=10, generations=12, seed=0)
    assert len(found.values) == 120
    assert found.value < grid_search(bowl, BOX, points=11).value
    np.testing.assert_allclose(found.point, LOWEST, atol=0.5)


def test_cmaes_stays_in_the_box_and_finds_a_corner():
    pytest.importorskip("cmaes")
    found = cmaes_search(lambda points: -points.sum(1), BOX, population=20, generations=8, seed=1)
    assert (found.points >= BOX.low).all()
    assert (found.points <= BOX.high).all()
    assert found.value <= -41  # of 42 at the corner


def test_the_same_seed_tries_the_same_points():
    pytest.importorskip("cmaes")
    one, two, other = (
        cmaes_search(bowl, BOX, population=6, generations=2, seed=seed).points for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_the_answer_is_the_best_point_tried_not_the_last():
    pytest.importorskip("cmaes")
    found = cmaes_search(bowl, BOX, population=6, generations=3, seed=0)
    assert found.value == found.values.min()
    np.testing.assert_array_equal(found.point, found.points[found.values.argmin()])


def test_a_single_parameter_is_searched_on_a_grid_of_as_many_points():
    box = UncertaintyBox((Parameter("mass", 0, 10),))
    found = cmaes_search(lambda points: (points[:, 0] - 3) ** 2, box, population=7, generations=3, seed=0)
    assert len(found.points) == 21
    assert float(found.point[0]) == pytest.approx(3.0)


def test_a_score_that_is_not_finite_names_the_world():
    def blows_up(points):
        return np.where((points == [31, 1]).all(1), np.nan, 0.0)

    with pytest.raises(NotFiniteError, match="pole mass 31, cart mass 1"):
        grid_search(blows_up, BOX, points=4)


def test_a_score_per_point_is_asked_for():
    with pytest.raises(ShapeError, match="one for each of 16"):
        grid_search(lambda points: points, BOX, points=4)


@pytest.mark.parametrize(
    "settings", [{"population": 1}, {"generations": 0}, {"deviation": 0.0}, {"deviation": float("nan")}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match="2 points or more"):
        cmaes_search(bowl, BOX, **({"population": 4, "generations": 1, "seed": 0} | settings))

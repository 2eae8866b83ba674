"""Findings: what a measurement came to, as plain data."""

import pytest

from policysmith.common.errors import DataError, ShapeError
from policysmith.evaluation.findings import Findings, Table, shown


def test_findings_say_everything_as_plain_data():
    found = Findings("t", {"score": 0.5}, notices=["look"], data={"rows": [1, None]})
    assert found.to_json() == {
        "title": "t",
        "summary": {"score": 0.5},
        "notices": ["look"],
        "rows": [1, None],
    }


def test_a_number_that_is_not_finite_is_named():
    with pytest.raises(DataError, match=r"rows\.1\.x"):
        Findings("t", {}, data={"rows": [1.0, {"x": float("nan")}]}).to_json()


def test_a_row_of_another_width_names_its_table():
    with pytest.raises(ShapeError, match="'lengths'"):
        Table("lengths", ["a", "b"], [[1, 2], [1]])


def test_cells_have_four_significant_digits():
    assert [shown(value) for value in (0.123456, 3.0, 7, True, "x")] == ["0.1235", "3", "7", "True", "x"]

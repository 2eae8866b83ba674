"""Parquet columns as arrays: numbers, lists and lists of lists, whatever way they were written."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policysmith.common.errors import DataError, FileError
from policysmith.experience.tables import as_array, read_table


def array(values, kind):
    return as_array(pa.chunked_array([pa.array(values, kind)]), "x", where="here")


LISTS = [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)]


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_any_kind_become_rows(kind):
    assert array([[1, 2], [3, 4], [5, 6]], kind).tolist() == [[1, 2], [3, 4], [5, 6]]
    chunks = pa.chunked_array([pa.array([[1, 2]], kind), pa.array([[3, 4], [5, 6]], kind)])
    assert as_array(chunks, "x", where="here").tolist() == [[1, 2], [3, 4], [5, 6]]
    assert as_array(chunks.slice(1, 1), "x", where="here").tolist() == [[3, 4]]


def test_lists_of_lists_become_matrices():
    kind = pa.list_(pa.list_(pa.float64()))
    assert array([[[1, 2, 3], [4, 5, 6]]] * 2, kind).shape == (2, 2, 3)


def test_numbers_and_truths_keep_their_type_and_what_is_null_becomes_nan():
    assert array([1, 2], pa.int64()).dtype == np.int64
    assert array([True, False], pa.bool_()).tolist() == [True, False]
    assert np.isnan(array([1.0, None], pa.float32())[1])
    assert np.isnan(array([[1.0, None]], LISTS[0])[0, 1])


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_is_null_is_refused_even_where_the_count_would_fit(kind):
    with pytest.raises(DataError, match="unequal lengths"):
        array([[1, 2], None], kind)


def test_text_and_structures_are_refused():
    with pytest.raises(DataError, match="does not hold numbers but string"):
        array(["a"], pa.string())
    with pytest.raises(DataError, match="does not hold numbers but struct"):
        array([{"a": 1}], pa.struct({"a": pa.int64()}))


def test_a_table_without_the_columns_asked_for_names_them_and_statistics_are_left_out(tmp_path):
    pq.write_table(pa.table({"a": [1], "stats/a/min": [1]}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", "it").column_names == ["a"]
    with pytest.raises(FileError, match=r"it lacks the columns b, c\n.*t.parquet"):
        read_table(tmp_path / "t.parquet", "it", columns=["a", "b", "c"])

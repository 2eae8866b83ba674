"""Parquet files as arrays, with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.common.errors import DataError, FileError
from policysmith.common.extras import require
from policysmith.experience.pictures import EXTRA
from policysmith.experience.sources import present


def read_table(path: Path, what: str, *, columns: Sequence[str] | None = None) -> Any:
    """A Parquet file as an Arrow table; `FileError` for one that is missing, cut short or lacks a column.

    Columns of statistics (`stats/...`), which can be thousands, are read only where they are asked for.
    """
    parquet = require("pyarrow.parquet", extra=EXTRA)
    arrow = require("pyarrow", extra=EXTRA)
    present(path, what)
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if columns is None:
            columns = [name for name in names if not name.startswith("stats/")]
        if missing := [name for name in columns if name not in names]:
            raise FileError(f"{what} lacks the columns {', '.join(missing)}", where=str(path))
        return file.read(columns=list(columns))
    except (arrow.ArrowException, OSError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{what} is damaged or cut short: {error}", where=str(path), cure="copy or download it again"
        ) from error


def as_array(column: Any, name: str, *, where: str) -> np.ndarray:
    """A column of numbers, or of lists of equally many numbers, as [row, ...]; what is null becomes NaN.

    Raises `DataError` for lists of unequal lengths and for entries that are no numbers.
    """
    arrow = require("pyarrow", extra=EXTRA)
    values, shape = column.combine_chunks(), [len(column)]
    if isinstance(values, arrow.ChunkedArray):  # older versions of pyarrow
        values = arrow.concat_arrays(values.chunks) if values.num_chunks else arrow.array([], values.type)
    while arrow.types.is_nested(values.type) or isinstance(values.type, arrow.ExtensionType):
        if isinstance(values.type, arrow.ExtensionType):
            values = values.storage
            continue
        if not _is_list(arrow, values.type):
            raise DataError(f"'{name}' does not hold numbers but {values.type}", where=where)
        inner = values.flatten()
        width, rest = divmod(len(inner), max(len(values), 1))
        lengths = values.value_lengths() if not arrow.types.is_fixed_size_list(values.type) else None
        if rest or values.null_count or (lengths is not None and len(lengths.unique()) > 1):
            raise DataError(f"'{name}' has lists of unequal lengths", where=where)
        shape.append(width)
        values = inner
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "fiub":
        raise DataError(f"'{name}' does not hold numbers but {values.type}", where=where)
    return array.reshape(shape)


def _is_list(arrow: Any, kind: Any) -> bool:
    checks = (arrow.types.is_list, arrow.types.is_large_list, arrow.types.is_fixed_size_list)
    return any(check(kind) for check in checks)

"""What a LeRobot data set says of itself: its keys, its episodes, the range of its values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policysmith.common.errors import DataError, FileError
from policysmith.experience.sources import Defaults, Feature, present
from policysmith.experience.tables import read_table

MARKS = {
    "reward": "next.reward",
    "success": "next.success",
    "terminated": "next.terminated",
    "truncated": "next.truncated",
    "done": "next.done",
}


def feature(described: Mapping[str, Any]) -> Feature:
    """A key as `info.json` describes it; pictures may have their axes in either order."""
    kind, shape = str(described.get("dtype")), tuple(int(n) for n in described.get("shape", ()))
    names = described.get("names")
    if isinstance(names, Mapping):  # the older form groups them: {"motors": [...]}
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    names = [str(name) for name in names or ()]
    if kind == "string":
        return Feature("text", shape, kind)
    if kind not in ("video", "image"):
        return Feature("number", shape, kind, tuple(names))
    info = described.get("info") or described.get("video_info") or {}
    depth = info.get("is_depth_map", info.get("video.is_depth_map", False))
    if len(shape) == 3 and (
        names[:1] in (["channels"], ["channel"], ["c"]) or shape[0] in (1, 3) != shape[2]
    ):
        shape = (shape[1], shape[2], shape[0])
    unusable = "it is a depth map" if depth else "" if shape[2:] == (3,) else f"its shape is {list(shape)}"
    codec = str(info.get("video.codec", "png" if kind == "image" else ""))
    return Feature("picture", shape, "uint8", codec=codec, unusable=unusable)


def defaults(features: Mapping[str, Feature]) -> Defaults:
    """`observation.state` and `action`, whole or in parts (`action.arm`, `action.hand`), and all cameras."""
    numbers = [key for key, feature in features.items() if feature.kind == "number"]

    def named(key: str) -> tuple[str, ...]:
        whole = (key,) if key in numbers else ()
        return whole or tuple(name for name in numbers if name.startswith(f"{key}."))

    others = tuple(key for key in numbers if key.startswith("observation."))
    return Defaults(
        state=named("observation.state") or others,
        action=named("action"),
        pictures={
            key.removeprefix("observation.").removeprefix("images."): key
            for key, feature in features.items()
            if feature.kind == "picture"
        },
        marks={mark: key for mark, key in MARKS.items() if key in numbers},
    )


def episode_table(folder: Path, version: str) -> list[dict[str, Any]]:
    """What is known of each episode, in their order; `FileError` where the lists are missing or damaged."""
    meta = folder / "meta"
    if version == "v2.1":
        rows = json_lines(meta / "episodes.jsonl", "the list of episodes")
    else:
        files = sorted((meta / "episodes").glob("*/*.parquet"))
        if not files:
            raise FileError("the tables of episodes are missing", where=str(meta / "episodes"))
        rows = [row for file in files for row in read_table(file, "the table of episodes").to_pylist()]
    where = str(meta)
    for row in rows:
        if missing := [key for key in ("episode_index", "length") if not isinstance(row.get(key), int)]:
            raise FileError(f"the list of episodes lacks {', '.join(missing)}", where=where)
    if not rows:
        raise DataError("there are no episodes", where=where, expected="at least one")
    return sorted(rows, key=lambda row: row["episode_index"])


def json_lines(path: Path, what: str) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line; `FileError` for a file that is missing or damaged."""
    lines = present(path, what).read_text(encoding="utf-8").splitlines()
    try:
        rows = [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise FileError(f"{what} is damaged or cut short: {error}", where=str(path)) from error
    if not all(isinstance(row, dict) for row in rows):
        raise FileError(f"{what} is no list of JSON objects", where=str(path))
    return rows


def limits(
    statistics: Sequence[Mapping[str, Any]], key: str, feature: Feature
) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest values of a key over all statistics; None where they are missing or do not fit."""
    found = [one[key] for one in statistics if key in one and {"min", "max"} <= set(one[key])]
    try:
        low = np.array([np.ravel(one["min"]) for one in found], dtype=float).min(0)
        high = np.array([np.ravel(one["max"]) for one in found], dtype=float).max(0)
    except ValueError:  # none, or of several lengths
        return None
    return (low, high) if low.size == int(np.prod(feature.shape)) else None

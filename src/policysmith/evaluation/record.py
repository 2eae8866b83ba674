"""The claim record: what a paper says, what was measured, and whether it holds, as one JSON file.

What a reader needs to repeat the experiment (settings, seeds, versions, machine) is part of the record. On
reading, every key is checked, and verdicts that the numbers do not bear out are refused.

Schema, version 1 (every key is required unless marked; an interval is `{"value", "low", "high", "level"}`,
where `low` or `high` is null if the data give no bound, as with a single run):

    schema_version   1
    system           name in the catalogue
    title            the paper's title
    paper_claim      what the paper says, in one or two sentences
    question         what was compared here, at which scale
    arms             list of {name, settings, runs: [{seed, metrics: {metric: number}}],
                     summary: {metric: interval}}
    comparisons      list of {name, arm, baseline, metric, difference: interval (arm minus baseline),
                     margin, direction: higher | lower | not_lower | not_higher, verdict}
    verdict          holds | fails | undecided
    reason           why, in one or two sentences
    seeds            list of the run seeds
    settings         exact settings that all arms share
    machine          {cpu, cores, threads, torch, python} and what else is known
    seconds          machine time of the whole experiment
    recipe_version   whole number, the version of the experiment; changes when its settings do
    commit           commit of the library, empty where unknown
    library_version  version of the library
    date             YYYY-MM-DD
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from policysmith.common.errors import DataError
from policysmith.common.saving import load_json, save_json
from policysmith.evaluation.claim import (
    Arm,
    Claim,
    Comparison,
    Run,
    build_claim,
    machine_facts,
    overall,
    summarise,
)
from policysmith.evaluation.statistics import Interval

__all__ = [
    "SCHEMA_VERSION",
    "Arm",
    "Claim",
    "Comparison",
    "Run",
    "build_claim",
    "duration",
    "from_json",
    "load",
    "machine_facts",
    "markdown",
    "overall",
    "save",
    "summarise",
    "to_json",
]

SCHEMA_VERSION = 1
"""Version of the JSON that `save` writes; `load` refuses another."""

# ---- JSON --------------------------------------------------------------------------------------------


def save(claim: Claim, path: str | os.PathLike[str]) -> None:
    """Write the record as JSON."""
    save_json(path, to_json(claim))


def load(path: str | os.PathLike[str]) -> Claim:
    """Read a record; `FileError` where it is missing or damaged, `DataError` where it does not fit."""
    try:
        return from_json(load_json(path))
    except DataError as error:
        where = f"{path}: {error.where}" if error.where else str(path)
        raise DataError(error.what, where=where, expected=error.expected, cure=error.cure) from error


def to_json(claim: Claim) -> dict[str, Any]:
    """The record as plain data, in the order of the schema."""
    plain = {field.name: getattr(claim, field.name) for field in fields(claim)}
    plain["arms"] = [
        {
            "name": arm.name,
            "settings": dict(arm.settings),
            "runs": [{"seed": run.seed, "metrics": dict(run.metrics)} for run in arm.runs],
            "summary": {metric: _interval_to_json(interval) for metric, interval in arm.summary.items()},
        }
        for arm in claim.arms
    ]
    plain["comparisons"] = [
        {field.name: getattr(one, field.name) for field in fields(one)}
        | {"difference": _interval_to_json(one.difference), "verdict": one.verdict}
        for one in claim.comparisons
    ]
    plain |= {"seeds": list(claim.seeds), "settings": dict(claim.settings), "machine": dict(claim.machine)}
    return {"schema_version": SCHEMA_VERSION, **plain}


def from_json(plain: Any) -> Claim:
    """The record from plain data, checked key by key; `DataError` names the place of what is wrong."""
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"the record has schema version {version}",
            expected=str(SCHEMA_VERSION),
            cure="repeat the experiment, or read it with the version of the library that wrote it",
        )
    text = ("system", "title", "paper_claim", "question", "reason", "commit")
    kinds = dict.fromkeys((*text, "verdict", "library_version", "date"), str)
    kinds |= {"arms": list, "comparisons": list, "seeds": list, "settings": dict, "machine": dict}
    found = _take(plain, "", kinds | {"seconds": float, "recipe_version": int, "schema_version": int})
    del found["schema_version"]
    found["arms"] = [_arm_from_json(one, f"arms[{i}]") for i, one in enumerate(found["arms"])]
    found["comparisons"] = [
        _comparison_from_json(one, f"comparisons[{i}]") for i, one in enumerate(found["comparisons"])
    ]
    return Claim(**found)


def _arm_from_json(plain: Any, where: str) -> Arm:
    found = _take(plain, where, {"name": str, "settings": dict, "runs": list, "summary": dict})
    runs = []
    for number, one in enumerate(found["runs"]):
        place = f"{where}.runs[{number}]"
        run = _take(one, place, {"seed": int, "metrics": dict})
        runs.append(Run(run["seed"], _take(run["metrics"], place, dict.fromkeys(run["metrics"], float))))
    summary = {
        metric: _interval_from_json(one, f"{where}.summary.{metric}")
        for metric, one in found["summary"].items()
    }
    return Arm(found["name"], found["settings"], runs, summary)


def _comparison_from_json(plain: Any, where: str) -> Comparison:
    kinds = dict.fromkeys(("name", "arm", "baseline", "metric", "direction", "verdict"), str)
    found = _take(plain, where, kinds | {"difference": dict, "margin": float})
    written = found.pop("verdict")
    found["difference"] = _interval_from_json(found["difference"], f"{where}.difference")
    comparison = Comparison(**found)
    if written != comparison.verdict:
        raise DataError(
            f"the verdict is written as '{written}'",
            where=where,
            expected=f"'{comparison.verdict}', which the difference {comparison.difference} gives",
        )
    return comparison


def _interval_to_json(interval: Interval) -> dict[str, float | None]:
    low, high = (end if math.isfinite(end) else None for end in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high, "level": interval.level}


def _interval_from_json(plain: Any, where: str) -> Interval:
    if isinstance(plain, dict):
        infinite = {"low": -math.inf, "high": math.inf}
        plain = {key: infinite.get(key) if end is None else end for key, end in plain.items()}
    return Interval(**_take(plain, where, dict.fromkeys(("value", "low", "high", "level"), float)))


_KIND_NAMES = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}


def _take(plain: Any, where: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Exactly the keys of `kinds`, each of its kind."""
    if not isinstance(plain, dict):
        raise DataError(f"here is {type(plain).__name__}", where=where, expected="an object")
    if missing := [key for key in kinds if key not in plain]:
        raise DataError(f"missing: {', '.join(missing)}", where=where)
    if unknown := [key for key in plain if key not in kinds]:
        raise DataError(f"not part of the schema: {', '.join(unknown)}", where=where)
    for key, kind in kinds.items():
        value = plain[key]
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not fits:
            place = f"{where}.{key}" if where else key
            raise DataError(f"here is {value!r:.80}", where=place, expected=_KIND_NAMES[kind])
    return {key: plain[key] for key in kinds}


# ---- documentation -----------------------------------------------------------------------------------


def markdown(claim: Claim, *, heading: int = 2) -> str:
    """The record as a section of a Markdown page: verdict, tables with intervals, exact settings."""
    metrics = list(dict.fromkeys(metric for arm in claim.arms for metric in arm.summary))
    level = f"{next((i.level for arm in claim.arms for i in arm.summary.values()), 0.95):.0%}"
    arms = [
        [arm.name, len(arm.runs), *(arm.summary.get(metric, "") for metric in metrics)] for arm in claim.arms
    ]
    comparisons = [
        [one.name, one.metric, one.difference, _claimed(one), one.verdict] for one in claim.comparisons
    ]
    own = {arm.name: dict(arm.settings) for arm in claim.arms if arm.settings}
    settings = {"shared": dict(claim.settings)} | own
    shown = json.dumps(settings, indent=2)
    machine = claim.machine
    parts = [
        f"{'#' * heading} {_cell(claim.title)}",
        f"**{claim.verdict.capitalize()}.** {_cell(claim.reason)}",
        f"- System: `{claim.system}`\n- The paper says: {_cell(claim.paper_claim)}\n"
        f"- Compared here: {_cell(claim.question)}",
        _table(["arm", "runs", *metrics], arms),
        _table(["comparison", "metric", f"difference [{level}]", "claimed", "verdict"], comparisons)
        if comparisons
        else "",
        f"<details><summary>Settings</summary>\n\n```json\n{shown}\n```\n\n</details>",
        f"{duration(claim.seconds)} on {_cell(machine['cpu'])} ({machine['threads']} of {machine['cores']} "
        f"cores); seeds {', '.join(map(str, claim.seeds))}; PyTorch {machine['torch']}, "
        f"Python {machine['python']}, version {claim.library_version}"
        f"{f' ({claim.commit[:10]})' if claim.commit else ''}, recipe {claim.recipe_version}, {claim.date}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use: `42 s`, `7 min`, `1 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _claimed(comparison: Comparison) -> str:
    margin = f"{comparison.margin:g}"
    return {
        "higher": f"more than {margin} higher" if comparison.margin else "higher",
        "lower": f"more than {margin} lower" if comparison.margin else "lower",
        "not_lower": f"at most {margin} lower",
        "not_higher": f"at most {margin} higher",
    }[comparison.direction]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: object) -> str:
    """Text that cannot end its table cell, its line, or become markup."""
    return " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")

"""What an experiment says of a paper's claim: arms, comparisons and a verdict that the numbers bear out.

A comparison's verdict is computed from its interval, and a claim's verdict cannot be better than its
comparisons. `record` writes claims to files and pages.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import policysmith
from policysmith.common.catalogue import find_system
from policysmith.common.errors import DataError
from policysmith.common.provenance import commit
from policysmith.evaluation.statistics import Direction, Interval, Verdict, mean_interval, verdict

MACHINE_KEYS = ("cpu", "cores", "threads", "torch", "python")
"""What `machine` must say at least."""


@dataclass(frozen=True)
class Run:
    """One run of an arm: its seed and what was measured of it, finite numbers only."""

    seed: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Arm:
    """One side of the experiment: its settings (those that differ from other arms), runs and summary."""

    name: str
    settings: Mapping[str, Any]
    runs: Sequence[Run]
    summary: Mapping[str, Interval]

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(self.runs))


@dataclass(frozen=True)
class Comparison:
    """Arm minus baseline in one metric, and what is claimed of it; see `statistics.verdict`."""

    name: str
    arm: str
    baseline: str
    metric: str
    difference: Interval
    margin: float
    direction: Direction

    @property
    def verdict(self) -> Verdict:
        """What the interval says about the claimed direction and margin."""
        return verdict(self.difference, margin=self.margin, direction=self.direction)


@dataclass(frozen=True)
class Claim:
    """A system's small-scale experiment with its result; the fields are those of the schema in `record`.

    Raises `DataError` where it contradicts itself: two arms of one name, a comparison of an arm or metric
    that is not there, a run whose seed is not listed, a verdict that the comparisons do not bear out.
    """

    system: str
    title: str
    paper_claim: str
    question: str
    arms: Sequence[Arm]
    comparisons: Sequence[Comparison]
    verdict: Verdict
    reason: str
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    seconds: float
    recipe_version: int
    commit: str
    library_version: str
    date: str

    def __post_init__(self) -> None:
        for name in ("arms", "comparisons", "seeds"):  # so that a record read back equals the one written
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_arms(self)
        _check_comparisons(self)
        _check_facts(self)


def build_claim(
    system: str,
    *,
    paper_claim: str,
    question: str,
    arms: Sequence[Arm],
    comparisons: Sequence[Comparison],
    seeds: Sequence[int],
    settings: Mapping[str, Any],
    seconds: float,
    recipe_version: int,
    reason: str = "",
) -> Claim:
    """The claim of an experiment just run: title, verdict, machine, versions and date are filled in.

    The verdict is that of the comparisons together. Without a `reason`, they are listed as it.
    """
    return Claim(
        system=system,
        title=find_system(system).title,
        paper_claim=paper_claim,
        question=question,
        arms=arms,
        comparisons=comparisons,
        verdict=overall(one.verdict for one in comparisons),
        reason=reason or "; ".join(f"{one.name}: {one.difference}, {one.verdict}" for one in comparisons),
        seeds=seeds,
        settings=settings,
        machine=machine_facts(),
        seconds=seconds,
        recipe_version=recipe_version,
        commit=commit(),
        library_version=policysmith.__version__,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """`fails` if any fails, `holds` if there are some and all hold, else `undecided`."""
    given = list(verdicts)
    if "fails" in given:
        return "fails"
    return "holds" if given and all(one == "holds" for one in given) else "undecided"


def summarise(runs: Sequence[Run], *, level: float = 0.95) -> dict[str, Interval]:
    """Mean of each metric over runs with Student's t interval.

    For success rates, `success_interval` of the single episodes says more.
    """
    if not runs:
        raise DataError("there are no runs to summarise")
    names = list(runs[0].metrics)
    for run in runs:
        if set(run.metrics) != set(names):
            raise DataError(
                "the runs do not have the same metrics",
                where=f"seed {run.seed} has {', '.join(run.metrics)}",
                expected=", ".join(names),
            )
    return {name: mean_interval([run.metrics[name] for run in runs], level=level) for name in names}


def machine_facts() -> dict[str, Any]:
    """Processor, its cores and PyTorch's threads on it, and the versions that decide the numbers."""
    import torch

    return {
        "cpu": _processor_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


# ---- checks ------------------------------------------------------------------------------------------


def _check_arms(claim: Claim) -> None:
    names = [arm.name for arm in claim.arms]
    if not names or len(set(names)) != len(names):
        raise DataError(f"the arms are called {names}", expected="at least one arm, each with its own name")
    for arm in claim.arms:
        for run in arm.runs:
            where = f"arm '{arm.name}', seed {run.seed}"
            if run.seed not in claim.seeds:
                raise DataError("a run's seed is not among the seeds", where=where, expected=str(claim.seeds))
            for metric, value in run.metrics.items():
                if not math.isfinite(value):
                    raise DataError(
                        f"the metric '{metric}' is {value}",
                        where=where,
                        expected="a finite number; a run that diverged needs a score that says so",
                    )


def _check_comparisons(claim: Claim) -> None:
    arms = {arm.name: arm for arm in claim.arms}
    for one in claim.comparisons:
        for name in (one.arm, one.baseline):
            if name not in arms:
                raise DataError(
                    f"there is no arm '{name}'", where=f"comparison '{one.name}'", expected=", ".join(arms)
                )
            if one.metric not in arms[name].summary:
                raise DataError(
                    f"the arm '{name}' has no summary of '{one.metric}'",
                    where=f"comparison '{one.name}'",
                    expected=", ".join(arms[name].summary),
                )
    if claim.verdict not in get_args(Verdict):
        raise DataError(f"the verdict is '{claim.verdict}'", expected=", ".join(get_args(Verdict)))
    together = overall(one.verdict for one in claim.comparisons)
    # Undecided is always allowed: a comparison can be sound in number and unfair in kind.
    if claim.comparisons and claim.verdict not in (together, "undecided"):
        raise DataError(
            f"the verdict is '{claim.verdict}'",
            where=claim.system,
            expected=f"'{together}', as the comparisons together say, or 'undecided'",
        )


def _check_facts(claim: Claim) -> None:
    if missing := [key for key in MACHINE_KEYS if key not in claim.machine]:
        raise DataError(f"the machine's {', '.join(missing)} is missing", cure="use machine_facts()")
    if not (math.isfinite(claim.seconds) and claim.seconds >= 0):
        raise DataError(f"seconds is {claim.seconds}", expected="a finite number, 0 or more")
    try:
        datetime.date.fromisoformat(claim.date)
    except ValueError as error:
        raise DataError(f"the date is '{claim.date}'", expected="YYYY-MM-DD") from error
    parts = {"settings": claim.settings, "machine": claim.machine}
    parts |= {f"settings of arm '{arm.name}'": arm.settings for arm in claim.arms}
    for where, part in parts.items():
        try:
            json.dumps(dict(part), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a value cannot be written as JSON: {error}",
                where=where,
                expected="numbers that are finite, text, booleans, lists and dicts of them",
            ) from error


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"

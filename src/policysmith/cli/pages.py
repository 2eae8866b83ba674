"""The pages a person reads: of one run, and of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import policysmith
from policysmith.cli import evaluations
from policysmith.cli.answers import ANSWERS, answers_table
from policysmith.cli.conversations import CONVERSATIONS, conversations_table
from policysmith.cli.paired import COLUMNS as PAIR_COLUMNS
from policysmith.cli.paired import PAIRS, TITLE, pairs_row
from policysmith.common.catalogue import find_system
from policysmith.common.saving import write_beside
from policysmith.evaluation import plots
from policysmith.evaluation.comparison import ArmResult
from policysmith.evaluation.drawing import palette, png, svg
from policysmith.evaluation.findings import Findings, shown
from policysmith.evaluation.record import Claim
from policysmith.evaluation.report import Report
from policysmith.evaluation.statistics import Interval, success_interval
from policysmith.training.runs import RunDirectory

TICKS = "What each tick of a control loop waited for its action: how many ticks waited so long"
CURVES = ("loss", "grad_norm")
LANGUAGE_CURVES = (
    "reward",
    "success",
    "turns",
    "entropy",
    "answer_tokens",
    "agreeing",
    "kl",
    "loss",
    "grad_norm",
    "gap",
)
PREFERENCE_CURVES = ("loss", "ordered", "margin", "chosen", "rejected", "grad_norm")
CONTROL_CURVES = (
    "return", "success", "length", "q", "critic_loss", "value_loss", "actor_loss", "entropy", "temperature",
    "kl", "clipped", "loss",
)  # fmt: skip
"""Metrics that are drawn, where a run has them."""
COLUMNS = ["policy", "success", "calls per action", "ms per action, median", "ms per action, p99"]


def run_page(directory: RunDirectory) -> Path:
    """Write the report of a run into its directory; returns its path."""
    config = directory.config
    system = find_system(config["system"])
    report = Report(system.title, f"one run, seed {config['seed']}")
    report.text(system.summary)
    _add_evaluations(report, evaluations.EVALUATIONS.of(directory.path))
    if pairs := PAIRS.of(directory.path):
        report.table(TITLE, PAIR_COLUMNS, [pairs_row(one) for one in pairs])
    _add_answers(report, ANSWERS.of(directory.path))
    _add_conversations(report, CONVERSATIONS.of(directory.path))
    lines = directory.metrics()
    names, over, axis, log = _curves(config, lines)
    for name in names:
        points = [(line[axis], line[name]) for line in lines if name in line]
        if points:
            steps, values = zip(*points, strict=True)
            figure = plots.learning_curves(
                {system.name: [(steps, values)]}, name.replace("_", " "), log=log, xlabel=over
            )
            report.figure(svg(figure), f"{name.replace('_', ' ')} over {over}")
    _add_samples(report, directory)
    report.facts(
        _flat({key: config[key] for key in ("inputs", "settings", "data", "commit") if key in config})
    )
    path = directory.path / "report.html"
    report.write(path)
    return path


def _curves(
    config: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], str, str, bool]:
    """Which metrics of a run are drawn, over what, by which of its metrics, and whether logarithmically."""
    if "rejected" in config["inputs"]:
        return PREFERENCE_CURVES, "steps", "step", False
    if "model" in config["inputs"]:
        counted = sorted({name for line in lines for name in line if name.startswith("world/")})
        return (*LANGUAGE_CURVES, *counted), "rollouts", "step", False
    if any("environment_steps" in line for line in lines):
        return CONTROL_CURVES, "environment steps", "environment_steps", False
    if any("critic_loss" in line for line in lines):
        return CONTROL_CURVES, "steps", "step", False
    return CURVES, "steps", "step", True


def _add_answers(report: Report, measurements: Sequence[Mapping[str, Any]]) -> None:
    """What `eval` measured of a language policy: scores with intervals, and answers side by side."""
    for one in measurements:
        columns, rows = answers_table(one)
        how = f"{one['answers']} per prompt at temperature {one['temperature']:g}, reward {one['reward']}"
        report.table(f"Answers to prompts of {one['prompts']}: {how}", columns, rows)
        if "difference" in one:
            difference = Interval(**one["difference"])
            report.text(f"Trained minus before, paired over the prompts: {difference}.")
        names = list(one["policies"])
        report.samples("Answers to the same prompts", one["samples"], text=("prompt", *names))


def _add_conversations(report: Report, measurements: Sequence[Mapping[str, Any]]) -> None:
    """What `eval` measured by playing a world: numbers with intervals, and whole conversations."""
    for one in measurements:
        columns, rows = conversations_table(one)
        report.table(f"{one['episodes']} fresh episodes of {one['world']}", columns, rows)
        for name, difference in one.get("differences", {}).items():
            report.text(
                f"Trained minus before in {name}, paired over the episodes: {Interval(**difference)}."
            )
        for name, played in one["conversations"].items():
            report.conversations(f"Conversations of {one['world']}: {name}", played)


def _add_samples(report: Report, directory: RunDirectory) -> None:
    """Answers that the run itself sampled, from its beginning, middle and end."""
    kept = directory.samples()
    steps = sorted({sample["step"] for sample in kept})
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []
    for step in chosen:
        of_step = [one for one in kept if one["step"] == step]
        shown = [{k: v for k, v in sample.items() if k != "step"} for sample in of_step]
        add = report.conversations if all("conversation" in one for one in shown) else report.samples
        add(f"Sampled in step {step}", shown)


def _add_evaluations(report: Report, measurements: Sequence[Mapping[str, Any]]) -> None:
    """What `eval` measured of the run, if it did."""
    if not measurements:
        return
    for one in evaluations.tables(measurements):
        report.table(one.caption, one.columns, one.rows)
    ticks = {evaluations.label(entry): entry["tick_ms"] for entry in measurements}
    report.figure(svg(plots.latency_histogram(ticks)), TICKS)


def comparison_rows(results: Sequence[ArmResult]) -> list[list[str]]:
    """One row of `COLUMNS` per arm."""
    rows = []
    for result in results:
        assert result.timing is not None
        median, slow = np.quantile(result.timing.action_ms, [0.5, 0.99])
        rows.append(
            [
                result.arm.label,
                str(success_interval(result.success.astype(float))),
                f"{result.calls_per_action.mean():.2f}",
                f"{median:.2f}",
                f"{slow:.2f}",
            ]
        )
    return rows


def comparison_page(
    path: Path,
    results: Sequence[ArmResult],
    *,
    title: str,
    subtitle: str,
    facts: Mapping[str, Any],
    video: bytes | None = None,
    notices: Sequence[str] = (),
) -> Path:
    """Write the report of a comparison; returns its path."""
    report = Report(title, subtitle)
    colours = palette([result.arm.label for result in results])
    report.table(
        "Success is with a 95 % interval; times are of one thread.", COLUMNS, comparison_rows(results)
    )
    if video is not None:
        report.video(video, "The policies side by side, from the same start.")
    for notice in notices:
        report.text(notice)
    success = {r.arm.label: success_interval(r.success.astype(float)) for r in results}
    report.figure(svg(plots.bars_with_intervals(success, "success rate", palette=colours)), "Success")
    times = {r.arm.label: r.timing.decision_ms for r in results if r.timing is not None}
    report.figure(
        svg(plots.latency_ecdf(times, palette=colours)),
        "Time of one decision: share of decisions that took at most so long",
    )
    ticks = {r.arm.label: r.timing.tick_ms for r in results if r.timing is not None}
    report.figure(svg(plots.latency_histogram(ticks, palette=colours)), TICKS)
    missed = [
        [
            r.arm.label,
            f"{np.quantile(r.timing.tick_ms, 0.99):.2f}",
            *(f"{r.timing.missed(rate):.1%}" for rate in (10, 30, 100)),
        ]
        for r in results
        if r.timing is not None
    ]
    report.table(
        "Ticks of a control loop, and the share that would be late",
        ["policy", "ms p99", "10 Hz", "30 Hz", "100 Hz"],
        missed,
    )
    curves = {r.arm.label: r.curves for r in results}
    report.figure(
        svg(plots.learning_curves(curves, "training loss", log=True, palette=colours)),
        "Training loss over optimiser steps",
    )
    report.facts(_flat(facts) | {"library": f"policysmith {policysmith.__version__}"})
    report.write(path)
    return path


def findings_page(path: Path, found: Findings, *, facts: Mapping[str, Any]) -> Path:
    """Write the page of a measurement; returns its path."""
    report = Report(found.title)
    report.text(*found.notices)
    report.facts({name: shown(value) for name, value in found.summary.items()})
    for one in found.tables:
        report.table(one.caption, list(one.columns), [list(row) for row in one.rows])
    for caption, figure in found.figures:
        report.figure(svg(figure), caption)
    report.facts(_flat(facts) | {"library": f"policysmith {policysmith.__version__}"})
    report.write(path)
    return path


def claim_page(folder: Path, claim: Claim) -> Path:
    """Write the page of an experiment and its plot beside the record; returns the page's path."""
    caption, plot = claim_plot(claim)
    report = Report(claim.title, f"its claim at small scale: {claim.verdict}")
    report.verdict(claim.verdict, claim.reason)
    report.facts({"the paper says": claim.paper_claim, "compared here": claim.question})
    report.figure(svg(plot()), caption)
    metrics = list(dict.fromkeys(metric for arm in claim.arms for metric in arm.summary))
    rows = [[arm.name, *(str(arm.summary.get(metric, "")) for metric in metrics)] for arm in claim.arms]
    report.table("What was measured, with 95 % intervals", ["arm", *metrics], rows)
    report.facts(_flat(claim.settings) | _flat(claim.machine) | {"commit": claim.commit, "date": claim.date})
    path = folder / "report.html"
    report.write(path)
    with write_beside(folder / f"{claim.system}.png") as temporary:
        temporary.write_bytes(png(plot()))
    return path


def claim_plot(claim: Claim) -> tuple[str, Callable[[], Figure]]:
    """The caption of an experiment's plot, and the plot, drawn anew at each call.

    An experiment that has a function `plot`, from a claim to caption and figure, draws itself; of others the
    first metric is shown against the last.
    """
    drawn = getattr(find_system(claim.system).load_claim(), "plot", None)
    if drawn is not None:
        return drawn(claim)[0], lambda: drawn(claim)[1]
    points = {}
    for arm in claim.arms:
        metrics = list(arm.summary)
        points[arm.name] = (arm.summary[metrics[-1]], arm.summary[metrics[0]])
    cost, score = metrics[-1], metrics[0]
    return (
        "Success against cost: up and to the left is better",
        lambda: plots.scatter_cost_success(points, xlabel=cost, ylabel=score),
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of text."""
    flat: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        elif item not in ("", None):
            flat[f"{prefix}{key}"] = str(item)
    return flat

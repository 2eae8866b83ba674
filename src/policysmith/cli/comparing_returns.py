"""`compare` for systems that maximise a return: by acting, by acting beside data, or on data alone.

Whoever acts is given equally many environment steps (an on-policy system finishes its last rollout), whoever
learns from data alone equally many minibatches; the trained policies play the same episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro

from policysmith.cli import look
from policysmith.cli.acting_inputs import ActingInputs, TaskInputs
from policysmith.cli.comparing import check_comparable
from policysmith.cli.environment import EnvironmentInputs, made
from policysmith.cli.inputs import Inputs
from policysmith.cli.runs import training_inputs
from policysmith.common.cache import cache_folder
from policysmith.common.catalogue import System, find_system
from policysmith.common.config import config_to_json
from policysmith.common.errors import CapabilityError, SettingError
from policysmith.evaluation import plots
from policysmith.evaluation.comparison import Arm
from policysmith.evaluation.curve_plots import curve_bands
from policysmith.evaluation.drawing import palette, svg
from policysmith.evaluation.learning_curves import learning_curve
from policysmith.evaluation.report import Report
from policysmith.evaluation.returns import ReturnsResult, compare_returns

ACTING, OFFLINE = "environment_steps", "steps"
"""What a budget is counted in: by settings of systems that act, and of those that learn from data alone."""
CURVES = (
    "Return of training episodes over environment steps: means over runs, with bootstrap intervals (of few "
    "runs, too narrow)"
)


@dataclass(frozen=True)
class Apart:
    """Why a system that acts has no return to be compared, and what to do instead."""

    what: str
    expected: str
    cure: str


APART = {
    "rl2": Apart(
        "learns over trials of several episodes at one task, and `compare` plays single episodes",
        expected="systems whose policies begin every episode anew",
        cure="policysmith run rl2, then policysmith run metaworld --policy RUN on an ML suite, where trials "
        "are played",
    ),
    "c-morl": Apart(
        "finds a set of policies for several objectives, whose returns are vectors and have no order",
        expected="systems that maximise one reward",
        cure="policysmith run c-morl, whose metrics tell the front's hypervolume; policysmith reproduce "
        "c-morl compares it with fixed weights",
    ),
}
"""Systems of one environment whose policies nonetheless do not play for one return, by name."""


@dataclass(frozen=True)
class CompareReturns:
    """Train several systems under one budget, and compare the returns of what they learnt."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    preset: tuple[str, ...] = ("bench",)
    """whose settings: one preset for all systems, or one for each"""
    seeds: int = 3
    """runs per system"""
    evaluate: int = 50
    """episodes per run"""
    out: str = "runs/comparison"
    """folder of the report"""
    json: bool = False
    """print JSON and nothing else"""

    counted: ClassVar[str] = ACTING
    """The setting that is the same for all."""

    def run(self) -> None:
        """Train, play, print, and write the page."""
        if len(self.names) < 2 or len(set(self.names)) < len(self.names):
            raise SettingError(
                "`compare` needs two systems or more, each named once", cure="policysmith compare ppo sac ..."
            )
        inputs: Any = self.inputs  # type: ignore[attr-defined]
        entries = [find_system(name) for name in self.names]
        check_comparable(entries)
        for entry in entries:
            check_returns(entry)
        if not inputs.env:
            raise SettingError("`compare` plays the policies", cure="give --env NAME, such as Pendulum-v1")
        arms = self._arms(entries)
        budget = f"{getattr(arms[0].config, self.counted)} {self.counted.replace('_', ' ')} each"
        look.note(f"{' and '.join(self.names)} on {inputs.env}: {budget}")
        arguments = inputs.arguments()
        options = inputs.options if isinstance(inputs, EnvironmentInputs | ActingInputs) else {}
        results = look.watch(
            compare_returns(
                arms,
                arguments,
                inputs.fingerprint(arguments),
                partial(made, inputs.env, options, inputs.limit),
                seeds=range(self.seeds),
                evaluate=self.evaluate,
                folder=cache_folder(),
                checkpoint_every=inputs.checkpoint_every,
                log_every=inputs.log_every,
            )
        )
        self._tell(results, f"on {inputs.env}: {budget}, {self.seeds} run(s), {self.evaluate} episodes each")

    def _arms(self, entries: list[System]) -> list[Arm]:
        presets = self.preset * len(entries) if len(self.preset) == 1 else self.preset
        if len(presets) != len(entries):
            raise SettingError(
                f"{len(presets)} presets for {len(entries)} systems",
                expected="one for all, or one for each system in order",
            )
        found = []
        for entry, preset in zip(entries, presets, strict=True):
            module = entry.load()
            if preset not in module.PRESETS:
                raise SettingError(
                    f"'{entry.name}' has no preset called '{preset}'",
                    expected=", ".join(module.PRESETS),
                    cure="name a preset for each system: --preset cartpole tiny",
                )
            found.append(Arm(entry.name, module, module.PRESETS[preset]))
        for arm in found:
            if self.counted not in {one.name for one in fields(arm.config)}:
                raise CapabilityError(
                    f"'{arm.label}' does not count its budget in {self.counted.replace('_', ' ')}",
                    expected="systems that can be given the same budget",
                    cure=f"policysmith run {arm.label}, and policysmith eval of the run",
                )
        told = getattr(self, self.counted)
        budget = getattr(found[0].config, self.counted) if told is None else told
        return [replace(arm, config=replace(arm.config, **{self.counted: budget})) for arm in found]

    def _tell(self, results: list[ReturnsResult], subtitle: str) -> None:
        title = " and ".join(self.names)
        columns, rows = returns_table(results)
        path = returns_page(Path(self.out) / "report.html", results, title=title, subtitle=subtitle)
        if self.json:
            look.print_json(
                {"report": str(path), "systems": {r.arm.label: as_json(r, results[0]) for r in results}}
            )
            return
        look.table(columns, rows, title=f"{title} {subtitle}")
        look.results.print(f"report: {path.resolve()}", soft_wrap=True)


@dataclass(frozen=True)
class CompareActing(CompareReturns):
    """Train systems that act for equally many environment steps, and compare their returns."""

    inputs: Annotated[EnvironmentInputs, tyro.conf.OmitArgPrefixes] = field(default_factory=EnvironmentInputs)
    environment_steps: int | None = None
    """budget of each run; by default that of the first system's preset"""


@dataclass(frozen=True)
class CompareActingWithData(CompareReturns):
    """Train systems that act beside demonstrations under one budget of environment steps; compare returns."""

    inputs: Annotated[ActingInputs, tyro.conf.OmitArgPrefixes] = field(default_factory=ActingInputs)
    environment_steps: int | None = None
    """budget of each run; by default that of the first system's preset"""


@dataclass(frozen=True)
class CompareOffline(CompareReturns):
    """Train systems on the same data for equally many minibatches, and compare their returns in --env."""

    inputs: Annotated[Inputs, tyro.conf.OmitArgPrefixes] = field(default_factory=Inputs)
    steps: int | None = None
    """minibatches of each run; by default those of the first system's preset"""

    counted: ClassVar[str] = OFFLINE


def returns_comparison(system: System) -> type[CompareReturns] | None:
    """The comparison that a system's first place on the command line asks for; None where it is no such."""
    brought = training_inputs(system)
    if issubclass(brought, EnvironmentInputs):
        return CompareActing
    if brought is ActingInputs:
        return CompareActingWithData
    return CompareOffline if brought is Inputs and set(system.takes) == {"episodes"} else None


def check_returns(system: System) -> None:
    """Raise `CapabilityError` for a system whose policies do not play single episodes for one return."""
    if training_inputs(system) is TaskInputs:
        raise CapabilityError(
            f"'{system.name}' learns several tasks at once, which have no one return",
            expected="systems that learn in one environment",
            cure=f"policysmith reproduce {system.name} compares it task by task",
        )
    if system.name in APART:
        apart = APART[system.name]
        raise CapabilityError(f"'{system.name}' {apart.what}", expected=apart.expected, cure=apart.cure)


def returns_table(results: list[ReturnsResult]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row per arm; the last column is paired with the first arm."""
    first = results[0]
    rows = [[one.arm.label, str(one.mean), "" if one is first else str(one.minus(first))] for one in results]
    return ["system", "mean return", f"minus {first.arm.label}"], rows


def returns_page(path: Path, results: list[ReturnsResult], *, title: str, subtitle: str) -> Path:
    """Write the report of a comparison; returns its path."""
    report = Report(title, subtitle)
    colours = palette([one.arm.label for one in results])
    report.table("Returns of the trained policies, with 95 % intervals over runs", *returns_table(results))
    bars = {one.arm.label: one.mean for one in results}
    report.figure(
        svg(plots.bars_with_intervals(bars, "mean return", palette=colours)), "Mean return at the end"
    )
    acted = {one.arm.label: one.curves for one in results if all(len(steps) for steps, _ in one.curves)}
    if acted:
        bands = {
            label: learning_curve([runs], statistic=lambda drawn: float(np.mean(drawn)), rng=0)
            for label, runs in acted.items()
        }
        figure = curve_bands(bands, "return", xlabel="environment steps", palette=colours)
        report.figure(svg(figure), CURVES)
    if missing := [one.arm.label for one in results if one.arm.label not in acted]:
        report.text(f"No learning curve of {', '.join(missing)}: no episode ended while it was learning.")
    report.facts({one.arm.label: str(config_to_json(one.arm.config)) for one in results})
    report.write(path)
    return path


def as_json(result: ReturnsResult, first: ReturnsResult) -> dict[str, Any]:
    """The numbers of one arm as plain data."""
    difference = None if result is first else str(result.minus(first))
    return {
        "settings": config_to_json(result.arm.config),
        "returns": result.returns.mean(1).tolist(),
        "mean_return": str(result.mean),
        "minus_first": difference,
    }

"""`compare` and `demo`: systems side by side on one task under one budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from policysmith.cli import look
from policysmith.cli.evaluations import summary_of
from policysmith.cli.inputs import Inputs, maker
from policysmith.cli.pages import COLUMNS, comparison_page, comparison_rows
from policysmith.cli.runs import training_inputs
from policysmith.common.cache import cache_folder
from policysmith.common.catalogue import System, find_system
from policysmith.common.config import config_to_json
from policysmith.common.errors import CapabilityError, PolicysmithError, SettingError
from policysmith.evaluation.comparison import Arm, ArmResult, compare, episode_seeds
from policysmith.evaluation.rollouts import film
from policysmith.evaluation.statistics import success_interval
from policysmith.evaluation.video import encode, side_by_side
from policysmith.worlds import registry, rendering


@dataclass(frozen=True)
class Compare:
    """Train several systems on the same demonstrations and budget, and set them side by side."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    inputs: Annotated[Inputs, tyro.conf.OmitArgPrefixes] = field(default_factory=Inputs)
    preset: str = "bench"
    """whose settings: paper, bench or tiny"""
    steps: int | None = None
    """optimiser steps for each; by default the preset's"""
    seeds: int = 3
    """runs per system"""
    evaluate: int = 50
    """episodes per run"""
    out: str = "runs/comparison"
    """folder of the report"""
    video: bool = True
    """film the policies side by side, where the machine can render"""
    json: bool = False
    """print JSON and nothing else"""

    def run(self) -> None:
        """Train, play, print, and write the page."""
        if len(self.names) < 2:
            raise SettingError(
                "`compare` needs two systems or more", cure="policysmith compare sdp diffusion-policy"
            )
        if not self.inputs.env:
            raise SettingError("`compare` plays the policies", cure="give --env NAME")
        entries = [find_system(name) for name in self.names]
        check_comparable(entries)
        arms = [Arm(entry.name, entry.load(), self._settings(entry)) for entry in entries]
        compare_and_report(
            arms,
            self.inputs,
            seeds=self.seeds,
            evaluate=self.evaluate,
            folder=Path(self.out),
            title=" and ".join(self.names) + f" on {self.inputs.env}",
            video=self.video,
            as_json=self.json,
        )

    def _settings(self, entry: System) -> Any:
        presets = entry.load().PRESETS
        if self.preset not in presets:
            raise SettingError(f"no preset is called '{self.preset}'", expected=", ".join(presets))
        settings = presets[self.preset]
        return settings if self.steps is None else dataclasses.replace(settings, steps=self.steps)


@dataclass(frozen=True)
class Demo:
    """The main job: record on a Meta-World task, train both diffusion policies, play, film, report."""

    env: str = "metaworld/drawer-open-v3"
    """task"""
    steps: int = 1000
    """optimiser steps for each policy"""
    out: str = "runs/demo"
    """folder of the report"""

    def run(self) -> None:
        """Do the main job."""
        inputs = Inputs(env=self.env, episodes=100, noise=0.1, limit=150)
        arms = [
            Arm(label, module, dataclasses.replace(module.PRESETS["bench"], steps=self.steps, batch_size=128))
            for label, module in (
                ("Diffusion Policy", find_system("diffusion-policy").load()),
                ("Streaming Diffusion Policy", find_system("sdp").load()),
            )
        ]
        compare_and_report(
            arms,
            inputs,
            seeds=1,
            evaluate=50,
            folder=Path(self.out),
            title=f"Diffusion Policy and Streaming Diffusion Policy on {self.env.rpartition('/')[2]}",
        )


def compare_and_report(
    arms: list[Arm],
    inputs: Inputs,
    *,
    seeds: int,
    evaluate: int,
    folder: Path,
    title: str,
    video: bool = True,
    as_json: bool = False,
) -> None:
    """Run a comparison with bars, print its table, write its page."""
    look.note(title)
    episodes = inputs.load()
    limit = inputs.limit
    results = look.watch(
        compare(
            arms,
            episodes,
            maker(inputs.env, pictures=episodes.pictures),
            seeds=range(seeds),
            evaluate=evaluate,
            folder=cache_folder(),
            limit=limit,
        )
    )
    film_bytes, notices = _film(results, inputs.env, limit) if video else (None, [])
    subtitle = f"{len(episodes)} demonstrations, {seeds} run(s), {evaluate} episodes each"
    facts = {result.arm.label: config_to_json(result.arm.config) for result in results}
    page = comparison_page(
        folder / "report.html",
        results,
        title=title,
        subtitle=subtitle,
        facts=facts,
        video=film_bytes,
        notices=notices,
    )
    if as_json:
        look.print_json({"report": str(page), "arms": [_as_json(result) for result in results]})
        return
    look.table(COLUMNS, comparison_rows(results), title=f"{title}: {subtitle}")
    for notice in notices:
        look.notices.print(notice)
    look.results.print(f"report: {page.resolve()}", soft_wrap=True)


def check_comparable(entries: list[System]) -> None:
    """Raise `CapabilityError` where two systems do not take and give the same things."""
    first = entries[0]
    for other in entries[1:]:
        for what in ("takes", "gives"):
            mine, theirs = getattr(first, what), getattr(other, what)
            if set(mine) != set(theirs):
                raise CapabilityError(
                    f"'{first.name}' and '{other.name}' differ in what they {what[:-1]}",
                    where=f"{first.name} {what} {', '.join(mine)}; {other.name} {what} {', '.join(theirs)}",
                )
        if training_inputs(first) is not training_inputs(other):
            raise CapabilityError(
                f"one of '{first.name}' and '{other.name}' learns by acting and the other from data alone",
                expected="systems that learn in the same way",
            )


def _film(results: list[ArmResult], env: str, limit: int | None) -> tuple[bytes | None, list[str]]:
    """A film of all arms from one start, or what stands in its way and the cure."""
    probe = rendering.probe()
    if probe.backend is None:
        tried = "; ".join(f"{name}: {why}" for name, why in probe.tried.items())
        return None, [f"No video, because nothing here can draw ({tried}). To have one, {probe.cure}"]
    rendering.activate(probe.backend)
    seed = _telling_seed(results)
    clips = {}
    try:
        for result in results:
            policy = result.policies[0]
            environment = registry.make(env, render_mode="rgb_array", pictures=policy.pictures)
            look.note(f"filming {result.arm.label}")
            clips[result.arm.label] = film(policy, environment, seed=seed, limit=limit)
            environment.close()
    except PolicysmithError as error:
        return None, [f"No video: {error}"]
    frames = {label: clip[0] for label, clip in clips.items()}
    status = {label: ["success" if done else "" for done in clip[1]] for label, clip in clips.items()}
    return encode(side_by_side(frames, status=status), fps=30), []


def _telling_seed(results: list[ArmResult]) -> int:
    """The first episode that every arm's first run solved, so that the film shows the task done."""
    solved = np.all([result.rollouts[0].success for result in results], axis=0)
    seeds = episode_seeds(0, len(solved))
    return seeds[int(np.argmax(solved))]


def _as_json(result: ArmResult) -> dict[str, Any]:
    interval = success_interval(result.success.astype(float))
    assert result.timing is not None
    return {
        "label": result.arm.label,
        "settings": config_to_json(result.arm.config),
        "success": {"value": interval.value, "low": interval.low, "high": interval.high},
        "network_calls_per_action": result.calls_per_action.tolist(),
        "ms_per_action": summary_of(result.timing.action_ms),
        "ms_per_tick": summary_of(result.timing.tick_ms),
        "missed_deadlines": {f"{rate} Hz": result.timing.missed(rate) for rate in (10, 30, 100)},
        "train_seconds": result.train_seconds,
    }

"""The claim about data quality at small scale: noise in the world teaches more than noise in the expert.

Four tasks (a point around an obstacle, three of Meta-World) are demonstrated by scripted experts with noise
in their actions, which is recorded, or in the world, which is not. The same cloning learns from 3, 10 and 50
demonstrations of each set, and every policy is played under every level of system noise. With noise of 0.3
Meta-World's tasks are solved from 10 demonstrations of either kind; fewer, and noise of 0.6, can tell them
apart. With `ablations`, curation is tried too: a mixed set as it is, without its worst third, and without a
random third.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from policysmith.claims.common.noisy import (
    ARM_TASKS,
    LENGTH,
    OBSTACLE,
    SIMILARITY,
    VARIANCE,
    NoisyTask,
    SetResult,
    learn_and_play,
    train_and_play,
)
from policysmith.common.config import config_to_json
from policysmith.common.rng import numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.drawing import LIGHT, Style, blank_figure, draw_grid, draw_legend, dress, palette
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference, success_interval
from policysmith.experience.episodes import Episodes
from policysmith.systems import behaviour_cloning, data_quality

TASKS = (OBSTACLE, *ARM_TASKS)
SIZES = (3, 10, 50)
FEW, MANY = SIZES[:2], SIZES[2]
LEARNER = replace(
    behaviour_cloning.PRESETS["data-quality"],
    normalise=True,
    steps=1500,
    batch_size=128,
    learning_rate=1e-3,
)
"""The paper's network, with ten times its step size for less than a hundredth of its updates."""
LEAST_TASKS = 2
"""In so many of the four tasks system noise has to win."""
MIXED = (40, 20)
"""Good and erratic demonstrations in the set that is curated."""
ALIKE = float(np.log10(1.25))
"""State similarity may be lower by this factor (log10) and still count as alike."""
TRAINED_LEVEL, GAINED = "success at the training noise", f"success gained by {MANY} demonstrations"


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 50, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished recordings, training runs and evaluations are taken from `folder`."""
    began = time.perf_counter()
    results: list[SetResult] = []
    for task in TASKS:
        results += yield from learn_and_play(
            task, LEARNER, sizes=SIZES, seeds=seeds, folder=folder, evaluate=evaluate
        )
    arms = [_pooled(results, kind, seeds) for kind in ("system", "policy")]
    arms += [_single(result, size, seeds) for result in results for size in SIZES]
    if ablations:
        arms += yield from _curation(seeds=seeds, folder=folder, evaluate=evaluate)
    comparisons = _comparisons(results)
    return claim.build_claim(
        "data-quality",
        paper_claim="noise in the system widens the states that are demonstrated at no loss of consistency, "
        "and teaches more than noise of the same size in the demonstrator where there are few "
        "demonstrations; the diversity of states does not explain it",
        question=f"on four tasks, cloning from {' and '.join(map(str, FEW))} demonstrations, played at the "
        "noise of the collection: system noise succeeds more often than policy noise in at least "
        f"{LEAST_TASKS} tasks, less of that is left at {MANY}, its action variance is lower and its states "
        "are not more diverse",
        arms=arms,
        comparisons=comparisons,
        reason=_reason(results, comparisons),
        seeds=seeds,
        settings={
            "tasks": [asdict(task) for task in TASKS],
            "demonstrations": list(SIZES),
            "graded": f"{MANY} demonstrations per set; states scaled by all sets of a task and seed together",
            "episodes_per_run_and_level": evaluate,
            "learner": config_to_json(LEARNER),
        },
        seconds=round(max(time.perf_counter() - began, sum(one.seconds for one in results)), 1),
        recipe_version=1,
    )


# ---- arms and comparisons ----------------------------------------------------------------------------


def _of(results: Sequence[SetResult], kind: str) -> list[SetResult]:
    return [result for result in results if result.kind == kind]


def _at_training_level(results: Sequence[SetResult], sizes: Sequence[int]) -> np.ndarray:
    """[seed, episode] at each set's own level, sets and sizes side by side."""
    return np.concatenate([result.played(size) for result in results for size in sizes], axis=1)


def _by_task(results: Sequence[SetResult], sizes: Sequence[int]) -> np.ndarray:
    """[seed, task]: success at the training level, so that a task with more sets counts no more."""
    rates = []
    for task in TASKS:
        chosen = [result for result in results if result.task == task]
        rates.append(_at_training_level(chosen, sizes).mean(axis=1))
    return np.stack(rates, axis=1)


def _qualities(results: Sequence[SetResult], metric: str) -> np.ndarray:
    """[seed, set]."""
    return np.array([[one[metric] for one in result.quality] for result in results]).T


def _pooled(results: Sequence[SetResult], kind: str, seeds: Sequence[int]) -> claim.Arm:
    """One kind of noise over all tasks."""
    chosen = _of(results, kind)
    few, many = _by_task(chosen, FEW).mean(axis=1), _by_task(chosen, [MANY]).mean(axis=1)
    metrics = {TRAINED_LEVEL: few, GAINED: many - few}
    metrics |= {name: _qualities(chosen, name).mean(axis=1) for name in (VARIANCE, SIMILARITY, LENGTH)}
    runs = [
        claim.Run(seed, {name: float(values[i]) for name, values in metrics.items()})
        for i, seed in enumerate(seeds)
    ]
    settings = {"noise": kind, "demonstrations": list(FEW)}
    return claim.Arm(f"{kind} noise, all tasks", settings, runs, claim.summarise(runs))


def _single(result: SetResult, size: int, seeds: Sequence[int]) -> claim.Arm:
    """One set at one size: a row of the matrix of training noise by noise of play."""
    played = {f"success at {level:g}": result.played(size, level) for level in result.task.played}
    runs = [
        claim.Run(seed, {name: float(one[i].mean()) for name, one in played.items()} | result.quality[i])
        for i, seed in enumerate(seeds)
    ]
    summary = claim.summarise(runs) | {name: success_interval(one) for name, one in played.items()}
    settings = {
        "task": result.task.short_name,
        "noise": result.kind,
        "level": result.level,
        "demonstrations": size,
    }
    name = f"{result.task.short_name}, {result.kind} {result.level:g}, {size} demonstrations"
    return claim.Arm(name, settings, runs, summary)


def _comparisons(results: Sequence[SetResult]) -> list[claim.Comparison]:
    names = ("system noise, all tasks", "policy noise, all tasks")
    gained = [_by_task(chosen, [MANY]) - _by_task(chosen, FEW) for _, chosen in _kinds(results)]

    def quality(metric: str) -> Interval:
        ours, theirs = (_qualities(chosen, metric) for _, chosen in _kinds(results))
        return paired_difference(ours, theirs)

    return [
        # Half a task below: a whole number above 1.5 is 2 or more.
        claim.Comparison(
            "number of tasks in which system noise succeeds more often", *names, TRAINED_LEVEL,
            _tasks_won(results), LEAST_TASKS - 0.5, "higher",
        ),
        claim.Comparison(
            f"what {MANY} demonstrations add", *names, GAINED, paired_difference(*gained), 0.0, "lower"
        ),
        claim.Comparison(VARIANCE, *names, VARIANCE, quality(VARIANCE), 0.0, "lower"),
        claim.Comparison(SIMILARITY, *names, SIMILARITY, quality(SIMILARITY), ALIKE, "not_lower"),
    ]  # fmt: skip


def _kinds(results: Sequence[SetResult]) -> list[tuple[str, list[SetResult]]]:
    return [(kind, _of(results, kind)) for kind in ("system", "policy")]


def _gap(results: Sequence[SetResult], task: NoisyTask, sizes: Sequence[int]) -> Interval:
    """System minus policy noise on one task at the training levels, paired over seeds and episodes."""
    ours, theirs = (
        _at_training_level([result for result in chosen if result.task == task], sizes)
        for _, chosen in _kinds(results)
    )
    return paired_difference(ours, theirs)


def _tasks_won(results: Sequence[SetResult]) -> Interval:
    """How many tasks system noise wins with few demonstrations: as measured, for sure, at most."""
    gaps = [_gap(results, task, FEW) for task in TASKS]
    value = sum(gap.value > 0 for gap in gaps)
    return Interval(value, sum(gap.low > 0 for gap in gaps), sum(gap.high > 0 for gap in gaps))


def _reason(results: Sequence[SetResult], comparisons: Sequence[claim.Comparison]) -> str:
    parts = [f"{one.name}: {one.difference}, {one.verdict}" for one in comparisons]
    gaps = "; ".join(
        f"{task.short_name} {', '.join(f'{_gap(results, task, [size])} with {size}' for size in SIZES)}"
        for task in TASKS
    )
    won = {size: sum(_bands_apart(results, task, size) for task in TASKS) for size in FEW}
    counted = ", ".join(f"{count} with {size}" for size, count in won.items())
    return (
        "; ".join(parts) + f". System minus policy noise, success at the training noise: {gaps}. Tasks whose "
        f"bands of one standard error lie apart, system noise above: {counted} demonstrations"
    )


def _bands_apart(results: Sequence[SetResult], task: NoisyTask, size: int) -> bool:
    """The paper's way of comparing: mean minus one standard error above the other's mean plus one."""
    ends = []
    for (_, chosen), sign in zip(_kinds(results), (-1, 1), strict=True):
        rates = _at_training_level([one for one in chosen if one.task == task], [size]).mean(axis=1)
        spread = rates.std(ddof=1) if len(rates) > 1 else np.inf
        ends.append(rates.mean() + sign * spread / np.sqrt(len(rates)))
    return bool(ends[0] > ends[1])


# ---- curation ----------------------------------------------------------------------------------------


def _curation(
    *, seeds: Sequence[int], folder: Path, evaluate: int
) -> Generator[Stage, None, list[claim.Arm]]:
    """The obstacle from good and erratic demonstrations: all of them, or as many as the good, chosen."""
    task, level = OBSTACLE, 0.02
    make = task.maker()
    success: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        good = yield from task.collection("system", level, episodes=MANY, seed=seed).episodes(folder)
        erratic = yield from task.collection("policy", 0.05, episodes=MIXED[1], seed=seed).episodes(folder)
        mixed = Episodes.from_arrays(
            {key: episodes[i][key] for key in ("observation", "action", "success")}
            for episodes, count in zip((good, erratic), MIXED, strict=True)
            for i in range(count)
        )
        config = data_quality.Config(state=task.state, drop=MIXED[1] / len(mixed))
        chance = numpy_generator(seed, "dropped").permutation(len(mixed))[: MIXED[0]]
        choices = {
            "all": list(range(len(mixed))),
            "curated": data_quality.curated(mixed, config=config),
            "random": sorted(chance.tolist()),
        }
        for name, kept in choices.items():
            chosen = mixed.select(kept)
            run = CachedRun(behaviour_cloning, (chosen,), chosen.fingerprint, LEARNER, seed, folder)
            played = yield from train_and_play(run, make, task, f"curation, {name}", evaluate)
            success.setdefault(name, []).append(played.success[level])
    arms = []
    for name, outcomes in success.items():
        metric = f"success at {level:g}"
        runs = [
            claim.Run(seed, {metric: float(one.mean())}) for seed, one in zip(seeds, outcomes, strict=True)
        ]
        summary = {metric: success_interval(np.stack(outcomes).astype(float))}
        arms.append(claim.Arm(f"curation, {name}", {"curation": name}, runs, summary))
    return arms


# ---- the plot ----------------------------------------------------------------------------------------


def plot(record: claim.Claim) -> tuple[str, Figure]:
    """Caption and figure: success against demonstrations, a panel per task."""
    styles = palette(["system", "policy", "clean"])
    singles = [arm for arm in record.arms if "level" in arm.settings]
    names = list(dict.fromkeys(arm.settings["task"] for arm in singles))
    figure = blank_figure(LIGHT, height=4.8)
    panels = figure.subplots(-(-len(names) // 2), 2, squeeze=False, sharex=True, sharey=True).ravel()
    entries: dict[str, Any] = {}
    for name, axes in zip(names, panels, strict=False):
        dress(axes, LIGHT)
        for kind, style in styles.items():
            wanted = {"task": name, "noise": kind}
            chosen = [arm for arm in singles if wanted.items() <= dict(arm.settings).items()]
            if chosen:
                entries[kind] = _draw(axes, chosen, style)
        axes.set_xscale("log")
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.minorticks_off()
        axes.set_ylim(0, 1.03)
        axes.set_title(name, fontsize=9, color=LIGHT.ink)
        draw_grid(axes, LIGHT, "y")
    figure.supxlabel("demonstrations", fontsize=9, color=LIGHT.muted)
    figure.supylabel("success at the noise of the collection", fontsize=9, color=LIGHT.muted)
    titles = {"clean": "no noise", "system": "system noise", "policy": "policy noise"}
    draw_legend(figure, LIGHT, [(line, titles[kind]) for kind, line in entries.items()])
    return "Success at the noise of the collection; bands are 95 % over collections", figure


def _draw(axes: Axes, arms: Sequence[claim.Arm], style: Style) -> Any:
    """Mean over sets of one kind and its interval over seeds, for each number of demonstrations."""
    points = []
    for size in SIZES:
        rates = [
            [run.metrics[f"success at {arm.settings['level']:g}"] for run in arm.runs]
            for arm in arms
            if arm.settings["demonstrations"] == size
        ]
        points.append(mean_interval(np.mean(rates, axis=0)))
    low, high = (np.clip([getattr(point, end) for point in points], 0, 1) for end in ("low", "high"))
    colour = style.colour(LIGHT)
    axes.fill_between(SIZES, low, high, color=colour, alpha=0.15, linewidth=0)
    (line,) = axes.plot(SIZES, [point.value for point in points], "o-", color=colour, markersize=4)
    return line

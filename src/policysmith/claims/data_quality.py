"""The claim about data quality at small scale: noise in the world teaches more than noise in the expert.

Four tasks (a point around an obstacle, three of Meta-World) are demonstrated by scripted experts with noise in
their actions, which is recorded, or in the world, which is not. The same cloning learns from 10, 50 and 200
demonstrations of each set, and every policy is played under every level of system noise. With `ablations`,
curation is tried too: a mixed set as it is, without its worst third, and without a random third.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from policysmith.claims.common.noisy import ARM_TASKS, OBSTACLE, NoiseKind, NoisyTask
from policysmith.common.config import config_to_json
from policysmith.common.rng import generator, numpy_generator
from policysmith.common.saving import load_json, save_json
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation import claim
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import episode_seeds
from policysmith.evaluation.drawing import LIGHT, blank_figure, draw_grid, draw_legend, dress, palette
from policysmith.evaluation.rollouts import roll_out
from policysmith.evaluation.statistics import Interval, mean_interval, paired_difference, success_interval
from policysmith.experience.episodes import Episodes
from policysmith.objectives.data_quality import default_radius, standard_scale
from policysmith.systems import behaviour_cloning, data_quality

TASKS = (OBSTACLE, *ARM_TASKS)
SIZES = (10, 50, 200)
FEW, MANY = SIZES[:2], SIZES[2]
GRADED = 50
"""Demonstrations per set that are graded: as many of each, since state similarity depends on how many."""
LEARNER = replace(
    behaviour_cloning.PRESETS["data-quality"],
    normalise=True,
    steps=2000,
    batch_size=128,
    learning_rate=1e-3,
)
"""The paper's network with a tenfold step size for a hundredth of its updates."""
LEAST_TASKS = 2
"""In so many of the four tasks system noise has to win."""
ALIKE = float(np.log10(1.25))
"""State similarity may be lower by this factor (log10) and still count as alike."""
TRAINED_LEVEL, GAINED = "success at the training noise", "success gained by 200 demonstrations"
VARIANCE, SIMILARITY, LENGTH = "action variance, log10", "state similarity, log10", "length"


@dataclass
class SetResult:
    """What one way of collecting came to: per seed its metrics, and the successes of what was learnt."""

    task: NoisyTask
    kind: NoiseKind
    level: float
    quality: list[dict[str, float]] = field(default_factory=list)
    success: dict[tuple[int, float], list[np.ndarray]] = field(default_factory=dict)
    """(demonstrations, level of play) -> per seed [episode]."""

    def played(self, size: int, level: float | None = None) -> np.ndarray:
        """[seed, episode] of the policies from `size` demonstrations, by default at the training level."""
        return np.stack(self.success[size, self.level if level is None else level]).astype(float)


def reproduce(
    *, seeds: Sequence[int], folder: Path, evaluate: int = 50, ablations: bool = False
) -> Generator[Stage, None, claim.Claim]:
    """Run the experiment; finished recordings, training runs and evaluations are taken from `folder`."""
    began = time.perf_counter()
    results: list[SetResult] = []
    for task in TASKS:
        results += yield from _one_task(task, seeds=seeds, folder=folder, evaluate=evaluate)
    arms = [_pooled(results, kind, seeds) for kind in ("system", "policy")]
    arms += [_single(result, size, seeds) for result in results for size in SIZES]
    if ablations:
        arms += yield from _curation(seeds=seeds, folder=folder, evaluate=evaluate)
    comparisons = _comparisons(results)
    return claim.build_claim(
        "data-quality",
        paper_claim="noise in the system widens the states that are demonstrated at no loss of consistency, and "
        "teaches more than noise of the same size in the demonstrator where there are few demonstrations; the "
        "diversity of states does not explain it",
        question=f"on four tasks, cloning from {', '.join(map(str, FEW))} demonstrations, played at the noise of "
        f"the collection: system noise succeeds more often than policy noise in at least {LEAST_TASKS} tasks, "
        f"less of that is left at {MANY}, its action variance is lower and its states are not more diverse",
        arms=arms,
        comparisons=comparisons,
        reason=_reason(results, comparisons),
        seeds=seeds,
        settings={
            "tasks": [asdict(task) for task in TASKS],
            "demonstrations": list(SIZES),
            "graded": f"{GRADED} demonstrations per set; states scaled by all sets of a task together",
            "episodes_per_run_and_level": evaluate,
            "learner": config_to_json(LEARNER),
        },
        seconds=round(time.perf_counter() - began, 1),
        recipe_version=1,
    )


def _one_task(
    task: NoisyTask, *, seeds: Sequence[int], folder: Path, evaluate: int
) -> Generator[Stage, None, list[SetResult]]:
    """Every way of collecting one task, each with its own recording per seed."""
    results = [SetResult(task, kind, level) for kind, level in task.trained]
    make = task.maker()
    for seed in seeds:
        sets = []
        for result in results:
            collection = task.collection(result.kind, result.level, episodes=MANY, seed=seed)
            sets.append((yield from collection.episodes(folder)))
        for result, quality in zip(results, _graded(task, sets), strict=True):
            result.quality.append(quality)
        for result, episodes in zip(results, sets, strict=True):
            label = f"{task.short_name}, {result.kind} {result.level:g}"
            for size in SIZES:
                run = CachedRun(behaviour_cloning, _first(episodes, size), LEARNER, seed, folder)
                played = yield from _played(run, make, task, f"{label}, {size}", evaluate)
                for level, success in played.items():
                    result.success.setdefault((size, level), []).append(success)
    return results


def _first(episodes: Episodes, count: int) -> Episodes:
    return episodes.select(list(range(count)))


def _played(
    run: CachedRun, make: Any, task: NoisyTask, label: str, evaluate: int
) -> Generator[Stage, None, dict[float, np.ndarray]]:
    """Train, and play at each level; the outcomes are kept beside the run, and go with it."""
    for now in run.train(checkpoint_every=LEARNER.steps):
        yield Stage(f"train {label}, seed {run.seed}", now.step, now.total, now.metrics.get("loss"))
    path = run.path / f"success-{task.short_name}-{evaluate}.json"
    if not path.is_file():
        policy, outcome = run.policy(), {}
        for number, level in enumerate(task.played):
            yield Stage(f"play {label}, seed {run.seed}", number, len(task.played))
            rollouts = roll_out(
                policy, make(level), seeds=episode_seeds(0, evaluate), seed=run.seed, limit=task.limit
            )
            outcome[str(level)] = rollouts.success.astype(int).tolist()
        save_json(path, outcome)
    return {float(level): np.array(success, bool) for level, success in load_json(path).items()}


def _graded(task: NoisyTask, sets: Sequence[Episodes]) -> list[dict[str, float]]:
    """The metrics of each set under one normaliser and one radius, those of all sets together."""
    some = [_first(episodes, GRADED) for episodes in sets]
    pool = Episodes.from_arrays(
        {"observation": episodes[i]["observation"], "action": episodes[i]["action"]}
        for episodes in some
        for i in range(GRADED)
    )
    state = pool.steps["observation"][:, list(task.state)]
    mean, deviation = standard_scale(state)
    radius = default_radius((state - mean) / deviation, rng=generator(0, "radius"))
    config = data_quality.Config(radius=radius, state=task.state)
    graded = []
    for episodes in some:
        summary = result_of(data_quality.measure(episodes, config=config, reference=pool)).summary
        graded.append(
            {
                VARIANCE: float(np.log10(summary["action variance"])),  # type: ignore[arg-type]
                SIMILARITY: float(np.log10(summary["state similarity"])),  # type: ignore[arg-type]
                LENGTH: float(summary["mean length"]),
            }
        )
    return graded


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
    runs = [
        claim.Run(
            seed,
            {
                f"success at {level:g}": float(result.played(size, level)[i].mean())
                for level in result.task.played
            }
            | result.quality[i],
        )
        for i, seed in enumerate(seeds)
    ]
    summary = claim.summarise(runs)
    for level in result.task.played:
        summary[f"success at {level:g}"] = success_interval(result.played(size, level))
    settings = {
        "task": result.task.short_name,
        "noise": result.kind,
        "level": result.level,
        "demonstrations": size,
    }
    name = f"{result.task.short_name}, {result.kind} {result.level:g}, {size} demonstrations"
    return claim.Arm(name, settings, runs, summary)


def _comparisons(results: Sequence[SetResult]) -> list[claim.Comparison]:
    system, policy = _of(results, "system"), _of(results, "policy")
    left = {kind: _by_task(chosen, [MANY]) - _by_task(chosen, FEW) for kind, chosen in _kinds(results)}
    names = ("system noise, all tasks", "policy noise, all tasks")

    def compared(
        name: str, metric: str, difference: Interval, margin: float, direction: Any
    ) -> claim.Comparison:
        return claim.Comparison(name, *names, metric, difference, margin, direction)

    def qualities(metric: str) -> Interval:
        return paired_difference(_qualities(system, metric), _qualities(policy, metric))

    return [
        # Half a task on the safe side: a whole number above 1.5 is 2 or more.
        compared(
            "number of tasks in which system noise succeeds more often", TRAINED_LEVEL,
            _tasks_won(results), LEAST_TASKS - 0.5, "higher",
        ),
        compared(
            f"what {MANY} demonstrations add", GAINED,
            paired_difference(left["system"], left["policy"]), 0.0, "lower",
        ),
        compared("action variance, log10", VARIANCE, qualities(VARIANCE), 0.0, "lower"),
        compared("state similarity, log10", SIMILARITY, qualities(SIMILARITY), ALIKE, "not_lower"),
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
    """The obstacle from 40 good and 20 erratic demonstrations: all of them, or two thirds by score or chance."""
    task, level = OBSTACLE, 0.02
    make = task.maker()
    success: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        good = yield from task.collection("system", level, episodes=MANY, seed=seed).episodes(folder)
        erratic = yield from task.collection("policy", 0.05, episodes=20, seed=seed).episodes(folder)
        mixed = Episodes.from_arrays(
            {key: episodes[i][key] for key in ("observation", "action", "success")}
            for episodes, count in ((good, 40), (erratic, 20))
            for i in range(count)
        )
        config = data_quality.Config(state=task.state, drop=1 / 3)
        chance = numpy_generator(seed, "dropped").permutation(60)[:40]
        choices = {
            "all": list(range(60)),
            "curated": data_quality.curated(mixed, config=config),
            "random": sorted(chance.tolist()),
        }
        for name, kept in choices.items():
            run = CachedRun(behaviour_cloning, mixed.select(kept), LEARNER, seed, folder)
            played = yield from _played(run, make, task, f"curation, {name}", evaluate)
            success.setdefault(name, []).append(played[level])
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


def plot(record: claim.Claim) -> Figure:
    """Success at the training noise against demonstrations, a panel per task; bands are 95 % over seeds."""
    kinds = ("system", "policy", "clean")
    styles = palette([f"{kind} noise" if kind != "clean" else "clean" for kind in kinds])
    singles = [arm for arm in record.arms if "level" in arm.settings]
    names = list(dict.fromkeys(arm.settings["task"] for arm in singles))
    figure = blank_figure(LIGHT, height=4.6)
    panels = figure.subplots(-(-len(names) // 2), 2, squeeze=False, sharex=True, sharey=True).ravel()
    entries: dict[str, Any] = {}
    for name, axes in zip(names, panels, strict=False):
        dress(axes, LIGHT)
        for kind, (label, style) in zip(kinds, styles.items(), strict=True):
            chosen = [
                arm for arm in singles if arm.settings["task"] == name and arm.settings["noise"] == kind
            ]
            points = {size: _mean_rate(chosen, size) for size in SIZES} if chosen else {}
            if points:
                colour = style.colour(LIGHT)
                values = list(points.values())
                ends = [
                    np.clip([one.low for one in values], 0, 1),
                    np.clip([one.high for one in values], 0, 1),
                ]
                axes.fill_between(list(points), *ends, color=colour, alpha=0.15, linewidth=0)
                (line,) = axes.plot(list(points), [one.value for one in values], "o-", color=colour)
                entries[label] = line
        axes.set_xscale("log")
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.minorticks_off()
        axes.set_ylim(0, 1.03)
        axes.set_title(name, fontsize=9, color=LIGHT.ink)
        draw_grid(axes, LIGHT, "y")
    figure.supxlabel("demonstrations", fontsize=9, color=LIGHT.muted)
    figure.supylabel("success at the noise of the collection", fontsize=9, color=LIGHT.muted)
    draw_legend(figure, LIGHT, [(line, label) for label, line in entries.items()])
    return figure


def _mean_rate(arms: Sequence[claim.Arm], size: int) -> Interval:
    """The success rate at the training level over the sets of one kind, with its interval over seeds."""
    chosen = [arm for arm in arms if arm.settings["demonstrations"] == size]
    rates = [[run.metrics[f"success at {arm.settings['level']:g}"] for run in arm.runs] for arm in chosen]
    return mean_interval(np.mean(rates, axis=0))

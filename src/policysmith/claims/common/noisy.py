"""Tasks that are demonstrated with noise in the policy or in the world, and played in a noisy world.

The two kinds of noise have one scale per task, so that equal numbers are equal pushes. `learn_and_play` takes
one task through all of its collections: record, grade, clone from several numbers of demonstrations, play.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from jaxtyping import Bool, Float

from policysmith.claims.common.imitation import Task
from policysmith.common.rng import generator
from policysmith.common.saving import load_json, save_json
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation.cache import CachedRun
from policysmith.evaluation.comparison import episode_seeds, training_seconds
from policysmith.evaluation.rollouts import roll_out
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.objectives.data_quality import default_radius, standard_scale
from policysmith.systems import behaviour_cloning, data_quality
from policysmith.worlds import registry
from policysmith.worlds.noise import SystemNoise
from policysmith.worlds.obstacle import STEP_LENGTH

NoiseKind = Literal["clean", "system", "policy"]
MakeNoisy = Callable[[float], Callable[[], gymnasium.Env]]
"""Noise level -> what makes the environment with it."""

VARIANCE, SIMILARITY, LENGTH = "action variance, log10", "state similarity, log10", "length"
"""The metrics of a set."""


@dataclass(frozen=True)
class NoisyTask:
    """A task with the ways in which it is demonstrated and the noise under which policies are played.

    - `trained`: (kind, level) of each collection; `played`: levels of system noise.
    - `state`: the dimensions of the observation that say where things are.
    - `scale`: actions per unit of noise; `in_world` True where the environment itself makes the noise.
    """

    name: str
    trained: tuple[tuple[NoiseKind, float], ...]
    played: tuple[float, ...]
    limit: int
    state: tuple[int, ...]
    scale: float = 1.0
    in_world: bool = False

    def collection(self, kind: NoiseKind, level: float, *, episodes: int, seed: int) -> Task:
        """Successful demonstrations with noise of one kind."""
        pushed = kind == "system"
        return Task(
            Demonstrations(
                self.name,
                episodes=episodes,
                seed=seed,
                action_noise=self.scale * level if kind == "policy" else 0.0,
                system_noise=level if pushed and not self.in_world else 0.0,
                limit=self.limit,
                options={"sigma_system": level} if pushed and self.in_world else {},
            ),
            limit=self.limit,
        )

    def maker(self, *, rows: int = 25) -> MakeNoisy:
        """What makes the environment at a level; no more than `rows` are built, and used in turn.

        A simulator takes far longer to build than to reset, and hundreds of policies are played.
        """
        if self.in_world:
            return lambda level: lambda: registry.make(self.name, sigma_system=level)
        kept: list[gymnasium.Env] = []
        again = itertools.cycle(range(rows))

        def make() -> gymnasium.Env:
            if len(kept) < rows:
                kept.append(registry.make(self.name))
                return kept[-1]
            return kept[next(again)]

        return lambda level: lambda: SystemNoise(make(), level)

    @property
    def short_name(self) -> str:
        """The name without the package."""
        return self.name.rpartition("/")[2]


OBSTACLE = NoisyTask(
    "point-obstacle",
    trained=tuple((kind, level) for level in (0.01, 0.02, 0.03) for kind in ("system", "policy")),
    played=(0.01, 0.02, 0.03),
    limit=200,
    state=(0, 1),
    scale=1 / STEP_LENGTH,
    in_world=True,
)
ARM_TASKS = tuple(
    NoisyTask(
        f"metaworld/{name}",
        trained=(("clean", 0.0), ("system", 0.6), ("policy", 0.6)),
        played=(0.0, 0.6),
        limit=150,
        # The hand, its opening, and the first object.
        state=tuple(range(11)),
    )
    for name in ("drawer-open-v3", "door-open-v3", "button-press-topdown-v3")
)


@dataclass
class SetResult:
    """What one way of collecting came to: per seed its metrics, and the successes of what was learnt."""

    task: NoisyTask
    kind: NoiseKind
    level: float
    quality: list[dict[str, float]] = field(default_factory=list)
    success: dict[tuple[int, float], list[Bool[np.ndarray, "episode"]]] = field(default_factory=dict)
    """(demonstrations, level of play) -> per seed the outcomes."""
    seconds: float = 0.0
    """of training and playing, also where they are from an earlier call"""

    def played(self, size: int, level: float | None = None) -> Float[np.ndarray, "seed episode"]:
        """Outcomes of the policies from `size` demonstrations, by default at the training level."""
        return np.stack(self.success[size, self.level if level is None else level]).astype(float)


def learn_and_play(
    task: NoisyTask,
    learner: Any,
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    folder: Path,
    evaluate: int,
) -> Generator[Stage, None, list[SetResult]]:
    """Every way of collecting one task, recorded anew for every seed; what is done is kept in `folder`."""
    results = [SetResult(task, kind, level) for kind, level in task.trained]
    make = task.maker()
    for seed in seeds:
        sets = []
        for result in results:
            collection = task.collection(result.kind, result.level, episodes=max(sizes), seed=seed)
            sets.append((yield from collection.episodes(folder)))
        for result, quality in zip(results, graded(task, sets), strict=True):
            result.quality.append(quality)
        for result, episodes in zip(results, sets, strict=True):
            label = f"{task.short_name}, {result.kind} {result.level:g}"
            for size in sizes:
                first = episodes.select(list(range(size)))
                run = CachedRun(behaviour_cloning, (first,), first.fingerprint, learner, seed, folder)
                played = yield from train_and_play(run, make, task, f"{label}, {size}", evaluate)
                result.seconds += played.seconds
                for level, success in played.success.items():
                    result.success.setdefault((size, level), []).append(success)
    return results


@dataclass(frozen=True)
class Played:
    """Outcomes by level of play, and the seconds that training and playing took."""

    success: dict[float, Bool[np.ndarray, "episode"]]
    seconds: float


def train_and_play(
    run: CachedRun, make: MakeNoisy, task: NoisyTask, label: str, evaluate: int
) -> Generator[Stage, None, Played]:
    """Train and play at each level; the outcomes are kept beside the training run, and go when it goes."""
    for now in run.train(checkpoint_every=run.config.steps):
        yield Stage(f"train {label}, seed {run.seed}", now.step, now.total, now.metrics.get("loss"))
    path = run.path / f"success-{task.short_name}-{evaluate}.json"
    if not path.is_file():
        policy, outcome, began = run.policy(), {}, time.perf_counter()
        for number, level in enumerate(task.played):
            yield Stage(f"play {label}, seed {run.seed}", number, len(task.played))
            rollouts = roll_out(
                policy, make(level), seeds=episode_seeds(0, evaluate), seed=run.seed, limit=task.limit
            )
            outcome[str(level)] = rollouts.success.astype(int).tolist()
        save_json(path, {"success": outcome, "seconds": time.perf_counter() - began})
    kept = load_json(path)
    success = {float(level): np.array(one, bool) for level, one in kept["success"].items()}
    return Played(success, training_seconds(run) + kept["seconds"])


def graded(task: NoisyTask, sets: Sequence[Episodes]) -> list[dict[str, float]]:
    """The metrics of sets of equal size under one normaliser and one radius, those of all of them."""
    pool = Episodes.from_arrays(
        {key: one[i][key] for key in ("observation", "action")} for one in sets for i in range(len(one))
    )
    state = pool.steps["observation"][:, list(task.state)]
    mean, deviation = standard_scale(state)
    radius = default_radius((state - mean) / deviation, rng=generator(0, "radius"))
    config = data_quality.Config(radius=radius, state=task.state)
    found = []
    for one in sets:
        summary: Any = result_of(data_quality.measure(one, config=config, reference=pool)).summary
        found.append(
            {
                VARIANCE: float(np.log10(summary["action variance"])),
                SIMILARITY: float(np.log10(summary["state similarity"])),
                LENGTH: float(summary["mean length"]),
            }
        )
    return found

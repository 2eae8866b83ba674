"""Diffusion Policy and Streaming Diffusion Policy from pictures, on a task that is rendered.

A scripted expert, who knows where everything is, opens the drawer; the policies see a camera's picture and
the robot's own hand. Both train on the same demonstrations for the same number of steps, play the same
episodes, and are compared by success, network calls and time per action. Runs that are finished are kept in
`--folder`.

    python examples/picture_policy.py                            # half an hour on two cores
    python examples/picture_policy.py --env point-reach --limit 30 --steps 1000     # a few minutes
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from policysmith.claims.common.imitation import Task
from policysmith.common.stages import Stage, result_of
from policysmith.evaluation.comparison import Arm, ArmResult, compare
from policysmith.evaluation.statistics import success_interval
from policysmith.experience.demonstrations import Demonstrations
from policysmith.systems import diffusion_policy, sdp
from policysmith.worlds import registry

SYSTEMS: dict[str, ModuleType] = {"Diffusion Policy": diffusion_policy, "Streaming Diffusion Policy": sdp}


def task(env: str, *, side: int, episodes: int, limit: int) -> Task:
    """Demonstrations in `env`, seen in square pictures of `side` pixels from its usual camera."""
    options = {"pictures": {registry.camera(env): [side, side]}}
    recorded = Demonstrations(env, episodes=episodes, action_noise=0.1, limit=limit, options=options)
    return Task(recorded, limit=limit)


def experiment(task: Task, *, seeds: int, evaluate: int, folder: Path, **settings: Any) -> Iterator[Stage]:
    """Train and play both systems at their laptop's size with `settings`; returns their results."""
    episodes = yield from task.episodes(folder)
    arms = [
        Arm(label, module, replace(module.PRESETS["bench"], **settings)) for label, module in SYSTEMS.items()
    ]
    results = yield from compare(
        arms, episodes, task.make, seeds=range(seeds), evaluate=evaluate, folder=folder, limit=task.limit
    )
    return results


def rows(results: list[ArmResult]) -> list[list[str]]:
    """Per system: success with its 95 % interval, calls and milliseconds per action, minutes of training."""
    return [
        [
            result.arm.label,
            str(success_interval(result.success.astype(float))),
            ", ".join(f"{run.success.mean():.0%}" for run in result.rollouts),
            f"{result.calls_per_action.mean():.2f}",
            "-" if result.timing is None else f"{np.median(result.timing.action_ms):.1f}",
            f"{np.mean(result.train_seconds) / 60:.1f}",
        ]
        for result in results
    ]


def main() -> None:
    """Run the experiment with the options of the command line, and print what it came to."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--env", default="metaworld/drawer-open-v3")
    options.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
    options.add_argument("--episodes", type=int, default=40, help="demonstrations")
    options.add_argument("--limit", type=int, default=150, help="most steps of an episode")
    options.add_argument("--steps", type=int, default=1200, help="of the optimiser")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--seeds", type=int, default=2, help="runs per system")
    options.add_argument("--evaluate", type=int, default=25, help="episodes per run")
    options.add_argument("--folder", type=Path, default=Path("runs/picture-policy"))
    chosen = options.parse_args()
    results = result_of(
        reported(
            experiment(
                task(chosen.env, side=chosen.side, episodes=chosen.episodes, limit=chosen.limit),
                seeds=chosen.seeds,
                evaluate=chosen.evaluate,
                folder=chosen.folder,
                steps=chosen.steps,
                batch_size=chosen.batch_size,
            )
        )
    )
    heads = ("policy", "success", "of each run", "calls per action", "ms per action", "minutes of training")
    for row in [list(heads), *rows(results)]:
        print(" | ".join(row))


def reported(stages: Any) -> Any:
    """The same stages, each said once when it begins and now and then while it goes on."""
    last = ""
    try:
        while True:
            now = next(stages)
            if now.label != last or now.done % 200 == 0:
                last = now.label
                print(
                    f"{now.label}: {now.done}/{now.total}" + ("" if now.loss is None else f", {now.loss:.4f}")
                )
            yield now
    except StopIteration as end:
        return end.value


if __name__ == "__main__":
    main()

"""MT-SAC: soft actor-critic for several tasks at once, told by a one-hot vector which one it is in.

One actor and one pair of critics for all tasks; every batch holds equally many steps of each, and every task
has a temperature of its own, so that a task that is solved stops being explored while another still is. What
it learns of one task it may lose to another: that such tasks interfere is what Meta-World found.

What sets it apart from `sac` is that, and nothing else; `mtmh-sac` gives each task an output layer of its
own.

Reference: Yu et al. 2019, "Meta-World" (1910.10897), section 5; Haarnoja et al. 2018 (1812.05905).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policysmith.training.learners.multi_task import BENCH, TINY, MultiTaskSettings, Task, multi_task_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(MultiTaskSettings):
    """The defaults of `MultiTaskSettings`; see there, and `SacSettings`, for each setting."""


PRESETS = {"paper": Config(), "bench": Config(**BENCH), "tiny": Config(**TINY)}
"""The paper's, a laptop's, and a test's."""


def train(
    tasks: Sequence[Task],
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn `tasks`, each the name of an environment or a function that makes one, at once.

    The policy so far is `progress.state.policy()`; it acts without noise, on observations that end in the
    task's number as a one-hot vector (`worlds.metaworld_suites.OneHot`).
    """
    return multi_task_run(tasks, settings=config, seed=seed, state=state)

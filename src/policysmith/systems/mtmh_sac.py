"""MTMH-SAC: multi-task SAC whose tasks share the layers but the last, which each has for itself.

    output of task i = W_i h(observation) + b_i,     h shared

Gradients of a task move the shared layers and its own output, so that what one task wants of its last layer
is not undone by another. Everything else (equal shares of every batch, a temperature per task) is `mt-sac`.

Reference: Yu et al. 2019, "Meta-World" (1910.10897), section 5, multi-task multi-head SAC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium

from policysmith.common.spaces import ActionSpace
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.multi_task import TaskBody, TaskHead, TaskQ
from policysmith.training.learners.multi_task import BENCH, TINY, MultiTaskSettings, Task, multi_task_run
from policysmith.training.learners.sac import vector_size
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
    count = config.environments
    return multi_task_run(
        tasks,
        settings=config,
        seed=seed,
        make_actor=partial(heads_of_tasks, tasks=count),
        make_critic=partial(critics_of_tasks, tasks=count),
        state=state,
    )


def heads_of_tasks(
    space: gymnasium.Space, action: ActionSpace, settings: MultiTaskSettings, *, tasks: int
) -> NetworkPolicy:
    """An actor with an output layer per task."""
    body = TaskBody(vector_size(space), tasks, hidden=settings.hidden, activation=settings.activation)
    return NetworkPolicy(body, TaskHead(body.width, tasks, action.low, action.high))


def critics_of_tasks(
    space: gymnasium.Space, action: ActionSpace, settings: MultiTaskSettings, *, tasks: int
) -> TaskQ:
    """Critics with an output per task."""
    return TaskQ(
        vector_size(space),
        tasks,
        action.low,
        action.high,
        members=settings.members,
        hidden=settings.hidden,
        activation=settings.activation,
    )

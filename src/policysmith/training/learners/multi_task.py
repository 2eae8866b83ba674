"""Multi-task SAC: one policy for several tasks, learnt from equally many steps of each.

    environments   one per task, side by side; what they show ends in the task's number as a one-hot vector
    batch          `batch_size` transitions of every task
    temperature    one per task, each towards the same entropy of its own rows

Tasks differ in how soon they are solved: with a single temperature those that are would be explored as long
as those that are not. What the network shares is the recipe's: everything, or all but an output layer per
task.

Source: Yu et al. 2019 (Meta-World), section 5 and appendix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import gymnasium
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.experience.environments import InThisProcess, Maker
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import makers_of
from policysmith.experience.mixtures import EqualShares
from policysmith.experience.replay import Replay, Transitions
from policysmith.experience.workers import InProcesses
from policysmith.objectives.constraints import multiplier_loss
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.multi_task import task_of
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.learners.sac import SacLearners, SacSettings, Temperature
from policysmith.training.loop import Progress, RunState
from policysmith.worlds.metaworld_suites import OneHot

Task = str | Maker
"""The name of an environment, or a function that makes one."""


@dataclass(frozen=True)
class MultiTaskSettings(SacSettings):
    """SAC for several tasks.

    Defaults of MT10 as Meta-World's paper has it, as far as known: three layers of 400, 128 steps of every
    task in a batch, Adam 3e-4, discount 0.99 (widths and batch are not confirmed), 2 million steps of each.

    - `environments`: how many tasks there are.
    - `environment_steps`, `random_steps`: of every task.
    - `batch_size`: transitions of every task in a minibatch; `replay_capacity`: of every task.
    """

    environments: int = 10
    environment_steps: int = 2_000_000
    hidden: tuple[int, ...] = (400, 400, 400)
    batch_size: int = 128
    random_steps: int = 1000

    @property
    def steps(self) -> int:
        """Steps of the run, each of `every` steps of every task."""
        return math.ceil(self.environment_steps / self.every)

    def replay(self) -> Replay:
        """The replay of all tasks side by side."""
        return Replay(
            self.replay_capacity * self.environments,
            columns=self.environments,
            n_step=self.n_step,
            discount=self.discount,
        )


BENCH: dict[str, Any] = dict(
    environments=5,
    environment_steps=5000,
    random_steps=200,
    hidden=(128, 128),
    batch_size=64,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    temperature_learning_rate=1e-3,
)
"""What both systems of several tasks change for a laptop."""

TINY: dict[str, Any] = dict(
    environments=2,
    environment_steps=12,
    random_steps=4,
    hidden=(8,),
    batch_size=4,
    replay_capacity=50,
)
"""The same for a test."""


class MultiTaskLearners(SacLearners):
    """SAC's learners with a temperature for each of `tasks`."""

    def __init__(
        self,
        space: gymnasium.Space,
        action: ActionSpace,
        settings: MultiTaskSettings,
        *,
        seed: int,
        tasks: int,
        make_actor: Callable[..., NetworkPolicy] | None = None,
        make_critic: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            space,
            action,
            settings,
            seed=seed,
            make_actor=make_actor,
            make_critic=make_critic,
            tasks=tasks,
        )
        self.tasks = tasks
        self._drawn: dict[str, Tensor] = {}

    def temperature_of(self, observation: Float[Tensor, "row observation"]) -> Float[Tensor, "row"]:
        """That of each row's task."""
        return (task_of(observation, self.tasks) * self.temperature()).sum(-1)

    def actor_loss(
        self, actor: NetworkPolicy, batch: Transitions
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """SAC's, whose log-probabilities are kept for the temperatures."""
        loss, statistics = super().actor_loss(actor, batch)
        self._drawn = {
            "log_prob": -statistics["entropy"].detach(),
            "task": task_of(batch["observation"], self.tasks),
        }
        return loss, statistics

    def update_policy(self, batch: Transitions) -> dict[str, float]:
        """A step of the actor, and one of every temperature on its own task's rows."""
        found = self.learners["policy"].step(batch)
        metrics = {"actor_loss": found["loss"], "entropy": found["entropy"]}
        for task, value in enumerate(self.temperature().detach().tolist()):
            metrics[f"temperature/{task}"] = value
        if not self.settings.fixed_temperature:
            self.learners["temperature"].step(self._drawn)
        return metrics

    def temperature_loss(
        self, temperature: Temperature, batch: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        """Each temperature falls where the policy is more random in its task than asked for."""
        own = (batch["task"] * temperature()).sum(-1)
        return multiplier_loss(own, self.target_entropy + batch["log_prob"]), {}


def multi_task_run(
    tasks: Sequence[Task],
    *,
    settings: MultiTaskSettings,
    seed: int,
    make_actor: Callable[..., NetworkPolicy] | None = None,
    make_critic: Callable[..., Any] | None = None,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn all `tasks` at once; their spaces have to be the same.

    The policy so far, `progress.state.policy()`, reads observations with the task's one-hot vector behind
    them. Raises `SettingError` where there are not as many tasks as `environments` says.
    """
    if isinstance(tasks, str) or not isinstance(tasks, Sequence):
        tasks = [tasks]
    if len(tasks) != settings.environments:
        raise SettingError(
            f"{len(tasks)} tasks were given, and environments is {settings.environments}",
            expected="one environment for each task",
            cure=f"set environments to {len(tasks)} (--environments {len(tasks)})",
        )
    makers = [
        partial(told, makers_of(task, 1, settings.processes > 0)[0], number, len(tasks))
        for number, task in enumerate(tasks)
    ]
    copies = InProcesses(makers, workers=settings.processes) if settings.processes else InThisProcess(makers)
    interaction = Interaction(copies, seed=seed)
    learners = MultiTaskLearners(
        copies.observation_space,
        interaction.action_space,
        settings,
        seed=seed,
        tasks=len(tasks),
        make_actor=make_actor,
        make_critic=make_critic,
    )
    store = settings.replay()
    return off_policy_run(
        interaction=interaction,
        settings=_in_rows(settings),
        store=store,
        source=EqualShares(store),
        seed=seed,
        state=state,
        **learners.run_arguments(),
    )


def told(make: Maker, number: int, count: int) -> gymnasium.Env:
    """The environment of task `number` of `count`, which shows that number."""
    return OneHot(make(), number, count)


def _in_rows(settings: MultiTaskSettings) -> SacSettings:
    """The settings as the loop counts, in rows and steps of all environments together."""
    tasks = settings.environments
    names = [field.name for field in fields(SacSettings)]
    plain: dict[str, Any] = {name: getattr(settings, name) for name in names}
    for name in ("environment_steps", "random_steps", "batch_size"):
        plain[name] *= tasks
    return SacSettings(**plain)

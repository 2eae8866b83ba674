"""One network for several tasks, with an output of its own for each: shared features, separate answers.

Observations end in the task's number as a one-hot vector (`worlds.metaworld_suites.OneHot`), and that vector
chooses whose output is used:

    h = body(observation),    output = sum over tasks of one_hot[task] (W[task] h + b[task])

Gradients of a row then touch the shared body and the layer of its own task alone.

Source: Yu et al. 2019 (Meta-World), section 5, the multi-head form of multi-task SAC.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.saving import saveable
from policysmith.networks.bodies import Body
from policysmith.networks.critics import QEnsemble
from policysmith.networks.scaling import limits
from policysmith.policies.distributions import SquashedGaussian


def task_of(observation: Float[Tensor, "row observation"], tasks: int) -> Float[Tensor, "row task"]:
    """The one-hot vector that a multi-task observation ends in."""
    return observation[..., -tasks:]


@saveable
class TaskBody(Body):
    """A body whose features have the task's one-hot vector behind them, for the head to choose by.

    The observation ends in that vector, of `tasks` numbers; the layers read it too.
    """

    def __init__(
        self,
        observation_size: int,
        tasks: int,
        *,
        hidden: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
        normalise: bool = False,
    ) -> None:
        super().__init__(observation_size, hidden=hidden, activation=activation, normalise=normalise)
        if not 1 <= tasks < observation_size:
            raise SettingError(
                f"{tasks} tasks in an observation of {observation_size} numbers",
                expected="a one-hot vector of the tasks behind what is observed",
            )
        self.tasks = tasks
        self.width = self.width + tasks

    def forward(self, observation: Tensor) -> Float[Tensor, "row width"]:  # type: ignore[override]
        """Features, then the task."""
        return torch.cat([super().forward(observation), task_of(observation, self.tasks)], -1)


@saveable
class TaskHead(nn.Module):
    """A squashed Gaussian whose mean and log-deviation come from the layer of the row's own task.

    `width` is that of a `TaskBody`. See `policies.heads.SquashedGaussianHead`.
    """

    offset: Tensor | None
    scale: Tensor | None

    def __init__(
        self,
        width: int,
        tasks: int,
        low: Sequence[float],
        high: Sequence[float],
        *,
        log_deviation_range: Sequence[float] = (-20.0, 2.0),
    ) -> None:
        super().__init__()
        self.tasks, self.action_size = tasks, len(low)
        self.range = tuple(log_deviation_range)
        self.both = nn.Linear(width - tasks, tasks * 2 * self.action_size)
        offset, scale = limits(low, high)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, features: Float[Tensor, "row width"], mask: Tensor | None = None) -> SquashedGaussian:
        """The distribution of each row's task; there is nothing to mask."""
        hidden, task = features[:, : -self.tasks], features[:, -self.tasks :]
        every = self.both(hidden).unflatten(-1, (self.tasks, 2 * self.action_size))
        mean, log_deviation = (every * task[..., None]).sum(1).chunk(2, -1)
        return SquashedGaussian(mean, log_deviation.clamp(*self.range), self.offset, self.scale)


@saveable
class TaskQ(QEnsemble):
    """A `QEnsemble` with one output per task, of which each row's own is its value."""

    def __init__(
        self,
        observation_size: int,
        tasks: int,
        low: Sequence[float],
        high: Sequence[float],
        *,
        members: int = 2,
        hidden: Sequence[int] = (400, 400, 400),
        activation: str = "relu",
    ) -> None:
        super().__init__(
            observation_size,
            low,
            high,
            members=members,
            hidden=hidden,
            activation=activation,
            outputs=tasks,
        )
        self.tasks = tasks

    def forward(self, observation: Tensor, action: Tensor) -> Float[Tensor, "member row"]:  # type: ignore[override]
        """Every member's value of the row's own task."""
        every = super().forward(observation, action)
        every = every[..., None] if self.tasks == 1 else every
        return (every * task_of(observation, self.tasks)).sum(-1)

"""Which policy is trained for what, update after update, in a run that learns a whole front.

    first stage    each weight vector in turn: a fresh agent, the learning rate falling to 0 linearly
    second stage   each picked copy, for each objective: the agent goes on from the copy, for that objective
                   alone; the other objectives are bounded by what the copy had

When all picked copies have been extended along all objectives, others are picked, while there are updates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.networks.running import RunningReturnScale
from policysmith.training.learner import Learner
from policysmith.training.learners.copies import AgentCopy


@dataclass(frozen=True)
class Schedule:
    """How the updates are shared out.

    - `weights` [weight, objective] of the first stage, whose `initial` updates are shared evenly among them;
      `optimizer_steps` are made in each update.
    - `extension`: updates per picked copy and objective. `decayed_rate`: at the rate that the copy had.
    - `beta`, `shift`, `moving`: bounds keep a share of the return after `shift` [objective] was added to it;
      with `moving` they follow the present returns.
    """

    weights: Float[Tensor, "weight objective"]
    initial: int
    extension: int
    optimizer_steps: int
    decayed_rate: bool
    beta: float
    shift: Float[Tensor, "objective"]
    moving: bool

    def first_update(self, number: int) -> int:
        """At which update the first stage begins with weight vector `number`."""
        return number * self.initial // len(self.weights)


class Course:
    """Where a run is in its schedule, and what that makes of weights, rates and bounds.

    `fresh(number)` is the agent from which weight vector `number` starts.
    """

    def __init__(self, schedule: Schedule, *, fresh: Callable[[int], nn.Module]) -> None:
        self.schedule, self._fresh = schedule, fresh
        self.weights = schedule.weights[0]
        self.objective = -1
        self.evaluation_steps = 0
        self._length = schedule.first_update(1) if len(schedule.weights) > 1 else schedule.initial
        self._picked: list[AgentCopy] = []
        self._job = -1
        self._bounds: Tensor | None = None
        self._copied_rate = 1.0

    @property
    def extends(self) -> bool:
        """Whether this is the second stage, where one objective is improved and the others are held."""
        return self.objective >= 0

    def go_on(
        self,
        step: int,
        learner: Learner,
        scale: RunningReturnScale,
        *,
        pick: Callable[[], Sequence[AgentCopy]],
    ) -> None:
        """Before update `step` (from 0): begin what begins there; `pick` says what is extended next."""
        schedule = self.schedule
        if step < schedule.initial:
            starts = [schedule.first_update(number) for number in range(len(schedule.weights))]
            if step in starts:
                number = len(starts) - 1 - starts[::-1].index(step)
                ends = [*starts, schedule.initial][number + 1]
                self._begin_weights(number, ends - step, learner, scale)
        elif (step - schedule.initial) % schedule.extension == 0:
            self._job += 1
            if not 0 < self._job < len(self._picked) * len(self.weights):
                self._picked, self._job = list(pick()), 0
            self._begin_extension(learner, scale)

    def rate(self, taken: int) -> float:
        """Factor on the learning rate after `taken` optimiser steps of the present policy."""
        if self.extends:
            return self._copied_rate if self.schedule.decayed_rate else 1.0
        return max(0.0, 1 - taken / (self._length * self.schedule.optimizer_steps))

    def ends_weights(self, step: int) -> bool:
        """Whether update `step` (from 0) is the last for a weight vector of the first stage."""
        schedule = self.schedule
        ends = [schedule.first_update(number + 1) for number in range(len(schedule.weights))]
        return step + 1 in ends

    # ---- bounds --------------------------------------------------------------------------------------

    def bound(
        self, returns: Float[Tensor, "*batch objective"], deviation: Float[Tensor, "objective"]
    ) -> None:
        """Take the bounds from the first rollout of an extension: `returns` in units of `deviation`.

        Warns of an objective that moving bounds would not hold.
        """
        if not self.extends or self._bounds is not None:
            return
        mean = self._shifted(returns.reshape(-1, returns.shape[-1]).mean(0), deviation) * deviation
        self._bounds = mean - (1 - self.schedule.beta) * mean.abs()
        if self.schedule.moving:
            for number, value in enumerate(mean.tolist()):
                if value <= 0 and number != self.objective:
                    warnings.warn(
                        f"constraint {number} is inactive: its objective's mean return is {value:.4g}, and "
                        "moving bounds need one above 0; shift the objective (return_shift) or use absolute "
                        "thresholds (moving_bounds False)",
                        stacklevel=2,
                    )

    def mean_and_bounds(
        self, returns: Float[Tensor, "row objective"], deviation: Float[Tensor, "objective"]
    ) -> tuple[Float[Tensor, "objective"], Float[Tensor, "objective"]]:
        """Shifted mean returns of a minibatch and what they are held at, both in units of `deviation`."""
        mean = self._shifted(returns.mean(0), deviation)
        if self.schedule.moving:
            return mean, self.schedule.beta * mean
        assert self._bounds is not None
        return mean, self._bounds / deviation

    def _shifted(self, mean: Tensor, deviation: Tensor) -> Tensor:
        return mean + self.schedule.shift.to(mean.dtype) / deviation

    # ---- beginnings ----------------------------------------------------------------------------------

    def _begin_weights(self, number: int, length: int, learner: Learner, scale: RunningReturnScale) -> None:
        self.weights, self._length = self.schedule.weights[number], length
        learner.module.load_state_dict(self._fresh(number).state_dict())
        learner.optimizer.state.clear()
        learner.steps = 0
        scale.mean, scale.variance = torch.zeros_like(scale.mean), torch.ones_like(scale.variance)
        scale.count = torch.zeros_like(scale.count)

    def _begin_extension(self, learner: Learner, scale: RunningReturnScale) -> None:
        copy, self.objective = self._picked[self._job // len(self.weights)], self._job % len(self.weights)
        self.weights = torch.eye(len(self.weights), dtype=self.weights.dtype)[self.objective]
        copy.restore(learner, scale)
        learner.steps = 0
        self._copied_rate, self._bounds = copy.rate, None

    # ---- saving --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the run is."""
        return {
            "weights": self.weights.clone(),
            "objective": self.objective,
            "evaluation_steps": self.evaluation_steps,
            "length": self._length,
            "picked": [asdict(copy) for copy in self._picked],
            "job": self._job,
            "bounds": self._bounds,
            "copied_rate": self._copied_rate,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.weights, self.objective = state["weights"].clone(), int(state["objective"])
        self.evaluation_steps, self._length = int(state["evaluation_steps"]), int(state["length"])
        self._picked = [AgentCopy.of_tree(one) for one in state["picked"]]
        self._job, self._bounds = int(state["job"]), state["bounds"]
        self._copied_rate = float(state["copied_rate"])

"""Acting and learning at the same time: an actor that plays with the weights it was given last.

    actor (a thread)                         learner (whoever drives the run)
    act, step, act, step, ...   -- steps -->  take()
                                <- weights -  publish(policy)

A robot does not wait for an optimiser: it acts at its own rate with what was published last, and the learner
trains as often as it can on what has come in. The environment may live in a process of its own (see
`experience.environments`): PyTorch and the simulator then share no lock, and a simulator that dies is started
again while the learner goes on. Which weights a step was played with depends on the clock: such a run
resumes, and does not repeat the same numbers.

Source: Luo et al. 2024 (SERL), section IV-D.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from policysmith.common.errors import SettingError, StaleError
from policysmith.experience.interaction import Interaction

INEXACT = (
    "acting and learning went on at the same time: what was played with which weights depends on the clock"
)

Play = Callable[[Any], Any]
"""From the policy of the moment to what one step of all environments gave, whatever the learner stores."""


class AsynchronousActor:
    """Plays in a thread of its own, from `start` to `close`.

    - `policy`: what acts first; a copy is made of it, here and at every `publish`.
    - `play`: acts once in every environment and returns the step; nobody else touches its environments.
    - `rate`: steps per second, as a robot's controller has it; None for as fast as it goes.
    - `ahead`: at most so many steps wait for the learner, then the actor waits. On a robot nothing should.
    - `interaction`: what `play` acts in, saved between two steps.

    `played` counts steps, `published` versions of the weights. An error of the actor is raised where the
    learner next asks for steps.
    """

    def __init__(
        self,
        policy: nn.Module,
        play: Play,
        *,
        interaction: Interaction,
        rate: float | None = None,
        ahead: int = 1000,
    ) -> None:
        if rate is not None and not rate > 0:
            raise SettingError(f"an actor of {rate} steps per second", expected="more than 0, or None")
        if ahead < 1:
            raise SettingError(f"{ahead} steps ahead of the learner", expected="at least 1")
        self.interaction, self.rate, self.ahead = interaction, rate, ahead
        self.played, self.published = 0, 0
        self._policy, self._play = _still(policy), play
        self._waiting: list[Any] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._stepping = threading.Lock()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to act, unless that has been done."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._act, daemon=True)
            self._thread.start()

    def publish(self, policy: nn.Module) -> None:
        """Let the actor go on with a copy of `policy`, from its next step."""
        copy = _still(policy)
        with self._changed:
            self._policy = copy
            self.published += 1

    def take(self, least: int = 0, *, patience: float = 600.0) -> list[Any]:
        """All steps since the last call, in order; waits until there are `least`.

        Raises what stopped the actor, and `StaleError` after `patience` seconds without enough steps.
        """
        self.start()
        with self._changed:
            enough = self._changed.wait_for(
                lambda: self._error is not None or len(self._waiting) >= least, timeout=patience
            )
            if self._error is not None:
                raise self._error
            if not enough:
                raise StaleError(
                    f"the actor has played {len(self._waiting)} steps in {patience:g} s",
                    expected=f"{least}",
                    cure="see whether the environment hangs, or raise the actor's rate",
                )
            found, self._waiting = self._waiting, []
            self._changed.notify_all()
        return found

    def close(self) -> None:
        """Stop acting, after the step that is being played."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def metrics(self) -> dict[str, float]:
        """What the finished episodes came to, and how often weights were published."""
        with self._stepping:
            return self.interaction.metrics() | {"published": float(self.published)}

    def state_dict(self) -> dict[str, Any]:
        """The environments between two steps, and the steps that nobody has taken yet are given up."""
        with self._stepping:
            return {"interaction": self.interaction.state_dict(), "played": self.played}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; before `start`."""
        self.interaction.load_state_dict(state["interaction"])
        self.played = int(state["played"])

    @property
    def inexact(self) -> str:
        """Why a resumed run does not repeat the same numbers."""
        return INEXACT

    def _act(self) -> None:
        due = time.monotonic()
        try:
            while self._may_go_on():
                with self._stepping:
                    with self._changed:
                        policy = self._policy
                    step = self._play(policy)
                    with self._changed:
                        self._waiting.append(step)
                        self.played += 1
                        self._changed.notify_all()
                if self.rate is not None:
                    # From tick to tick, so that a late one does not move all that follow.
                    due = max(due + 1 / self.rate, time.monotonic() - 1 / self.rate)
                    time.sleep(max(0.0, due - time.monotonic()))
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _may_go_on(self) -> bool:
        """Wait while the learner is too far behind; False when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or len(self._waiting) < self.ahead)
            return not self._closing


def _still(policy: nn.Module) -> nn.Module:
    """A copy to act with: in eval mode and without gradients."""
    with torch.no_grad():
        return deepcopy(policy).eval().requires_grad_(False)

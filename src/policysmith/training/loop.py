"""The one loop: collect a batch, update the learners, count, yield.

A training run is an iterator of `Progress`, driven by whoever called it. A recipe gives two acts,
`collect(state) -> batch` and `update(state, batch) -> metrics`; all that must survive a restart lives in the
`RunState` they are handed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from tensordict import TensorDict

from policysmith.common.errors import FileError, NotFiniteError, SettingError
from policysmith.training.learner import Learner


class Stateful(Protocol):
    """Anything whose state can be saved: samplers, replay, collectors, normalisers."""

    def state_dict(self) -> dict[str, Any]:
        """The state as a tree of tensors and plain values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        ...


@dataclass
class RunState:
    """All that a run needs to go on.

    - `learners`: what is learnt, by name; the one called `policy` is what acts.
    - `generators`: the random streams, by what they are for.
    - `sources`: where experience comes from (samplers, replay, collectors with their unfinished episodes).
    - `targets`: slow copies of what is learnt (`networks.targets`).
    - `phase`: a recipe's own name for where it is, where it has phases.
    - `inexact`: why a resumed run will not repeat the same numbers; empty where it will.
    - `shown`: a few samples of the last `collect`, as plain data, for whoever watches; not saved.
    """

    learners: dict[str, Learner]
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    sources: dict[str, Stateful] = field(default_factory=dict)
    targets: dict[str, Stateful] = field(default_factory=dict)
    step: int = 0
    phase: str = ""
    inexact: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)

    def policy(self) -> Any:
        """A copy of the policy to act with, as far as it has been learnt."""
        return self.learners["policy"].acting()

    def state_dict(self) -> dict[str, Any]:
        """The whole state as a tree of tensors and plain values."""
        return {
            "step": self.step,
            "phase": self.phase,
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "generators": {name: rng.get_state() for name, rng in self.generators.items()},
            "sources": {name: source.state_dict() for name, source in self.sources.items()},
            "targets": {name: target.state_dict() for name, target in self.targets.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; `FileError` where its parts are not those of this run."""
        for kind in ("learners", "generators", "sources", "targets"):
            mine, saved = set(getattr(self, kind)), set(state.get(kind, {}))
            if mine != saved:
                raise FileError(
                    f"the checkpoint has other {kind} than this run",
                    where=f"checkpoint: {sorted(saved)}; run: {sorted(mine)}",
                    cure="resume with the system and configuration that wrote it",
                )
        try:
            for name, learner in self.learners.items():
                learner.load_state_dict(state["learners"][name])
            for name, rng in self.generators.items():
                rng.set_state(state["generators"][name])
            for name, source in self.sources.items():
                source.load_state_dict(state["sources"][name])
                self.inexact = self.inexact or getattr(source, "inexact", "")
            for name, target in self.targets.items():
                target.load_state_dict(state["targets"][name])
            self.step, self.phase = state["step"], state["phase"]
        except (RuntimeError, ValueError, KeyError) as error:
            raise FileError(
                f"the checkpoint does not fit this run: {error}",
                cure="resume with the configuration and data that wrote it",
            ) from error

    def restored(self, saved: RunState | Mapping[str, Any] | None) -> RunState:
        """This state, gone on from `saved` where there is one: how a recipe takes its `state` argument."""
        if saved is not None:
            self.load_state_dict(saved.state_dict() if isinstance(saved, RunState) else saved)
        return self


@dataclass(frozen=True)
class Progress:
    """What a run yields after each update.

    `metrics` are the same on every execution of the same run; `seconds` (time spent in `collect` and in
    `update`) are not. `total` is the number of steps the run will take.
    """

    step: int
    total: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    state: RunState


Collect = Callable[[RunState], Any]
"""What is learnt from next: a `learner.Batch`, or whatever the update of the same recipe takes."""

Update = Callable[[RunState, Any], dict[str, float]]
"""Learn from what was collected; the metrics."""


def run(state: RunState, *, collect: Collect, update: Update, steps: int) -> Iterator[Progress]:
    """Alternate `collect` and `update` until `steps` updates have been made, yielding after each.

    A `NotFiniteError` of an update is passed on with the step's number; the state is then the one before it.
    """
    while state.step < steps:
        began = time.perf_counter()
        batch = collect(state)
        collected = time.perf_counter()
        try:
            metrics = update(state, batch)
        except NotFiniteError as error:
            raise NotFiniteError(
                error.what, where=f"step {state.step + 1} of {steps}; {error.where}", cure=error.cure
            ) from error
        seconds = {"collect": collected - began, "update": time.perf_counter() - collected}
        state.step += 1
        yield Progress(state.step, steps, metrics, seconds, state)


def step_policy(state: RunState, batch: TensorDict) -> dict[str, float]:
    """The plainest update: one step of the learner called `policy`."""
    return state.learners["policy"].step(batch)


def finish(progress: Iterator[Progress]) -> RunState:
    """Drive a run to its end and return its state; for scripts that want no more than the result."""
    last = None
    for last in progress:  # noqa: B007
        pass
    if last is None:
        raise SettingError("the run had no steps left to take", cure="the state it was given is its result")
    return last.state

"""Runs one after another as one run: a pipeline that is recorded, stopped and resumed like any other.

    def stage(state) -> Iterator[Progress]        an ordinary run, gone on from `state` where there is one
    in_turn({"pairs": first, "answers": second}, steps=..., state=state)

Each stage is an ordinary run with a state of its own, and is called when the one before has ended: what it
begins from (the weights as they are then, a frozen copy of them) it takes where it is called. Only the state
of the present stage is saved, so that a stage has to keep what it cannot find again, a reference say, among
its own `sources`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import FileError
from policysmith.training.loop import Progress, RunState

RunStage = Callable[[Mapping[str, Any] | None], Iterator[Progress]]
"""(saved state or None) -> the run of the stage."""


@dataclass
class StagedState(RunState):
    """The state of stages in turn: `phase` names the present one, `inner` is its state or what was saved."""

    inner: RunState | Mapping[str, Any] | None = None

    def policy(self) -> Any:
        """A copy of the present stage's policy."""
        assert isinstance(self.inner, RunState)
        return self.inner.policy()

    def state_dict(self) -> dict[str, Any]:
        """Which stage it is, and that stage's state."""
        inner = self.inner.state_dict() if isinstance(self.inner, RunState) else self.inner
        return {"step": self.step, "phase": self.phase, "inner": inner}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; `FileError` for that of a run without stages."""
        if "inner" not in state:
            raise FileError(
                "the checkpoint is not that of a run in stages",
                cure="resume with the system and configuration that wrote it",
            )
        self.step, self.phase, self.inner = state["step"], state["phase"], state["inner"]


def in_turn(
    stages: Mapping[str, RunStage], *, steps: int, state: RunState | Mapping[str, Any] | None = None
) -> Iterator[Progress]:
    """The stages in their order, by name, of `steps` steps altogether; metrics are the present stage's.

    Raises `FileError` where the saved stage is not one of these.
    """
    names = list(stages)
    whole = StagedState(learners={}, phase=names[0])
    whole.restored(state)
    if whole.phase not in names:
        raise FileError(
            f"the checkpoint is of a stage '{whole.phase}'",
            expected=", ".join(names),
            cure="resume with the system and configuration that wrote it",
        )
    return _stage_by_stage({name: stages[name] for name in names[names.index(whole.phase) :]}, whole, steps)


def _stage_by_stage(stages: Mapping[str, RunStage], whole: StagedState, steps: int) -> Iterator[Progress]:
    for name, stage in stages.items():
        saved = whole.inner if isinstance(whole.inner, Mapping) else None
        whole.phase, whole.inner = name, None
        for now in stage(saved):
            whole.step, whole.inner = whole.step + 1, now.state
            whole.learners, whole.shown = now.state.learners, now.state.shown
            whole.inexact = now.state.inexact
            yield Progress(whole.step, steps, now.metrics, now.seconds, whole)

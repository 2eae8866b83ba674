"""Training runs that are measured on the way, and remember what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

from policysmith.common.stages import Stage
from policysmith.evaluation.cache import CachedRun

Measure = Callable[[Any], dict[str, list[float]]]
"""A policy as far as it has been learnt -> lists of numbers by name."""


def measured_run(
    run: CachedRun, marks: Sequence[int], measure: Measure, *, label: str
) -> Generator[Stage, None, dict[int, dict[str, list[float]]]]:
    """Make or finish `run`, and `measure` its policy after each of the steps `marks`; by step.

    What was measured is kept with the run, and is there again where the run is finished already.
    """
    path = run.path / "measured.jsonl"
    for now in run.train(checkpoint_every=10**9):
        yield Stage(f"train {label}", now.step, now.total, now.metrics.get("actor_loss"))
        if now.step in marks:
            line = {"step": now.step, **measure(now.state.policy())}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.pop("step"): line for line in lines}

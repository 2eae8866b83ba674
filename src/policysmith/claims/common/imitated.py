"""Supervised learning as an arm of a comparison: a model imitates examples, as a system's `train` would."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from policysmith.experience.examples import Examples
from policysmith.policies.language.models import open_policy
from policysmith.training.learners.supervised import SupervisedSettings, supervised_run
from policysmith.training.loop import Progress, RunState

Config = SupervisedSettings


def train(
    policy: str | os.PathLike[str],
    examples: Examples,
    *,
    config: SupervisedSettings,
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit the model in a folder to examples."""
    return supervised_run(open_policy(policy), examples, settings=config, seed=seed, state=state)

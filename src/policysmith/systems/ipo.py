"""IPO: preferences as they are, without Bradley and Terry between them and the policy.

Where the same answer always wins, `dpo` has no best margin: it grows without end, and the divergence penalty
is worth nothing. Identity preference optimisation maximises the preference itself, and a pair then asks for a
margin of one size:

    loss = (h - 1 / (2 beta))^2,    h = log pi/pi_ref (chosen) - log pi/pi_ref (rejected)

A margin that has passed its goal is pulled back. The smaller `beta`, the larger the goal; good values are
smaller than those of `dpo`.

Reference: Azar et al. 2023, A general theoretical paradigm to understand learning from human preferences
(2310.12036).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from policysmith.experience.preferences import Preferences
from policysmith.objectives.preferences import check_beta, ipo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.preference import PreferenceSettings, on_pairs, preference_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(PreferenceSettings):
    """Batch, rate and warm-up as of `dpo`; beta 0.01 was best in a comparison by Flet-Berliac et al. 2024.

    - `beta`: the margin that is asked for is 1 / (2 beta) nats.
    """

    batch_size: int = 64
    learning_rate: float = 5e-7
    warmup_steps: int = 150
    beta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)


PRESETS = {
    "paper": Config(),
    "bench": Config(
        steps=300, batch_size=32, learning_rate=1e-4, warmup_steps=10, weight_decay=0.01, beta=0.1
    ),
    "tiny": Config(steps=6, batch_size=2, learning_rate=1e-3, warmup_steps=2),
}
"""The usual one, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model on pairs of answers; as of `dpo`."""
    loss = on_pairs(partial(ipo_loss, beta=config.beta))
    return preference_run(policy, preferences, loss=loss, settings=config, seed=seed, state=state)

"""SLiC: sequence likelihood calibration, a hinge on how far the better answer is ahead.

    loss = max(0, 1 - beta h) - imitation log pi(chosen) / tokens

with h = log pi/pi_ref (chosen) - log pi/pi_ref (rejected). A pair whose margin has reached 1 / beta pulls no
more, and the second term holds the policy to answers that somebody preferred. The paper compares plain
log-probabilities and leaves the holding to the second term alone; with the reference in the margin, as later
comparisons have it, the term may be 0.

References: Zhao et al. 2023, SLiC-HF: sequence likelihood calibration with human feedback (2305.10425); Liu
et al. 2024, Statistical rejection sampling improves preference optimization (2309.06657), for the margin.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.experience.preferences import Preferences
from policysmith.objectives.preferences import check_beta, slic_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.preference import (
    PreferenceLoss,
    PreferenceSettings,
    on_pairs,
    preference_run,
)
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(PreferenceSettings):
    """Batch, rate and warm-up as of `dpo`.

    - `beta`: pairs pull up to a margin of 1 / beta nats.
    - `imitation`: weight of the mean log-probability per token of the chosen answer; 0 for none.
    """

    batch_size: int = 64
    learning_rate: float = 5e-7
    warmup_steps: int = 150
    beta: float = 0.1
    imitation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        if not 0 <= self.imitation < math.inf:
            raise SettingError(f"imitation is {self.imitation}", expected="0 or more, and finite")


PRESETS = {
    "paper": Config(),
    "bench": Config(steps=300, batch_size=32, learning_rate=1e-4, warmup_steps=10, weight_decay=0.01),
    "tiny": Config(steps=6, batch_size=2, learning_rate=1e-3, warmup_steps=2, imitation=0.1),
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
    loss = calibration(beta=config.beta, imitation=config.imitation)
    return preference_run(policy, preferences, loss=loss, settings=config, seed=seed, state=state)


def calibration(*, beta: float, imitation: float) -> PreferenceLoss:
    """The hinge of each pair, and the likelihood of its chosen answer per token."""
    hinge = on_pairs(lambda margin: slic_loss(margin, beta=beta))

    def loss(
        ratio: Float[Tensor, "row outcome"], batch: TensorDict
    ) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
        values, statistics = hinge(ratio, batch)
        per_token = batch["log_prob"][:, 0] / batch["mask"][:, 0].sum(1)
        return values - imitation * per_token, {**statistics, "chosen_per_token": per_token.detach()}

    return loss

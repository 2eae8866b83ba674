"""DPO: direct preference optimisation, a reward model and its best policy in one classification loss.

A policy that is best for a reward r under a divergence penalty is the reference tilted by it,
pi(y) ~ pi_ref(y) exp(r(y) / beta), so that every policy implies a reward. Where preferences are Bradley and
Terry's, P(y better than y') = sigmoid(r(y) - r(y')), the policy itself can be fitted to them:

    loss = -log sigmoid(beta h),    h = log pi/pi_ref (chosen) - log pi/pi_ref (rejected)

with log-probabilities summed over the tokens of an answer. The gradient fades as a pair comes to stand the
right way round. `ipo` sets the margin a goal, `slic` stops pulling at one, `robust-dpo` corrects for labels
that are wrong at a known rate, `online-dpo` has pairs of the policy's own answers labelled as it learns.

Reference: Rafailov et al. 2023, Direct preference optimization: your language model is secretly a reward
model (2305.18290).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from policysmith.experience.preferences import Preferences
from policysmith.objectives.preferences import check_beta, dpo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.preference import PreferenceSettings, on_pairs, preference_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(PreferenceSettings):
    """Defaults of the authors' code: beta, batch, learning rate and warm-up (with RMSprop in place of AdamW).

    - `beta`: weight of the divergence from the reference; small values let the policy move far.
    """

    batch_size: int = 64
    learning_rate: float = 5e-7
    warmup_steps: int = 150
    decay: Literal["constant", "linear", "cosine"] = "constant"
    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)


PRESETS = {
    "paper": Config(),
    "bench": Config(steps=300, batch_size=32, learning_rate=1e-4, warmup_steps=10, weight_decay=0.01),
    "tiny": Config(steps=6, batch_size=2, learning_rate=1e-3, warmup_steps=2),
}
"""The authors', a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, which is then trained in place) on pairs of answers.

    Raises `DataError` naming the row that is no pair or cannot be read.
    """
    loss = on_pairs(partial(dpo_loss, beta=config.beta))
    return preference_run(policy, preferences, loss=loss, settings=config, seed=seed, state=state)

"""Behaviour cloning: supervised learning of the demonstrated action from the observation.

The plainest way to imitate, and the baseline of most others. With one answer per observation it minimises the
squared error |a - pi(s)|^2, and where demonstrations disagree acts their mean; `components` of a mixture,
fitted by its likelihood, can hold several answers, as `diffusion-policy` does at a higher price. What it
learns depends on the data more than on anything here: grade them first with `data-quality`.

Reference: Pomerleau 1989 (ALVINN); settings of Mandlekar et al. 2021 (2108.03298), a study of cloning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.episodes import Episodes
from policysmith.policies.cloning import MixturePolicy
from policysmith.training.learners.cloning import (
    CloningSettings,
    cloning_policy,
    cloning_run,
    likelihood_loss,
    regression_loss,
)
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(CloningSettings):
    """Defaults of Mandlekar et al.'s BC on vectors (robomimic, exps/templates/bc.json).

    MLP 1024-1024, squared error, Adam 1e-4, batch 100, 2,000 passes of 100 steps, nothing scaled. See
    `CloningSettings` for each setting.
    """


PRESETS = {
    "paper": Config(),
    "mixture": Config(components=5),
    "data-quality": Config(hidden=(200, 200), batch_size=2560),
    "bench": Config(hidden=(256, 256), normalise=True, steps=3000, batch_size=256, learning_rate=1e-3),
    "tiny": Config(hidden=(16,), normalise=True, steps=6, batch_size=8),
}
"""The reference's size, the same with its mixture head (5 components), the learner of Belkhale et al. 2023
for their point mass (256 windows of 10 steps a batch), a laptop's, and a test's."""


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Clone `episodes`; the policy so far is `progress.state.policy()`."""
    policy = cloning_policy(episodes, settings=config, seed=seed)
    loss = likelihood_loss if isinstance(policy, MixturePolicy) else regression_loss
    return cloning_run(policy, loss, episodes, settings=config, seed=seed, state=state)

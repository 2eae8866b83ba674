"""TD3+BC: offline reinforcement learning by one term more in TD3.

A policy that learns from data alone must not go where the critics have seen nothing. TD3+BC takes TD3 as it
is and adds the plainest leash to its actor, the squared distance to the data's action:

    -alpha Q(s, pi(s)) / mean |Q| + |pi(s) - a|^2

with Q at a scale of its own, so that one alpha serves rewards of all sizes, and observations standardised by
the data.

Reference: Fujimoto and Gu 2021, "A minimalist approach to offline reinforcement learning" (2106.06860).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.common.errors import SettingError
from policysmith.experience.episodes import Episodes
from policysmith.training.learners.off_policy import OfflineSettings, offline_run
from policysmith.training.learners.offline import offline_data
from policysmith.training.learners.td3 import Td3Learners, Td3Settings, anchored
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(OfflineSettings, Td3Settings):
    """Defaults of the paper (table 3) and the authors' code: alpha 2.5, observations standardised, a million
    steps of batch 256, and TD3's own: Adam 3e-4, two layers of 256, targets by 0.005, smoothing 0.2 clipped
    at 0.5, the actor every second update. See `OfflineSettings` and `Td3Settings` for each setting.

    - `alpha`: weight of the critic against imitation; 0 imitates alone.
    - `standardise`: see observations in units of their deviation in the data (clipped at 10 of them).
    """

    alpha: float = 2.5
    standardise: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()
        if self.alpha < 0:
            raise SettingError(f"alpha is {self.alpha}", expected="0 or more")


PRESETS = {
    "paper": Config(),
    "bench": Config(steps=15_000, hidden=(128, 128), batch_size=128),
    "tiny": Config(steps=6, hidden=(8,), batch_size=8),
}
"""The paper's, a laptop's, and a test's."""


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from `episodes` with rewards; the policy so far is `progress.state.policy()`."""
    data = offline_data(episodes, by="td3-bc")
    learners = Td3Learners(
        data.observation_space,
        data.action,
        config,
        discount=config.discount,
        seed=seed,
        follow=anchored(config.alpha, data.action),
        observed=episodes.steps["observation"] if config.standardise else None,
    )
    return offline_run(
        source=data.replay, settings=config, seed=seed, state=state, **learners.run_arguments()
    )

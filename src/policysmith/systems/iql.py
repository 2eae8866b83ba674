"""IQL: implicit Q-learning, offline reinforcement learning that never asks about actions outside the data.

The value of a state is an expectile, above the mean, of what the data's own actions are worth there: nearly
the best that the data did. Critics back that value up, and the policy imitates the data's actions by how much
better they are than it.

Reference: Kostrikov et al. 2022, "Offline reinforcement learning with implicit Q-learning" (2110.06169).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.episodes import Episodes
from policysmith.training.learners.implicit import ImplicitLearners, ImplicitSettings
from policysmith.training.learners.off_policy import offline_run
from policysmith.training.learners.offline import offline_data
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(ImplicitSettings):
    """Defaults of the paper for locomotion (appendix B): expectile 0.7, beta 3, cap 100, Adam 3e-4 with the
    policy's rate falling along a half cosine, two layers of 256, batch 256, targets by 0.005, a million
    steps, discount 0.99. See `ImplicitSettings` for each setting.
    """


PRESETS = {
    "paper": Config(),
    "antmaze": Config(expectile=0.9, beta=10.0),
    "bench": Config(steps=15_000, hidden=(128, 128), batch_size=128),
    "tiny": Config(steps=6, hidden=(8,), batch_size=8),
}
"""The paper's for locomotion and for mazes, a laptop's, and a test's."""


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from `episodes` with rewards; the policy so far is `progress.state.policy()`, without noise."""
    data = offline_data(episodes, by="iql")
    learners = ImplicitLearners(data.observation_size, data.action, config, seed=seed)
    return offline_run(
        source=data.replay, settings=config, seed=seed, state=state, **learners.run_arguments()
    )

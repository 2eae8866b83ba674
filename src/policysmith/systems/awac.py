"""AWAC: advantage-weighted actor-critic, learning from data by imitating what turned out well.

The policy imitates the data's actions, each by how much better than the policy's own the critics think it is.
It never goes where the data is silent, needs no model of who recorded it, and can go on with experience of
its own by the same update. Here it learns from the data.

Reference: Nair et al. 2020, "AWAC: accelerating online reinforcement learning with offline datasets"
(2006.09359).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.episodes import Episodes
from policysmith.training.learners.awac import AwacLearners, AwacSettings
from policysmith.training.learners.off_policy import offline_run
from policysmith.training.learners.offline import offline_data
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(AwacSettings):
    """Defaults of the authors' script for MuJoCo (rlkit, examples/awac/mujoco/awac1.py): temperature 2, a
    policy of four layers of 256 with a deviation from e^-6 to 1, critics of two, Adam 3e-4 with weight decay
    1e-4 for the policy, targets by 0.005, batch 1024, 50,000 steps on the data. See `AwacSettings`.
    """

    steps: int = 50_000
    batch_size: int = 1024
    temperature: float = 2.0


PRESETS = {
    "paper": Config(),
    "bench": Config(
        steps=15_000, hidden=(128, 128), critic_hidden=(128, 128), batch_size=128, temperature=1.0
    ),
    "tiny": Config(steps=6, hidden=(8,), critic_hidden=(8,), batch_size=8),
}
"""The authors', a laptop's, and a test's."""


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from `episodes` with rewards; the policy so far is `progress.state.policy()`, without noise."""
    data = offline_data(episodes, by="awac")
    learners = AwacLearners(data.observation_size, data.action, config, seed=seed)
    return offline_run(
        source=data.replay, settings=config, seed=seed, state=state, **learners.run_arguments()
    )

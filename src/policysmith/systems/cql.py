"""CQL: conservative Q-learning, offline reinforcement learning with critics that do not hope.

Critics that learn from data alone overrate the actions nobody took, and an actor that follows them goes
there. CQL adds a penalty to the critics that lowers their opinion of actions at large and raises it of those
in the data; the rest is SAC.

Reference: Kumar et al. 2020, "Conservative Q-learning for offline reinforcement learning" (2006.04779).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.episodes import Episodes
from policysmith.training.learners.conservative import ConservativeLearners, ConservativeSettings
from policysmith.training.learners.off_policy import offline_run
from policysmith.training.learners.offline import offline_data
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(ConservativeSettings):
    """Defaults of the authors' script for locomotion (d4rl/examples/cql_mujoco_new.py): three layers of
    256, Adam 1e-4 for the actor and 3e-4 for the critics, 10 actions per proposal, no entropy in the targets,
    the actor imitating for the first 40,000 of 3 million steps of batch 256. The weight of the penalty is
    fixed at 5, which the script names for runs without a Lagrange multiplier. See `ConservativeSettings`.
    """

    steps: int = 3_000_000


PRESETS = {
    "paper": Config(),
    "bench": Config(
        steps=6000, cloning_steps=1000, hidden=(64, 64), batch_size=128, samples=5, learning_rate=3e-4
    ),
    "tiny": Config(steps=6, cloning_steps=2, hidden=(8,), batch_size=8, samples=2),
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
    data = offline_data(episodes, by="cql")
    learners = ConservativeLearners(data.observation_space, data.action, config, seed=seed)
    return offline_run(
        source=data.replay, settings=config, seed=seed, state=state, **learners.run_arguments()
    )

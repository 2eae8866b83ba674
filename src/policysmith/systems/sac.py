"""SAC: soft actor-critic, the off-policy method most others in continuous control are measured against.

Keeps everything it has seen and learns from draws of it: two critics by the least of their targets' opinions,
a squashed Gaussian actor that seeks value and entropy, and the temperature between the two so that the
entropy stays near a target.

Reference: Haarnoja et al. 2018, "Soft actor-critic algorithms and applications" (1812.05905).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.learners.sac import SacLearners, SacSettings
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(SacSettings):
    """Defaults of the paper (table 1 in appendix D): Adam 3e-4, discount 0.99, replay 1e6, two hidden layers
    of 256, batch 256, target entropy minus the action's dimension, targets by 0.005, one update per step;
    10,000 random steps at first, as in the authors' code. See `SacSettings` for each setting.
    """


PRESETS = {
    "paper": Config(),
    "bench": Config(environment_steps=20_000, random_steps=1000, hidden=(128, 128), batch_size=128),
    "tiny": Config(environment_steps=24, random_steps=8, hidden=(8,), batch_size=4, replay_capacity=100),
}
"""The paper's, a laptop's, and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to act in `environment`: a name, a function that makes one, or an environment.

    The policy so far is `progress.state.policy()`; it acts without noise.
    """
    interaction = Interaction.of(environment, config.environments, seed=seed, processes=config.processes)
    sac = SacLearners(interaction.observation_space, interaction.action_space, config, seed=seed)
    return off_policy_run(
        interaction=interaction, settings=config, seed=seed, state=state, **sac.run_arguments()
    )

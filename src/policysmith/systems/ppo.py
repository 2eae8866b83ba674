"""PPO: proximal policy optimisation, the on-policy method most others are measured against.

Every iteration acts for a while with the present policy, estimates how much better than expected each action
was (generalised advantages), and improves the policy on a few passes over those steps, no step further than
the clip of the ratio allows. Serves every action space; with `cell` set it is `recurrent-ppo`.

Reference: Schulman et al. 2017 (1707.06347); details after Huang et al. 2022, "The 37 implementation details
of PPO".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.ppo import PpoSettings, actor_critic, ppo_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(PpoSettings):
    """Defaults of the paper's MuJoCo table (table 3): horizon 2048, Adam 3e-4, 10 epochs, minibatch 64,
    discount 0.99, lambda 0.95, clip 0.2; one environment, observations and rewards scaled by running
    moments and the rate annealed as in the authors' implementation (Huang et al. 2022, details 2 and 6 of the
    continuous ones, 4 of the core). See `PpoSettings` for each setting.
    """

    environments: int = 1
    anneal: bool = True
    normalise_observations: bool = True
    normalise_rewards: bool = True
    value_clip: float | None = 0.2


PRESETS = {
    "paper": Config(),
    "bench": Config(environment_steps=100_000, environments=8, rollout_steps=256, minibatches=32),
    "cartpole": Config(
        environment_steps=100_000,
        environments=8,
        rollout_steps=32,
        epochs=20,
        minibatches=1,
        learning_rate=1e-3,
        discount=0.98,
        gae_lambda=0.8,
        normalise_observations=False,
        normalise_rewards=False,
        value_clip=None,
    ),
    "tiny": Config(
        environment_steps=96, environments=2, rollout_steps=8, epochs=2, minibatches=2, hidden=(8,)
    ),
}
"""The paper's, a laptop's, the settings of RL Baselines3 Zoo for CartPole, and a test's."""


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
    agent = actor_critic(interaction, config, seed=seed)
    return ppo_run(agent, interaction, settings=config, seed=seed, state=state)

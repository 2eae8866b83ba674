"""DQN: deep Q-learning, with the double estimate and the duelling network, for choices among actions.

Learns what every choice is worth from draws of everything it has seen, and takes the best, or with a
probability that falls over time any. A copy of the network that is renewed now and then says what comes after
a step; the network itself chooses which action that is said of, so that luck does not count twice.

References: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; van Hasselt, Guez and
Silver 2016 (1509.06461) for the double estimate; Wang et al. 2016 (1511.06581) for the duelling network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.dqn import DqnLearners, DqnSettings
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(DqnSettings):
    """What Mnih et al. 2015 (extended data table 1) and Hessel et al. 2018 (Rainbow, table 1) have in common
    for the arcade: batches of 32 after every fourth step, a replay of a million steps, discount 0.99. Adam
    with 6.25e-5 and epsilon 1.5e-4, learning from step 20,000 on, a target every 8,000 updates and
    exploration down to 0.01 over 250,000 steps are Rainbow's (its table counts frames, four a step).
    Prioritised replay is not there. See `DqnSettings` for each setting.
    """

    environment_steps: int = 10_000_000
    random_steps: int = 20_000
    every: int = 4
    batch_size: int = 32


PRESETS = {
    "paper": Config(),
    "cartpole": Config(
        environment_steps=50_000,
        random_steps=1000,
        every=256,
        updates=128,
        batch_size=64,
        replay_capacity=100_000,
        hidden=(256, 256),
        learning_rate=2.3e-3,
        adam_epsilon=1e-8,
        target_every=128,
        exploration=0.04,
        exploration_steps=8000,
        duelling=False,
        double=False,
    ),
    "minatar": Config(
        environment_steps=100_000,
        environments=8,
        random_steps=1000,
        every=1,
        updates=2,
        batch_size=64,
        replay_capacity=100_000,
        n_step=3,
        hidden=(64,),
        learning_rate=1e-3,
        target_every=200,
        exploration=0.05,
        exploration_steps=15_000,
    ),
    "tiny": Config(
        environment_steps=48, random_steps=8, hidden=(8,), batch_size=4, replay_capacity=100, target_every=2
    ),
}
"""The papers', RL Baselines3 Zoo's for CartPole (plain DQN), a laptop's for MinAtar, and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to act in `environment`: a name, a function that makes one, or an environment.

    The policy so far is `progress.state.policy()`; it takes the best choice. Raises `CapabilityError` where
    actions are not one choice among several.
    """
    interaction = Interaction.of(environment, config.environments, seed=seed, processes=config.processes)
    dqn = DqnLearners(interaction, config, seed=seed)
    return off_policy_run(seed=seed, state=state, **dqn.run_arguments())

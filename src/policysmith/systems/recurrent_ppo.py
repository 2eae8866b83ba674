"""Recurrent PPO: PPO whose actor and critic remember, for tasks where one observation does not tell all.

The body ends in an LSTM (or GRU) that actor and critic share; its memory is emptied where episodes begin, and
minibatches are whole sequences of some of the environments, started from the memory they were acted with.
Everything else is `ppo`.

Reference: Schulman et al. 2017 (1707.06347) with the recurrence of Ni et al. 2022, "Recurrent model-free RL
can be a strong baseline for many POMDPs" (2110.05038).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.ppo import PpoSettings, actor_critic, ppo_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(PpoSettings):
    """PPO's defaults with an LSTM of 128 on 8 environments, in 4 minibatches of 2 whole sequences each of 128
    steps (the recurrent settings of CleanRL's PPO-LSTM). See `PpoSettings` for each setting.
    """

    environments: int = 8
    rollout_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 2.5e-4
    anneal: bool = True
    entropy_weight: float = 0.01
    cell: str = "lstm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cell:
            raise SettingError("recurrent-ppo without a cell", expected="gru or lstm", cure="or run ppo")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        environment_steps=100_000, learning_rate=1e-3, cell="gru", memory_width=64, entropy_weight=0.0
    ),
    "tiny": Config(
        environment_steps=96,
        environments=2,
        rollout_steps=8,
        epochs=2,
        minibatches=2,
        hidden=(8,),
        memory_width=8,
    ),
}
"""The reference's, a laptop's, and a test's."""


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

"""FamO2O: a family of policies from data, and a member of it for every state when fine-tuning online.

Methods that learn from data first and from experience after it trade improvement against staying near the
data by one coefficient. Here one actor, told the coefficient, learns all of them at once, and a second, small
network learns which one to take in which state:

    balance = chooser(s),   a ~ actor(s, encoding of balance),   chooser: max E[ Q(s, a) ].

Over IQL the balance is the inverse temperature of its regression, over CQL (`base`) the weight of Q in its
actor's loss. The critics are the base's own. In the offline phase the actor learns with balances at random,
in the online phase, in which it acts too, with the chooser's. Unlike `iql`, it goes on learning by acting.

Reference: Wang et al. 2023, Train Once, Get a Family: State-Adaptive Balances for Offline-to-Online
Reinforcement Learning (2310.17966).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium

from policysmith.common.spaces import CONTINUOUS
from policysmith.experience.environments import Maker
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.family import FamilySettings
from policysmith.training.learners.family_conservative import ConservativeFamily
from policysmith.training.learners.family_implicit import ImplicitFamily
from policysmith.training.learners.fine_tuning import fine_tuning_run
from policysmith.training.loop import Progress, RunState

BASES = {"iql": ImplicitFamily, "cql": ConservativeFamily}


@dataclass(frozen=True)
class Config(FamilySettings):
    """Defaults of the authors' configuration for AntMaze, over IQL.

    jax_iql/configs/family_antmaze_finetune_config.py and family_learner.py: balances of 8 to 14, expectile
    0.9, 256 x 256, Adam 3e-4, batch 256, discount 0.99, targets by 0.005, encoding of size 6 and base 10,000,
    temperature from 1, entropy -0.5, a million steps of each phase, a replay of two million, rewards less 1.
    The preset `locomotion` has the learner's own range and a public port's settings (expectile 0.7, chooser
    every 5 steps, rewards by the spread of the returns); `cql-locomotion` is the authors'
    jax_cql/cql_finetune/finetune_configs/family.py. `base` is what the family is made over; see
    `FamilySettings` for the other settings.
    """

    base: Literal["iql", "cql"] = "iql"


LOCOMOTION = Config(
    balance_range=(1.0, 5.0), expectile=0.7, chooser_every=5, reward_shift=0.0, scale_by_returns=True
)
CONSERVATIVE = Config(
    base="cql", balance_range=(0.5, 1.5), reward_shift=0.0, offline_steps=2_000_000, online_steps=1_000_000
)
PRESETS = {
    "paper": Config(),
    "locomotion": LOCOMOTION,
    "cql-locomotion": CONSERVATIVE,
    "bench": Config(
        offline_steps=4000,
        online_steps=2000,
        batch_size=128,
        hidden=(64, 64),
        learning_rate=1e-3,
        rate=0.02,
        expectile=0.7,
        balance_range=(1.0, 10.0),
    ),
    "tiny": Config(offline_steps=4, online_steps=4, batch_size=8, hidden=(8,), chooser_every=2),
    "tiny-cql": Config(
        base="cql", offline_steps=4, online_steps=4, batch_size=8, hidden=(8,), sampled_actions=2
    ),
}
"""The paper's for mazes and for locomotion, over IQL and CQL, a laptop's, and a test's over each."""


def train(
    environment: str | Maker | gymnasium.Env,
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from `episodes` with rewards, then in `environment`: a name, a function that makes one, or one.

    The policy so far is `progress.state.policy()`: it acts without noise, and its `chooser` says which
    balance it takes where. Raises `DataError` for actions outside the environment's limits and for data that
    do not fit into the replay, `ShapeError` for observations that are not the environment's.
    """
    interaction = Interaction.of(environment, 1, seed=seed)
    action = interaction.action_space
    action.require(CONTINUOUS, by="FamO2O", instead="dqn, or ppo, which serves every action space")
    family = BASES[config.base](episodes.observation_size, action, config, seed=seed)
    return fine_tuning_run(
        episodes, interaction, settings=config, seed=seed, state=state, **family.run_arguments()
    )

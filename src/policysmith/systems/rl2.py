"""RL2: learning to learn a task within one's own memory, by recurrent PPO over trials of several episodes.

A trial is a few episodes at one task that is not shown: where the goal is has to be found out in the first
and used in the later ones. The policy is recurrent, its memory lasts for the trial, and with every
observation it is told what its last action was, what that was paid and whether it ended the episode. Ordinary
reinforcement learning on the return of whole trials then learns when to explore and what to remember:

    maximise  E over tasks [ sum over the episodes of a trial, discounted, of r ]

What sets it apart from `recurrent-ppo` is the trial and what is told, and nothing else; the policy that comes
out is measured by `metaworld` on the ML suites, which play trials too.

Reference: Duan et al. 2016, "RL2: fast reinforcement learning via slow reinforcement learning" (1611.02779);
as a baseline of Meta-World, Yu et al. 2019 (1910.10897), with PPO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import makers_of
from policysmith.networks.bodies import spread_memory
from policysmith.policies.actors import NetworkPolicy
from policysmith.training.learners.on_policy import ActorCritic
from policysmith.training.learners.ppo import PpoSettings, actor_critic, ppo_run
from policysmith.training.loop import Progress, RunState
from policysmith.worlds.trials import Feedback, Trials


@dataclass(frozen=True)
class Config(PpoSettings):
    """A GRU of 256, PPO with discount 0.99 and lambda 1: section 3 of Duan et al., with PPO's usual clipping.

    - `episodes`: of a trial; Meta-World's paper has 10. `environments` trials are played side by side.
    - `memory_steps`: the units of the memory begin with spans of 2 to so many steps, such as those of a trial
      (`networks.bodies.spread_memory`). With 0 they begin as PyTorch's do, which forget within a few steps.
    - `rollout_steps` is best a multiple of a trial's; 5,000 is one of Meta-World's (10 episodes of 500).

    Whether the paper's runs of Meta-World used these sizes is not confirmed. See `PpoSettings` for the rest.
    """

    episodes: int = 10
    environment_steps: int = 300_000_000
    environments: int = 20
    rollout_steps: int = 5000
    minibatches: int = 10
    gae_lambda: float = 1.0
    learning_rate: float = 5e-4
    cell: str = "gru"
    memory_width: int = 256
    memory_steps: int = 0
    hidden: tuple[int, ...] = (256,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cell:
            raise SettingError("rl2 without a cell learns nothing within a trial", expected="gru or lstm")
        if self.memory_steps < 0 or self.memory_steps == 1:
            raise SettingError(f"memory_steps is {self.memory_steps}", expected="0, or 2 and more")
        if self.episodes < 1:
            raise SettingError(f"trials of {self.episodes} episodes", expected="at least 1")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        episodes=4,
        environment_steps=300_000,
        environments=20,
        rollout_steps=200,
        minibatches=2,
        epochs=8,
        discount=0.95,
        gae_lambda=0.9,
        learning_rate=1.5e-3,
        memory_width=64,
        memory_steps=200,
        hidden=(64,),
        normalise_observations=True,
        normalise_rewards=True,
    ),
    "tiny": Config(
        episodes=2,
        environment_steps=96,
        environments=2,
        rollout_steps=8,
        epochs=2,
        minibatches=2,
        memory_width=8,
        memory_steps=8,
        hidden=(8,),
    ),
}
"""The paper's, a laptop's (trials of 4 episodes of 50 steps), and a test's."""

RECIPE_VERSION = 2


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to adapt in `environment`, whose seed decides the task: a name, a maker, or an environment.

    The policy so far is `progress.state.policy()`. It reads observations with feedback behind them
    (`worlds.trials.Feedback`), and its memory outlives the episodes of a trial.
    """
    if isinstance(environment, gymnasium.Env) and config.environments > 1 and environment.spec is None:
        raise CapabilityError(
            "several trials are played side by side, and one environment was given",
            expected="a name, or a function that makes an environment",
        )
    makers = makers_of(environment, config.environments, config.processes > 0)
    trial = partial(in_trials, makers[0], config.episodes)
    interaction = Interaction.of(trial, config.environments, seed=seed, processes=config.processes)
    agent = beginner(interaction, config, seed=seed)
    return ppo_run(agent, interaction, settings=config, seed=seed, state=state)


def beginner(interaction: Interaction, config: Config, *, seed: int) -> ActorCritic:
    """Actor and critic before they have learnt anything."""
    agent = actor_critic(interaction, config, seed=seed)
    agent.policy = NetworkPolicy(agent.policy.body, agent.policy.head, remembers_trials=True)
    if config.memory_steps:
        assert agent.policy.body.cell is not None
        spread_memory(agent.policy.body.cell, config.memory_steps)
    return agent


def in_trials(make: Maker, episodes: int) -> gymnasium.Env:
    """The environment that is learnt in: trials of so many episodes, with feedback."""
    return Trials(Feedback(make()), episodes)

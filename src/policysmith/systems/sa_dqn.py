"""SA-DQN: DQN whose decisions are to stand when the observation is moved a little, on purpose or not.

To DQN's loss comes, for every state drawn, how near a small change of the state can bring another action to
the one that is greedy there:

    weight max( max over s' near s of [max_{a != a*} Q(s', a) - Q(s', a*)], -floor )

The inner maximum is sought by projected gradient ascent, which bounds it from below: what comes out is
trained against attacks, not certified. The neighbourhood grows from nothing while the agent learns. Unlike
the authors' code for this form, every state has a hinge of its own, and the targets are double.

Reference: Zhang et al. 2020, "Robust deep reinforcement learning against adversarial perturbations on state
observations" (2003.08938).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.dqn import DqnLearners, DqnSettings, Robust
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(DqnSettings):
    """Defaults of the authors' code: six million frames, batches of 32, Adam 6.25e-5 with epsilon 1.5e-4, a
    target every 2,000 frames (500 updates, one in four steps), 200,000 steps of replay, exploration from 1 to
    0.05 over 1.5 million frames; `robust`: 1/255 after growing over four million frames, weight 0.005, floor
    1, five steps. Its prioritised replay is not there. See `DqnSettings` and `Robust` for each setting.
    """

    environment_steps: int = 6_000_000
    every: int = 4
    batch_size: int = 32
    replay_capacity: int = 200_000
    target_every: int = 500
    exploration: float = 0.05
    exploration_steps: int = 1_500_000
    robust: Robust = field(default_factory=Robust)


PRESETS = {
    "paper": Config(),
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
        robust=Robust(size=0.05, weight=0.1, steps=2, grows_from=5000, grows_until=20_000),
    ),
    "tiny": Config(
        environment_steps=48,
        random_steps=8,
        hidden=(8,),
        batch_size=4,
        replay_capacity=100,
        target_every=2,
        robust=Robust(low=-10.0, high=10.0, grows_from=8, grows_until=40),
    ),
}
"""The authors' for the arcade, a laptop's for MinAtar, and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to act in `environment`: a name, a function that makes one, or an environment.

    The observation has to be one vector of numbers between `robust.low` and `robust.high`. The policy so far
    is `progress.state.policy()`. Raises `CapabilityError` for other observations, and where actions are not
    one choice among several.
    """
    interaction = Interaction.of(environment, config.environments, seed=seed, processes=config.processes)
    dqn = DqnLearners(interaction, config, seed=seed, robust=config.robust)
    return off_policy_run(seed=seed, state=state, **dqn.run_arguments())

"""SAC with SynthER: learn twenty times from each step, half of the time from steps that a model made up.

Learning often from few steps overfits the critics, which is why more updates per step need ensembles (REDQ)
or resets. Here the algorithm stays SAC, and the data become many: every 10,000 steps a diffusion model is
fitted to the replay and fills a second one, and every minibatch is half real, half made.

What differs from `sac` is where minibatches come from, their number per step, and that the actor follows at
the pace of the environment. `synther` makes transitions of a data set.

Reference: Lu, Ball, Teh and Parker-Holder 2023, Synthetic Experience Replay (2303.06614), section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.experience.mixtures import Mixed
from policysmith.synthesis.diffusion import DiffusionSettings, diffusion_run
from policysmith.synthesis.refilled import RefilledReplay
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.learners.sac import SacLearners, SacSettings, vector_size
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(SacSettings):
    """The authors' settings for Gymnasium's tasks, from config/online/sac_synther_openai.gin and what it
    includes: 5000 random steps, 20 updates per step of which the actor takes one, a generator of width 1024
    every 10,000 steps that trains for 100,000. `count` is the million of their read-me (200,000 in the file).

    - `refill_every`: environment steps between two fillings; `count`: transitions in one; `made_share`: of a
      minibatch.
    - `generator_width`, `generator_depth`, `generator_level_size`, `generator_steps`, `generator_batch_size`,
      `generator_learning_rate`, `sampling_steps`, `sampling_batch`, `terminals`, `raw_reward`: what
      `DiffusionSettings` and `GeneratorSettings` call so without `generator`. The preset `control` leaves
      ends of tasks out and the reward unscaled, for tasks that only a time limit ends (DeepMind Control).
    """

    random_steps: int = 5000
    updates: int = 20
    policy_every: int = 20
    refill_every: int = 10_000
    count: int = 1_000_000
    made_share: float = 0.5
    generator_width: int = 1024
    generator_depth: int = 6
    generator_level_size: int = 256
    generator_steps: int = 100_000
    generator_batch_size: int | None = None
    generator_learning_rate: float = 3e-4
    sampling_steps: int = 128
    sampling_batch: int = 100_000
    terminals: bool = True
    raw_reward: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("refill_every", "count"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if not 0 <= self.made_share <= 1:
            raise SettingError(f"made_share is {self.made_share}", expected="0 to 1")
        if self.n_step != 1:
            raise SettingError(f"n_step is {self.n_step}", expected="1: made transitions are single steps")
        _ = self.generator  # settings out of its range are told before anything runs

    @property
    def generator(self) -> DiffusionSettings:
        """The settings of the generator."""
        return DiffusionSettings(
            width=self.generator_width,
            depth=self.generator_depth,
            level_size=self.generator_level_size,
            steps=self.generator_steps,
            batch_size=self.generator_batch_size,
            learning_rate=self.generator_learning_rate,
            sampling_steps=self.sampling_steps,
            sampling_batch=self.sampling_batch,
            terminals=self.terminals,
            raw_reward=self.raw_reward,
        )


PRESETS = {
    "paper": Config(),
    "control": Config(terminals=False, raw_reward=True),
    "bench": Config(
        environment_steps=6000,
        random_steps=1000,
        updates=10,
        policy_every=10,
        hidden=(128, 128),
        batch_size=128,
        refill_every=2000,
        count=50_000,
        generator_width=128,
        generator_depth=4,
        generator_level_size=64,
        generator_steps=3000,
        generator_learning_rate=1e-3,
        sampling_steps=32,
    ),
    "tiny": Config(
        environment_steps=24,
        random_steps=8,
        updates=2,
        policy_every=2,
        hidden=(8,),
        batch_size=4,
        replay_capacity=100,
        refill_every=10,
        count=16,
        generator_width=8,
        generator_depth=1,
        generator_level_size=4,
        generator_steps=4,
        generator_batch_size=8,
        sampling_steps=2,
    ),
}
"""The authors' for Gymnasium and for DeepMind Control, a laptop's, and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to act in `environment`: a name, a function that makes one, or an environment.

    The policy so far is `progress.state.policy()`; it acts without noise. Raises `CapabilityError` for
    discrete actions, and `DataError` where the replay holds fewer transitions than a batch of the generator.
    """
    interaction = Interaction.of(environment, config.environments, seed=seed, processes=config.processes)
    action = interaction.action_space
    vector_size(interaction.observation_space)
    sac = SacLearners(interaction.observation_space, action, config, seed=seed)
    replay = config.replay()
    made = RefilledReplay(
        replay,
        fit=partial(diffusion_run, settings=config.generator),
        every=config.refill_every,
        count=config.count,
        limits=(action.low, action.high),
        seed=seed,
        batch=config.sampling_batch,
    )
    return off_policy_run(
        interaction=interaction,
        settings=config,
        seed=seed,
        store=replay,
        source=Mixed([(replay, 1 - config.made_share), (made, config.made_share)]),
        before_step=made.before_step,
        sources={"made": made},
        state=state,
        **sac.run_arguments(),
    )

"""TD3: twin delayed deep deterministic policy gradient, off-policy learning of one certain action.

Deterministic policy gradients overrate actions: the actor finds what the critic is wrong about. TD3 answers
thrice: the target is the less hopeful of two critics' opinions, of an action with a little noise, and the
actor follows only every second update, when the critics have come closer to the truth.

Reference: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods"
(1802.09477).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.experience.environments import Maker
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.off_policy import OffPolicySettings, off_policy_run
from policysmith.training.learners.td3 import Td3Learners, Td3Settings
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(OffPolicySettings, Td3Settings):
    """Defaults of the authors' code (sfujim/TD3, main.py and TD3.py): 25,000 random steps, exploration noise
    0.1, batch 256, discount 0.99, targets by 0.005, smoothing 0.2 clipped at 0.5, the actor every second
    update, Adam 3e-4, two layers of 256, a million steps. The paper's own table has batches of 100 and Adam
    1e-3. See `OffPolicySettings` and `Td3Settings` for each setting; `exploration_noise`: deviation of what
    is added to actions for the sake of learning, in halves of their range.
    """

    random_steps: int = 25_000
    exploration_noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()
        if self.exploration_noise < 0:
            raise SettingError(f"exploration_noise is {self.exploration_noise}", expected="0 or more")


PRESETS = {
    "paper": Config(),
    "bench": Config(environment_steps=20_000, random_steps=1000, hidden=(128, 128), batch_size=128),
    "tiny": Config(environment_steps=24, random_steps=8, hidden=(8,), batch_size=4, replay_capacity=100),
}
"""The authors', a laptop's, and a test's."""


def train(
    environment: str | Maker | gymnasium.Env,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn to act in `environment`: a name, a function that makes one, or an environment.

    The policy so far is `progress.state.policy()`.
    """
    interaction = Interaction.of(environment, config.environments, seed=seed, processes=config.processes)
    td3 = Td3Learners(
        interaction.observation_space, interaction.action_space, config, discount=config.discount, seed=seed
    )
    return off_policy_run(
        interaction=interaction,
        explore=td3.explore(config.exploration_noise),
        settings=config,
        seed=seed,
        state=state,
        **td3.run_arguments(),
    )

"""IQL that goes on learning by acting, one balance for all states: what is compared with a family of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from policysmith.experience.environments import Maker
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.training.learners.fine_tuning import FineTuningSettings, fine_tuning_run
from policysmith.training.learners.implicit import ImplicitLearners, ImplicitSettings
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(FineTuningSettings):
    """IQL's settings, see `ImplicitSettings`; the policy's learning rate stays as it is."""

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    rate: float = 0.005
    expectile: float = 0.9
    cap: float = 100.0
    beta: float = 10.0


def train(
    environment: str | Maker | gymnasium.Env,
    episodes: Episodes,
    *,
    config: Config,
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from `episodes`, then in `environment`; it explores with the noise of its policy."""
    interaction = Interaction.of(environment, 1, seed=seed)
    settings = ImplicitSettings(
        steps=config.steps,
        batch_size=config.batch_size,
        discount=config.discount,
        expectile=config.expectile,
        beta=config.beta,
        cap=config.cap,
        hidden=config.hidden,
        learning_rate=config.learning_rate,
        cosine=False,
        rate=config.rate,
    )
    learners = ImplicitLearners(episodes.observation_size, interaction.action_space, settings, seed=seed)
    policy: Any = learners.policy
    return fine_tuning_run(
        episodes,
        interaction,
        explore=lambda observation, rng: policy.draw(observation, rng)[0],
        settings=config,
        seed=seed,
        state=state,
        **learners.run_arguments(),
    )

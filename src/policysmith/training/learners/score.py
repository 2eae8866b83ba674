"""The score learner: denoising at continuous noise levels, on windows of play with hindsight goals.

Per window one sigma from a truncated log-logistic density around sigma_data, x = clean + sigma noise, and the
error of the network inside the preconditioned denoiser; all W actions are supervised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.experience.episodes import Episodes
from policysmith.networks.karras import KarrasDenoiser, log_logistic
from policysmith.networks.schedules import check_sigma_range
from policysmith.objectives.denoising import preconditioned_error
from policysmith.policies.score import ScoreModel, ScorePolicy
from policysmith.training.learners.goals import GoalSettings, goal_condition, goal_run, goal_transformer
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class ScoreSettings(GoalSettings):
    """Settings of score policies beside those of `GoalSettings`.

    - `sigma_min`, `sigma_max`: the range of noise; `sigma_data`: the deviation of actions that the
      preconditioning assumes; `density_scale`: scale of the log-logistic density of sigma.
    - `sampler`, `schedule`, `sampling_steps`, `guidance`, `keep_last_actions`: how the trained policy acts,
      see `ScorePolicy`; they may be changed afterwards.
    """

    sigma_min: float = 0.005
    sigma_max: float = 1.0
    sigma_data: float = 0.5
    density_scale: float = 0.5
    sampler: str = "ddim"
    schedule: str = "exponential"
    sampling_steps: int = 3
    guidance: float = 1.0
    keep_last_actions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sigma_range(self.sigma_min, self.sigma_max)


def score_model(episodes: Episodes, *, settings: ScoreSettings, seed: int) -> ScoreModel:
    """An untrained model for the widths of `episodes`, scaled to them and told their bounds."""
    condition = goal_condition(episodes, settings)
    network = goal_transformer(condition, episodes.action_size, settings=settings, seed=seed)
    model = ScoreModel(
        KarrasDenoiser(network, sigma_data=settings.sigma_data),
        condition,
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        goal_dropping=settings.goal_dropping > 0,
    )
    if settings.standardise:
        model.action_normalizer.fit_moments(episodes.steps["action"])
    return model.fit_bounds(episodes.steps["action"])


def score_loss(policy: ScorePolicy, batch: TensorDict) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """The preconditioned error per row of a corrupted batch; `policy.model` is learnt."""
    estimate, clean = policy.model.estimate(batch)
    sigma_data = policy.model.denoiser.sigma_data
    return preconditioned_error(estimate, clean, batch["sigma"], sigma_data=sigma_data), {}


def score_run(
    episodes: Episodes,
    *,
    settings: ScoreSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a score policy on play."""
    model = score_model(episodes, settings=settings, seed=seed)
    policy = ScorePolicy(
        model,
        sampler=settings.sampler,
        schedule=settings.schedule,
        sampling_steps=settings.sampling_steps,
        guidance=settings.guidance,
        keep_last_actions=settings.keep_last_actions,
    )
    density = log_logistic(
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        location=math.log(settings.sigma_data),
        scale=settings.density_scale,
    )

    def prepare(batch: TensorDict, rng: torch.Generator) -> TensorDict:
        return model.corrupt(batch, density(len(batch), rng), rng=rng)

    return goal_run(policy, score_loss, episodes, settings=settings, seed=seed, prepare=prepare, state=state)

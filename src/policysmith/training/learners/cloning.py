"""The cloning learner: fit actions to observations, by squared error or by the likelihood of a mixture.

The loss belongs to the kind of policy: one answer is fitted by its squared error, a mixture by its
log-likelihood. `cloning_run` is the run that both share, and takes any other loss of windows of episodes.
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

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.experience.episodes import Episodes
from policysmith.experience.windows import WindowSampler
from policysmith.objectives.cloning import action_error
from policysmith.policies.cloning import MixturePolicy, RegressionPolicy, joined
from policysmith.policies.protocol import Policy
from policysmith.training.learner import Learner, Loss
from policysmith.training.loop import Progress, RunState, run, step_policy


@dataclass(frozen=True)
class CloningSettings:
    """What cloning with an MLP needs; a system's configuration says where its values are from.

    - `components` 0: one answer, by squared error; else a mixture of so many Gaussians, by likelihood, with
      deviations of at least `minimum_deviation` and acting with `spread` of its noise.
    - `hidden`: widths of the hidden layers; `observation_steps`, `action_steps`: observations that are read,
      and actions that are played per decision.
    - `normalise`: scale observations and actions to [-1, 1] by the data's range.
    - `steps`, `batch_size`, `learning_rate`, `weight_decay`: of AdamW (Adam where the decay is 0).
    """

    components: int = 0
    hidden: tuple[int, ...] = (1024, 1024)
    observation_steps: int = 1
    action_steps: int = 1
    normalise: bool = False
    minimum_deviation: float = 1e-4
    spread: float = 0.0
    steps: int = 200_000
    batch_size: int = 100
    learning_rate: float = 1e-4
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("observation_steps", "action_steps", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("components", "learning_rate", "weight_decay", "spread"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if not 0 < self.minimum_deviation < math.inf:
            raise SettingError(f"minimum_deviation is {self.minimum_deviation}", expected="above 0")
        if any(width < 1 for width in self.hidden):
            raise SettingError(f"hidden widths are {self.hidden}", expected="at least 1 each")


def cloning_policy(
    episodes: Episodes, *, settings: CloningSettings, seed: int
) -> RegressionPolicy | MixturePolicy:
    """An untrained policy for the widths (and, where `normalise`, the ranges) of `episodes`.

    It reads the state, and the goal where there is one. Raises `CapabilityError` for pictures, and
    `DataError` where the actions are beyond what an output that is not scaled can reach.
    """
    if episodes.pictures:
        raise CapabilityError(
            f"the observations have pictures ({', '.join(episodes.pictures)})",
            expected="vectors: a state, and a goal where there is one",
            cure="leave the cameras out when loading the data",
        )
    observation = joined(episodes.steps["observation"])
    sizes = (episodes.observation_size, episodes.action_size)
    common = {
        "goal_size": observation.shape[1] - episodes.observation_size,
        "hidden": settings.hidden,
        "observation_steps": settings.observation_steps,
        "action_steps": settings.action_steps,
    }
    with seeded_initialisation(seed):
        policy = (
            MixturePolicy(
                *sizes,
                components=settings.components,
                minimum_deviation=settings.minimum_deviation,
                spread=settings.spread,
                **common,
            )
            if settings.components
            else RegressionPolicy(*sizes, **common)
        )
    action = episodes.steps["action"]
    if settings.normalise:
        policy.observation_normalizer.fit_range(observation)
        policy.action_normalizer.fit_range(action)
    elif (largest := float(action.abs().max())) > 1 + 1e-6:
        raise DataError(
            f"actions reach {largest:.4g}",
            expected="-1 to 1, as far as the policy's output goes",
            cure="set normalise (--normalise), which scales the output to the data's range",
        )
    return policy


def regression_loss(
    policy: RegressionPolicy, batch: TensorDict
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Squared error per row of the scaled actions."""
    wanted = policy.action_normalizer(_chunk(policy, batch))
    return action_error(policy.predict(batch["observation"]), wanted), {}


def likelihood_loss(
    policy: MixturePolicy, batch: TensorDict
) -> tuple[Float[Tensor, "row"], dict[str, Tensor]]:
    """Minus the log-density of the demonstrated actions per row, in the environment's units."""
    return -policy.log_prob(batch["observation"], _chunk(policy, batch)), {}


def cloning_run(
    policy: Policy,
    loss: Loss,
    episodes: Episodes,
    *,
    settings: CloningSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit `policy` to windows of `episodes` by `loss`; see `run`."""
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    windows = WindowSampler(
        episodes,
        horizon=policy.observation_steps - 1 + policy.action_steps,
        observation_steps=policy.observation_steps,
        action_steps=policy.action_steps,
        rng=generator(seed, "windows"),
    )
    run_state = RunState(
        learners={"policy": Learner(policy, loss, optimizer=optimizer)},
        generators={"windows": windows.rng},
        sources={"windows": windows},
    ).restored(state)
    return run(
        run_state,
        collect=lambda state: windows.sample(settings.batch_size),
        update=step_policy,
        steps=settings.steps,
    )


def _chunk(policy: RegressionPolicy | MixturePolicy, batch: TensorDict) -> Float[Tensor, "row step action"]:
    """The actions from now on: those before belong to past observations of the window."""
    return batch["action"][:, policy.observation_steps - 1 :]

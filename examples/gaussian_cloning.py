"""Gaussian behaviour cloning: maximise log pi(a | s) over demonstrations.

The plainest way to imitate, and the worked example of docs/write-a-system.md. One mode per state: where
demonstrations disagree it acts their mean, which is what diffusion policies avoid.

Reference: Pomerleau 1989 (ALVINN), with the Gaussian likelihood as the loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.rng import generator, seeded_initialisation
from policysmith.experience.episodes import Episodes
from policysmith.experience.windows import WindowSampler
from policysmith.policies.actors import NetworkPolicy, gaussian_actor
from policysmith.training.learner import Learner
from policysmith.training.loop import Progress, RunState, run, step_policy


@dataclass(frozen=True)
class Config:
    """`steps` of Adam at `learning_rate` on `batch_size` steps of demonstrations."""

    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 3e-4


PRESETS = {"paper": Config(), "tiny": Config(steps=6, batch_size=8)}


def cloning_loss(policy: NetworkPolicy, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the log-density of each demonstrated action, per row."""
    return -policy.log_prob(batch["observation"][:, -1], batch["action"][:, -1]), {}


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Clone `episodes`; the policy so far is `progress.state.policy()`."""
    with seeded_initialisation(seed):
        policy = gaussian_actor(episodes.observation_size, episodes.action_size)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    windows = WindowSampler(
        episodes, horizon=1, observation_steps=1, action_steps=1, rng=generator(seed, "windows")
    )
    run_state = RunState(
        learners={"policy": Learner(policy, cloning_loss, optimizer=optimizer)},
        generators={"windows": windows.rng},
        sources={"windows": windows},
    ).restored(state)
    return run(
        run_state,
        collect=lambda state: windows.sample(config.batch_size),
        update=step_policy,
        steps=config.steps,
    )

"""BESO: a goal-conditioned policy from unlabelled play, sampled in three steps of a score model.

Windows of play are given a state that came later in the same episode as their goal. A causal transformer,
preconditioned as D(x; sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4), learns to denoise their actions at
all levels of a continuous range of noise, given states and goal. The loss knows nothing of samplers: which
one, its schedule and the number of steps are chosen afterwards, and three steps of DDIM are enough as a rule.
With goals left out at times in training, one network holds the policy with a goal and the one without, and
guidance sets how far the goal is followed:

    D = D_without + lambda (D_with - D_without).

Unlike `diffusion-policy` it needs no task labels and reaches the goal it is shown.

Reference: Reuss, Li, Jia and Lioutikov 2023, Goal-Conditioned Imitation Learning using Score-based Diffusion
Policies (2304.02532).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policysmith.experience.episodes import Episodes
from policysmith.training.learners.score import ScoreSettings, score_run
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(ScoreSettings):
    """Defaults of the authors' configuration for the relay kitchen.

    configs/franka_kitchen_main_config.yaml and agents/beso_kitchen.yaml: W 4, G 2, states and actions as they
    are, width 360, 6 layers of 6 heads, attention dropout 0.3, sigma from 0.005 to 1, 40,000 steps of 1024,
    AdamW 1e-4, DDIM with 3 exponential steps, weights averaged with at most 0.999. `goal_dropping` is 0, as
    in the plain model (C-BESO); their CFG-BESO has 0.1, and `guidance` 1.5 in the kitchen. The settings are
    explained in `GoalSettings` and `ScoreSettings`.
    """


BLOCK_PUSH = Config(
    window=5,
    goal_steps=1,
    goal_dimensions=(0, 1, 3, 4),
    standardise=True,
    width=240,
    depth=4,
    heads=12,
    attention_dropout=0.05,
    residual_dropout=0.05,
    sigma_min=0.05,
    steps=60_000,
    weight_decay=0.0,
)
"""The authors' configuration for block push: the goal is where the two blocks are; Adam."""

PRESETS = {
    "paper": Config(),
    "block-push": BLOCK_PUSH,
    "bench": Config(
        goal_steps=1,
        standardise=True,
        width=96,
        depth=3,
        heads=4,
        attention_dropout=0.05,
        sigma_min=0.01,
        steps=6000,
        batch_size=256,
        learning_rate=5e-4,
    ),
    "tiny": Config(
        window=3, width=16, depth=1, heads=2, goal_dropping=0.1, standardise=True, steps=6, batch_size=8
    ),
}
"""The paper's sizes for its two tasks, a laptop's (0.35 M weights, minutes of training), and a test's."""


def train(
    episodes: Episodes,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Learn from play; the policy so far is `progress.state.policy()`, and it acts on states and goals.

    `episodes` hold states and actions, of any length and without labels; goals come from hindsight. Raises
    `DataError` where no episode is as long as a window and `ShapeError` where the episodes' own goals do not
    fit the settings.
    """
    return score_run(episodes, settings=config, seed=seed, state=state)

"""A generator of transitions: a module that is fitted to packed rows and makes new ones.

What kind of model it is (a diffusion model, an autoencoder) is the subclass's business: how scaled rows are
drawn, and what a batch needs for its loss. Packing, scaling, training and drawing in batches are the same for
all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.networks.ema import ExponentialAverage, every, power_decay
from policysmith.networks.normalizers import Normalizer
from policysmith.synthesis.rows import Layout, fit_columns
from policysmith.training.learner import Learner, Loss, cosine_schedule
from policysmith.training.loop import Progress, RunState, run

LEARNER = "generator"
"""Name of the learner in the state of a generator's run."""

MANY_ROWS = 800_000
"""From so many rows on, the authors train on larger batches."""


@dataclass(frozen=True)
class GeneratorSettings:
    """How a generator is fitted and drawn from.

    - `terminals`: model the flag that the task ended; leave it out where only a time limit ends episodes.
    - `range_scaled`: scale columns to [-1, 1] and keep what is made there, in place of standardising.
    - `raw_reward`: leave the reward as it is.
    - `steps`, `learning_rate`: of AdamW with betas 0.9 and 0.99, without decay of weights; the rate falls to
      0 by a cosine, and the gradient's norm is clipped to 1.
    - `batch_size`: None takes 256, and 1024 from 800,000 transitions on.
    - `sampling_batch`: at most so many transitions are drawn at once.

    The defaults are the authors' (config/resmlp_denoiser.gin).
    """

    terminals: bool = True
    range_scaled: bool = False
    raw_reward: bool = False
    steps: int = 100_000
    batch_size: int | None = None
    learning_rate: float = 3e-4
    sampling_batch: int = 100_000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "sampling_batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SettingError(f"{name} is {value}", expected="at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(f"learning_rate is {self.learning_rate}", expected="above 0, and finite")

    def rows_per_batch(self, rows: int) -> int:
        """The batch size for a data set of so many rows; `DataError` where it holds fewer than one batch."""
        size = self.batch_size or (256 if rows < MANY_ROWS else 1024)
        if rows < size:
            raise DataError(
                f"there are {rows} transitions, and a batch has {size}",
                expected="at least one batch of transitions",
                cure=f"collect more, or set batch_size to {rows} or fewer",
            )
        return size


class TransitionModel(nn.Module, ABC):
    """Base of the generators: packed rows in and out, scaled by `normalizer`."""

    def __init__(self, observation_size: int, action_size: int, *, terminals: bool, bounded: bool) -> None:
        super().__init__()
        self.layout = Layout(observation_size, action_size, terminals)
        self.bounded = bounded
        self.normalizer = Normalizer(self.layout.size)

    @abstractmethod
    def draw(self, count: int, *, rng: torch.Generator) -> Float[Tensor, "row column"]:
        """So many scaled rows."""

    @torch.no_grad()
    def sample(
        self, count: int, *, rng: torch.Generator, batch: int = GeneratorSettings.sampling_batch
    ) -> dict[str, Tensor]:
        """`count` made transitions (at least one), drawn at most `batch` at a time.

        Actions are as the model makes them: clip them to the environment's bounds where a learner needs that.
        """
        if count < 1 or batch < 1:
            raise SettingError(f"{count} transitions in batches of {batch}", expected="at least one of each")
        rows = torch.cat([self.draw(min(batch, count - done), rng=rng) for done in range(0, count, batch)])
        if self.bounded:
            rows = rows.clamp(-1.0, 1.0)
        return self.layout.unpack(self.normalizer.inverse(rows))


Prepare = Any
"""(scaled rows [row, column], rng) -> what the loss needs besides, drawn here and nowhere else."""


def generator_run(
    model: TransitionModel,
    loss: Loss,
    transitions: Mapping[str, Tensor],
    *,
    prepare: Prepare,
    settings: GeneratorSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit `model` to the transitions; what it has become is `progress.state.learners["generator"].acting()`.

    The weights that are kept are an average over training (0.995, every tenth step). Raises `DataError` for
    fewer transitions than a batch and whatever `Layout.pack` raises.
    """
    packed = model.layout.pack(transitions)
    size = settings.rows_per_batch(len(packed))
    fit_columns(
        model.normalizer,
        model.layout,
        packed,
        range_scaled=settings.range_scaled,
        raw_reward=settings.raw_reward,
    )
    rows = model.normalizer(packed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    learner = Learner(
        model,
        loss,
        optimizer=optimizer,
        schedule=cosine_schedule(warmup=0, total=settings.steps),
        max_grad_norm=1.0,
        # The decay grows to its maximum, so that short runs forget their first weights too.
        average=ExponentialAverage(model, decay=every(10, power_decay(2 / 3, 0.995))),
    )
    rng = generator(seed, "generator")
    run_state = RunState(learners={LEARNER: learner}, generators={"rows": rng}).restored(state)

    def collect(state: RunState) -> dict[str, Tensor]:
        chosen = rows[torch.randint(len(rows), (size,), generator=rng)]
        return {"row": chosen, **prepare(chosen, rng)}

    return run(
        run_state,
        collect=collect,
        update=lambda state, batch: state.learners[LEARNER].step(batch),
        steps=settings.steps,
    )

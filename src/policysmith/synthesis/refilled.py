"""A replay of made transitions that is filled anew while a run goes on: SynthER inside an off-policy loop.

Every so many environment steps a generator is fitted, from scratch, to all that has been seen, and what had
been made before is forgotten for what it makes. The learner draws from this source as from any other:

    made = RefilledReplay(replay, fit=..., every=10_000, count=1_000_000, limits=(low, high), seed=seed)
    source = Mixed([(replay, 0.5), (made, 0.5)])
    off_policy_run(store=replay, source=source, before_step=made.before_step, sources={"made": made}, ...)

Source: Lu et al. 2023 (SynthER), algorithm 1, and their code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.rng import derive
from policysmith.common.stages import result_of
from policysmith.experience.replay import Replay, Transitions
from policysmith.synthesis.generator import GeneratorSettings
from policysmith.synthesis.upsampling import Fit, upsampling
from policysmith.training.loop import RunState


class RefilledReplay:
    """`count` transitions made of those in `replay`, anew after every `every` of them have been seen.

    Until the first time it draws from `replay` itself. `limits`, (low, high), are what made actions are cut
    to. Fitting happens within one step of the run: a run that is killed then repeats it whole. Raises
    `SettingError` for a replay that sums rewards over several steps, which made transitions cannot.
    """

    def __init__(
        self,
        replay: Replay,
        *,
        fit: Fit,
        every: int,
        count: int,
        limits: tuple[Sequence[float], Sequence[float]],
        seed: int,
        batch: int = GeneratorSettings.sampling_batch,
    ) -> None:
        for name, value in (("every", every), ("count", count)):
            if value < 1:
                raise SettingError(f"{name} is {value}", expected="at least 1")
        if replay.n_step > 1:
            raise SettingError(
                f"transitions are drawn {replay.n_step} steps at once, and made ones are single",
                expected="n_step 1",
            )
        self.replay, self.fit, self.every, self.count = replay, fit, every, count
        self.limits, self.seed, self.batch = limits, seed, batch
        self.fillings = 0
        self.made: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        return len(self.made["reward"]) if self.made else len(self.replay)

    def sample(self, rows: int, rng: torch.Generator) -> Transitions:
        """Uniform draws with replacement."""
        if not self.made:
            return self.replay.sample(rows, rng)
        chosen = torch.randint(len(self), (rows,), generator=rng)
        return {key: value[chosen] for key, value in self.made.items()}

    def before_step(self, state: RunState) -> dict[str, float]:
        """Fill it where it is time to; the loss that the generator came to is among the metrics then."""
        seen = self.replay.written * self.replay.columns
        if seen < (self.fillings + 1) * self.every:
            return {}
        self.fillings = seen // self.every
        return {"generator_loss": self.fill()}

    def fill(self) -> float:
        """Fit a new generator to what has been seen, and keep what it makes; returns its last loss."""
        made = result_of(
            upsampling(
                self.replay.everything(),
                self.count,
                fit=self.fit,
                seed=derive(self.seed, "filling", self.fillings),
                batch=self.batch,
            )
        )
        low, high = (torch.as_tensor(limit, dtype=torch.float32) for limit in self.limits)
        self.made = made.made | {
            "action": made.made["action"].clamp(low, high),
            "truncated": torch.zeros_like(made.made["terminated"]),
        }
        return made.loss

    def state_dict(self) -> dict[str, Any]:
        """What was made, and how often it was filled."""
        return {"made": dict(self.made), "fillings": self.fillings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.made = {key: value.clone() for key, value in state["made"].items()}
        self.fillings = int(state["fillings"])

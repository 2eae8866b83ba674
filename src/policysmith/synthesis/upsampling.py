"""More transitions than there are: fit a generator to those, and draw as many as are wanted.

    more = upsample(episodes, 50_000, fit=partial(diffusion_run, settings=DiffusionSettings()), seed=0)

What comes out is a data set like the one that went in, for any learner.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from policysmith.common.rng import generator
from policysmith.common.stages import Stage, result_of
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import transitions_of
from policysmith.experience.transitions import episodes_of
from policysmith.synthesis.generator import LEARNER, GeneratorSettings, TransitionModel
from policysmith.training.loop import Progress


class Fit(Protocol):
    """Fits a generator to transitions: `diffusion_run` or `variational_run` with their settings."""

    def __call__(self, transitions: Mapping[str, Tensor], /, *, seed: int) -> Iterator[Progress]:
        """The run."""
        ...


@dataclass(frozen=True)
class Made:
    """What was made of `transitions`: the `model` with its last `loss`, and the `made` transitions."""

    transitions: dict[str, Tensor]
    model: TransitionModel
    loss: float
    made: dict[str, Tensor]
    provenance: Mapping[str, Any]

    @property
    def episodes(self) -> Episodes:
        """What was made as episodes of one step each, actions cut to the range of the recorded ones.

        The model's actions may go a little beyond, which learners and environments refuse.
        """
        low, high = self.transitions["action"].aminmax(dim=0)
        made = self.made | {"action": self.made["action"].clamp(low, high)}
        return episodes_of(made, provenance=self.provenance)

    @property
    def constant(self) -> list[str]:
        """Columns of the real transitions that never vary."""
        layout = self.model.layout
        return layout.constant(layout.pack(self.transitions))


def upsample(
    given: Episodes | Mapping[str, Tensor],
    count: int,
    *,
    fit: Fit,
    seed: int,
    batch: int = GeneratorSettings.sampling_batch,
) -> Episodes:
    """`count` made transitions as episodes of one step each; see `upsampling` and `Made.episodes`.

    They keep the provenance of what they were made of, with `made`: how many of how many, and by which seed.
    """
    return result_of(upsampling(given, count, fit=fit, seed=seed, batch=batch)).episodes


def upsampling(
    given: Episodes | Mapping[str, Tensor],
    count: int,
    *,
    fit: Fit,
    seed: int,
    batch: int = GeneratorSettings.sampling_batch,
) -> Generator[Stage, None, Made]:
    """Fit a generator to transitions and draw `count`, at most `batch` at a time; a generator of stages.

    Raises what fitting raises: `DataError` for values that are not finite, for discrete actions and for fewer
    transitions than a batch.
    """
    transitions = transitions_of(given) if isinstance(given, Episodes) else dict(given)
    progress = None
    for progress in fit(transitions, seed=seed):
        yield Stage("fit the generator", progress.step, progress.total, progress.metrics.get("loss"))
    assert progress is not None
    model = progress.state.learners[LEARNER].acting()
    assert isinstance(model, TransitionModel)
    rng, parts = generator(seed, "made"), []
    for done in range(0, count, batch):
        yield Stage("make transitions", done, count)
        parts.append(model.sample(min(batch, count - done), rng=rng))
    yield Stage("make transitions", count, count)
    made = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    before = dict(given.provenance) if isinstance(given, Episodes) else {}
    provenance = before | {"made": {"transitions": count, "of": len(transitions["action"]), "seed": seed}}
    return Made(transitions, model, progress.metrics["loss"], made, provenance)

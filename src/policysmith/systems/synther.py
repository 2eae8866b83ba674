"""SynthER: as many transitions as wanted, made by a diffusion model of the few that were recorded.

Off-policy and offline learners are limited by how much experience there is. A transition is a short vector,
x = (s, a, r, s', d), and a diffusion model of such vectors needs no model of time, of policies or of the
world:

    fit D to the transitions;   draw x by the stochastic sampler of second order;   learn from those instead.

The learner is left as it is. Unlike trajectory models it makes single steps, so that nothing accumulates;
unlike noise on recorded steps, what follows in a made step is what would follow. `synther-sac` does the same
inside a run that goes on collecting.

Reference: Lu, Ball, Teh and Parker-Holder 2023, Synthetic Experience Replay (2303.06614).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.common.stages import Stage
from policysmith.evaluation.findings import Findings
from policysmith.evaluation.likeness import likeness_findings
from policysmith.experience.episodes import Episodes
from policysmith.synthesis import upsampling
from policysmith.synthesis.diffusion import DiffusionSettings, diffusion_run


@dataclass(frozen=True)
class Config(DiffusionSettings):
    """The authors' settings for offline data, from config/resmlp_denoiser.gin and train_diffuser.py.

    `count`: how many transitions are made. The other settings are explained in `DiffusionSettings` and
    `GeneratorSettings`: width 2048 and 6 layers, 100,000 steps of 256 (1024 from 800,000 transitions on),
    AdamW 3e-4, 128 levels with churn 80 between 0.05 and 50, inflated by 1.003.
    """

    count: int = 5_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise SettingError(f"count is {self.count}", expected="at least 1: the transitions to be made")


PRESETS = {
    "paper": Config(),
    "narrow": Config(width=1024),
    "bench": Config(width=256, depth=4, level_size=64, steps=8000, sampling_steps=32, count=50_000),
    "tiny": Config(width=16, depth=1, level_size=8, steps=20, batch_size=8, sampling_steps=3, count=40),
}
"""The authors' two sizes (resmlp_denoiser.gin, resmlp_w1024_denoiser.gin), a laptop's, and a test's."""


def generate(
    transitions: Episodes | Mapping[str, Tensor], *, config: Config = PRESETS["paper"]
) -> Generator[Stage, None, Findings]:
    """Make `config.count` transitions of those given; they are `findings.transitions`, as one-step episodes.

    Raises `DataError` for values that are not finite, for discrete actions, for fewer transitions than a
    batch, and where ends of the task are not modelled and there are some.
    """
    made = yield from upsampling.upsampling(
        transitions,
        config.count,
        fit=partial(diffusion_run, settings=config),
        seed=config.seed,
        batch=config.sampling_batch,
    )
    yield Stage("compare", 0, 1)
    found = likeness_findings(made)
    yield Stage("compare", 1, 1)
    return found


def upsample(transitions: Episodes | Mapping[str, Tensor], *, config: Config = PRESETS["paper"]) -> Episodes:
    """The made transitions alone, for any offline learner: `train(upsample(episodes), ...)`."""
    return upsampling.upsample(
        transitions,
        config.count,
        fit=partial(diffusion_run, settings=config),
        seed=config.seed,
        batch=config.sampling_batch,
    )

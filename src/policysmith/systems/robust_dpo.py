"""rDPO: direct preference optimisation when a known share of the labels is wrong.

Each pair has been turned round with probability `rate`, whatever the pair. The loss of the pair as labelled
and that of the pair turned round are combined so that their mean over the turning is the clean loss, exactly:

    [(1 - rate) l(h) - rate l(-h)] / (1 - 2 rate)  =  l(h) - rate / (1 - 2 rate) beta h    for l of `dpo`

It needs no second model, no filter and no further pass. It never stops pushing the labelled winner up, and
falls without end as margins grow: take few steps, or hold the weights (`weight_decay`), and watch held-out
pairs. The careful sign, `correction` smoothed (cDPO), pulls back where the policy is surer than labels can
be; with `rate` 0 all three are `dpo`.

Reference: Chowdhury, Kini, Natarajan 2024, Provably robust DPO: aligning language models with noisy feedback
(2403.00409).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from policysmith.common.errors import SettingError
from policysmith.experience.preferences import Preferences
from policysmith.objectives.preferences import (
    check_beta,
    check_rate,
    dpo_loss,
    ipo_loss,
    robust_loss,
    slic_loss,
    smoothed_loss,
)
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.preference import (
    PreferenceLoss,
    PreferenceSettings,
    on_pairs,
    preference_run,
)
from policysmith.training.loop import Progress, RunState

BASES = {"logistic": dpo_loss, "hinge": slic_loss, "ipo": ipo_loss}
"""The losses of one pair that can be corrected."""

CORRECTIONS = {"robust": robust_loss, "smoothed": smoothed_loss}
"""What is done about wrong labels."""


@dataclass(frozen=True)
class Config(PreferenceSettings):
    """Defaults of the paper (table 4, as a public digest has it): beta, learning rate, batch, steps, lengths.

    - `beta`: weight of the divergence from the reference.
    - `rate`: the share of labels that are wrong, in [0, 0.5): known, or tuned by held-out pairs.
    - `base`: the loss that is corrected, `logistic` (DPO), `hinge` (SLiC) or `ipo`. `correction`: `robust`,
      or `smoothed` for its conservative rival.
    """

    steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 1e-3
    lora_rank: int = 16
    answer_limit: int = 512
    beta: float = 0.1
    rate: float = 0.1
    base: Literal["logistic", "hinge", "ipo"] = "logistic"
    correction: Literal["robust", "smoothed"] = "robust"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
        check_rate(self.rate)
        for name, known in (("base", BASES), ("correction", CORRECTIONS)):
            if getattr(self, name) not in known:
                raise SettingError(
                    f"{name} is '{getattr(self, name)}'", expected=f"one of {', '.join(known)}"
                )


PRESETS = {
    "paper": Config(),
    "bench": Config(
        steps=300, batch_size=32, learning_rate=1e-4, warmup_steps=10, weight_decay=0.01, lora_rank=0,
        answer_limit=0,
    ),
    "tiny": Config(steps=6, batch_size=2, learning_rate=1e-3, lora_rank=0, answer_limit=0, weight_decay=0.01),
}  # fmt: skip
"""The paper's (adapters, at its rate of learning), a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    preferences: Preferences,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model on pairs of answers whose labels are wrong at a rate of `config.rate`.

    Warns where nothing holds the weights while the loss has no lower bound.
    """
    unbounded = config.correction == "robust" and config.rate > 0 and config.base != "ipo"
    if unbounded and not config.weight_decay and not config.lora_rank:
        warnings.warn(
            f"at a rate of {config.rate:g} the corrected loss has no end, and nothing holds the weights: "
            "set weight_decay or lora_rank, take few steps, and watch how held-out pairs are ordered",
            stacklevel=2,
        )
    return preference_run(
        policy, preferences, loss=corrected(config), settings=config, seed=seed, state=state
    )


def corrected(config: Config) -> PreferenceLoss:
    """The base loss under the correction, as a loss of pairs; also says how large margins are."""
    pairs = on_pairs(
        lambda margin: CORRECTIONS[config.correction](
            BASES[config.base], margin, beta=config.beta, rate=config.rate
        )
    )

    def loss(ratio: Any, batch: Any) -> Any:
        values, statistics = pairs(ratio, batch)
        return values, {**statistics, "size_of_margin": (ratio[:, 0] - ratio[:, 1]).detach().abs()}

    return loss

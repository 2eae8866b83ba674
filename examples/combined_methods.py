"""Methods of different papers together: each part sits at a seam of its own, so that a combination is a line.

    hints (GHPO) at the sampler, semantic entropy (SEED-GRPO) at the label, KL-Cov at the loss
    hints (GHPO) at the sampler, the likelihood of right and wrong answers (NFT) at label and loss
    leave-one-out advantages (RLOO) at the label, Clip-Cov at the loss, dynamic sampling (DAPO) at the filter

docs/guides/combining.md shows what came of them beside their parts; scripts/combinations.py measures it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from policysmith.experience.guidance import HINT, guided
from policysmith.rewards.verifiers import after, numeric
from policysmith.training.learners.covariance import (
    choose_dropped,
    choose_held,
    clip_covariance,
    kl_covariance,
)
from policysmith.training.learners.group_relative import centred, clipped, group_relative, leave_one_out, then
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings
from policysmith.training.learners.negative_aware import negative_aware, outcomes
from policysmith.training.learners.uncertainty import shrunk_by_uncertainty
from policysmith.training.loop import Progress

READ = after("#")
"""Where the answer stands in a text: of the experiment's sums, behind the last #."""
SAME = numeric(READ)
"""The verifier of the experiment."""


@dataclass(frozen=True)
class Config(LanguageSettings):
    """`method` is one of `METHODS`; `template` is how a hint is put."""

    method: str = "GRPO"
    template: str = HINT


def hints(config: Config) -> dict[str, Any]:
    """GHPO's sampler."""
    return {"wrap": lambda sampler, policy: guided(sampler, template=config.template)}


def unsure() -> Any:
    """SEED-GRPO's label behind one that makes advantages."""
    return shrunk_by_uncertainty(READ, None, alpha=1.0)


HELD: dict[str, Any] = {
    "prepare": choose_held(fraction=0.01, temperature=1.0),
    "loss": kl_covariance(beta=1.0),
}
DROPPED: dict[str, Any] = {
    "prepare": choose_dropped(fraction=2e-3, low=1.0, high=5.0, clip=1.0, temperature=1.0, low_quantile=0.98),
    "loss": clip_covariance(clip=1.0),
}
LIKELIHOOD: dict[str, Any] = {"label": outcomes(filtered=True), "loss": negative_aware()}
PLAIN: dict[str, Any] = {"label": group_relative(), "loss": clipped()}

METHODS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "GRPO": lambda config: PLAIN,
    "hints": lambda config: PLAIN | hints(config),
    "semantic entropy": lambda config: PLAIN | {"label": then(centred(), unsure())},
    "KL-Cov": lambda config: PLAIN | HELD,
    "NFT": lambda config: LIKELIHOOD,
    "leave one out": lambda config: PLAIN | {"label": leave_one_out()},
    "Clip-Cov": lambda config: PLAIN | DROPPED,
    # The combinations, a line each:
    "hints + semantic entropy + KL-Cov": lambda config: {
        **hints(config), "label": then(centred(), unsure()), **HELD,
    },
    "hints + NFT": lambda config: {**hints(config), **LIKELIHOOD},
    "leave one out + Clip-Cov + dynamic sampling": lambda config: {"label": leave_one_out(), **DROPPED},
}  # fmt: skip
"""What each method puts at the seams; all else is the same."""

FILTERED = ("NFT", "hints + NFT", "leave one out + Clip-Cov + dynamic sampling")
"""Methods that drop groups whose rewards agree, and ask further prompts."""
COMBINATIONS = {
    "hints + semantic entropy + KL-Cov": ("hints", "semantic entropy", "KL-Cov"),
    "hints + NFT": ("hints", "NFT"),
    "leave one out + Clip-Cov + dynamic sampling": ("leave one out", "Clip-Cov"),
}
"""The combinations with the parts they are shown beside."""

PRESETS = {
    "paper": Config(),
    "tiny": Config(steps=6, prompts=2, group_size=2, answer_limit=4, template="{question}{hint}"),
}


def train(
    policy: Any,
    prompts: Any,
    reward: Any,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: Any = None,
) -> Iterator[Progress]:
    """Train by `config.method`."""
    settings = replace(config, filter_agreeing=config.method in FILTERED)
    return language_run(
        policy, prompts, reward, settings=settings, seed=seed, state=state, **METHODS[config.method](config)
    )

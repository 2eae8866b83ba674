"""Opponents: a second answer to every prompt by somebody else, and how likely the policy's own is better.

    sampler = against(first, second, judge)

The answers of `first` come back with the probability of being preferred to those of `second` as their reward;
those of the opponent are thrown away. Source: Munos et al. 2023 (Nash-MD), section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from policysmith.common.errors import DataError
from policysmith.common.rng import draw_seed
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import Groups, Sampler
from policysmith.policies.language.samples import Samples

Compare = Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], Sequence[float]]
"""(prompts, first answers, second answers) -> the probability that the first is better (`rewards.judges`)."""


def against(first: Sampler, second: Sampler, judge: Compare) -> Sampler:
    """The answers of `first`, each with its probability of beating the answer of `second` in its place.

    Logs `opponent_tokens`. Raises `DataError` where the two do not write equally many answers.
    """

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        own = torch.Generator().manual_seed(draw_seed(rng))
        samples = first(groups, rng=own, version=version, copies=copies)
        others = second(
            groups, rng=torch.Generator().manual_seed(draw_seed(rng)), version=version, copies=copies
        )
        if samples.batch["group_id"].tolist() != others.batch["group_id"].tolist():
            raise DataError(
                f"{len(samples)} answers against {len(others)} of the opponent", expected="one for each"
            )
        wins = torch.tensor(list(judge(samples.about, samples.texts, others.texts)))
        samples.batch["reward"] = wins.float()
        samples.log("reward", samples.batch["reward"])
        samples.log("opponent_tokens", others.batch["mask"].sum(1))
        return samples

    return sample

"""Samplers whose answers come with their rewards, and what an answer without an end is worth."""

from __future__ import annotations

import math

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.keys import require_keys
from policysmith.experience.rollouts import Groups, Sampler
from policysmith.policies.language.samples import Samples
from policysmith.rewards.scoring import Scoring


def scored(sampler: Sampler, scoring: Scoring) -> Sampler:
    """Adds `reward` [row], the weighted sum, and each reward by name in `score` to what `sampler` writes."""

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        return score(sampler(groups, rng=rng, version=version, copies=copies), scoring)

    return sample


def score(samples: Samples, scoring: Scoring) -> Samples:
    """Put the rewards of the answers into their batch; returns the samples.

    Without the answers whose reward failed, where the scoring drops those; `DataError` where no answer is
    left.
    """
    found = scoring.of_samples(samples)
    samples.batch["reward"] = found.total
    samples.log("reward", found.total)
    for name, column in found.columns.items():
        samples.batch["score", name] = column
        if len(found.columns) > 1:
            samples.log(f"reward/{name}", column)
    if scoring.on_error != "stop":
        samples.log("failed_rewards", len(found.problems))
    if scoring.on_error != "drop" or not found.failed:
        return samples
    if len(found.failed) == len(samples):
        raise DataError("the reward failed on every answer", where=found.problems[0])
    return samples.select([row for row in range(len(samples)) if row not in found.failed])


def unless_unfinished(sampler: Sampler, *, otherwise: float) -> Sampler:
    """The answers of `sampler`, whose `reward` is `otherwise` where they met their limit and did not end.

    `score` and the log's `reward` keep what was given; `reward_learnt` is logged beside them. Put it around
    what gives rewards. Source: Stiennon et al. 2020, the authors' code.
    """
    if not math.isfinite(otherwise):
        raise SettingError(f"a reward of {otherwise} for answers without an end", expected="a finite number")

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        samples = sampler(groups, rng=rng, version=version, copies=copies)
        require_keys(samples.batch, ["reward"], reader="scoring answers without an end")
        samples.batch["reward"] = samples.batch["reward"].masked_fill(~samples.batch["finished"], otherwise)
        samples.log("reward_learnt", samples.batch["reward"])
        return samples

    return sample

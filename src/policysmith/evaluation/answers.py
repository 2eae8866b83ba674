"""Measuring a language policy: how often its answers are right, and what they are like.

    found = answer(policy, prompts, right, sampling=Sampling(limit=64), copies=8, seed=0)
    found.rate, found.pass_at(8)          with intervals over the prompts

Every policy that is measured with the same prompts and seed draws with the same random numbers, so that their
scores can be compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.evaluation.statistics import Interval, mean_interval
from policysmith.experience.prompts import Prompts
from policysmith.experience.rollouts import sampled
from policysmith.policies.language.engine import Engine, LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.scored import score
from policysmith.rewards.scoring import Scoring


@dataclass(frozen=True)
class Answers:
    """Answers to a set of prompts: their scores, lengths in tokens, texts, and the mean token entropy."""

    score: Float[np.ndarray, "prompt copy"]
    tokens: Int[np.ndarray, "prompt copy"]
    finished: Float[np.ndarray, "prompt copy"]
    texts: list[list[str]]
    entropy: float
    """Nats per token of what the answers were drawn from, at the sampling's temperature."""
    samples: Samples | None = field(default=None, repr=False, compare=False)
    """What they were made of, the copies of a prompt one behind the other."""

    @property
    def rate(self) -> Interval:
        """The mean score; its interval is over the prompts."""
        return mean_interval(self.score.mean(1).tolist())

    def pass_at(self, k: int) -> float:
        """The chance that at least one of `k` answers to a prompt has a score of 1 or more.

        Without bias from the copies there are. Source: Chen et al. 2021 (Codex), equation 1.
        """
        copies = self.score.shape[1]
        if not 1 <= k <= copies:
            raise SettingError(f"pass at {k} from {copies} answers", expected=f"between 1 and {copies}")
        right = (self.score >= 1).sum(1)
        misses = [math.comb(copies - int(r), k) / math.comb(copies, k) for r in right]
        return float(1 - np.mean(misses))


def answer(
    policy: LanguagePolicy,
    prompts: Prompts,
    reward: Scoring | Callable[..., Any],
    *,
    sampling: Sampling,
    copies: int = 1,
    seed: int = 0,
    system: str = "",
    engine: Engine | None = None,
) -> Answers:
    """Let the policy answer every prompt `copies` times, and score what it says."""
    scoring = reward if isinstance(reward, Scoring) else Scoring({"reward": reward})
    sampler = sampled(policy, engine or LocalEngine(policy), sampling, copies=copies, system=system)
    samples = sampler(dict(enumerate(prompts)), rng=generator(seed, "answers"))
    samples = score(samples, scoring)
    shape = (len(prompts), copies)
    return Answers(
        score=samples.batch["reward"].reshape(shape).numpy(),
        tokens=samples.batch["mask"].sum(1).reshape(shape).numpy(),
        finished=samples.batch["finished"].float().reshape(shape).numpy(),
        texts=[samples.texts[row : row + copies] for row in range(0, len(samples), copies)],
        entropy=mean_entropy(policy, samples, temperature=sampling.temperature or 1.0),
        samples=samples,
    )


def mean_entropy(policy: LanguagePolicy, samples: Samples, *, temperature: float) -> float:
    """Mean over the tokens that were drawn of the entropy of what each was drawn from, in nats."""
    batch = samples.batch
    with torch.no_grad():
        _, entropy = policy.log_prob(
            batch["token"], batch["attended"], mask=batch["mask"], temperature=temperature
        )
    return float(entropy[batch["mask"]].mean())

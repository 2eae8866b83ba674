"""Further things to measure of answers: what they cost in likeness to a start, and what other rewards say.

    Measuring(gold, sampling, copies=4, further={
        "proxy": by_reward(model), "KL": sequence_kl(start), "distinct": distinct_answers, ...})

Each takes the policy that answered and its samples, and gives one number. A measurement is kept by its name:
the name has to change when what is measured does (another reward model, another start).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.scoring import Scoring
from policysmith.rewards.verifiers import Verifier

Measurement = Callable[[LanguagePolicy, Samples], float]
"""(the policy that answered, what it answered) -> a number."""


def by_reward(reward: Any) -> Measurement:
    """The mean of a reward: a verifier such as `reviews.gold`, or a reward model."""
    scoring = Scoring({"reward": reward})

    def measure(policy: LanguagePolicy, samples: Samples) -> float:
        return float(scoring.of_samples(samples).total.mean())

    return measure


def sequence_kl(start: LanguagePolicy) -> Measurement:
    """KL(policy || start) of whole answers in nats: the mean of log policy(answer) - log start(answer).

    Without bias where answers are drawn at temperature 1 from everything that the policy can say.
    """

    def measure(policy: LanguagePolicy, samples: Samples) -> float:
        return float((_log_prob(policy, samples) - _log_prob(start, samples)).sum(1).mean())

    return measure


def perplexity(start: LanguagePolicy) -> Measurement:
    """Of the answers' tokens under `start`: exp(- the mean of log start(token)), all tokens alike."""

    def measure(policy: LanguagePolicy, samples: Samples) -> float:
        tokens = samples.batch["mask"].sum()
        return float((-_log_prob(start, samples).sum() / tokens).exp())

    return measure


def distinct_answers(policy: LanguagePolicy, samples: Samples) -> float:
    """The number of different answers, over all prompts, as a share of all."""
    return len(set(samples.texts)) / len(samples.texts)


def win_rate(reward: Verifier, rivals: Mapping[str, Sequence[str]]) -> Measurement:
    """How often an answer beats a rival's to the same prompt by `reward`; a tie is half a win.

    `rivals` are another policy's answers by the text of the prompt (`evaluation.answers.answer` has them).
    Every answer meets every rival's. Raises `DataError` naming a prompt without a rival's answer.
    """

    def measure(policy: LanguagePolicy, samples: Samples) -> float:
        wins = []
        for text, prompt in zip(samples.texts, samples.about, strict=True):
            against = rivals.get(str(prompt.text))
            if not against:
                raise DataError("there is no rival's answer", where=f"prompt {str(prompt.text)[:80]!r}")
            mine = float(reward(text, prompt))
            wins += [0.5 + 0.5 * np.sign(mine - float(reward(other, prompt))) for other in against]
        return float(np.mean(wins))

    return measure


def wins(
    scores: Float[np.ndarray, "run prompt copy"], rival: Float[np.ndarray, "prompt"]
) -> Float[np.ndarray, "run prompt"]:
    """How often each run's answers to a prompt score more than the rival's one; a tie is half a win.

    `win_rate` of scores that are there already, prompt by prompt, so that two arms can be paired.
    """
    # Scores are kept in single precision: brought there, equal ones are equal.
    apart = scores.astype(np.float32) - rival.astype(np.float32)[:, None]
    return (0.5 + 0.5 * np.sign(apart)).mean(2)


def beats(
    first: Float[np.ndarray, "*prompts copy"], second: Float[np.ndarray, "*prompts copy"]
) -> Float[np.ndarray, "*prompts"]:
    """How often an answer scores more than another policy's, by prompt; a tie is half a win."""
    return between_copies(0.5 + 0.5 * np.sign(first[..., :, None] - second[..., None, :]))


def between_copies(values: Float[np.ndarray, "*prompts copy copy"]) -> Float[np.ndarray, "*prompts"]:
    """The mean over every answer of one policy against every one of another, but for those of one place.

    Policies draw with the same random numbers, copy by copy: only those of different places are independent.
    """
    return values[..., ~np.eye(values.shape[-1], dtype=bool)].mean(-1)


@torch.no_grad()
def _log_prob(policy: LanguagePolicy, samples: Samples) -> Float[Tensor, "row time"]:
    """Of the answers' tokens; 0 elsewhere."""
    batch = samples.batch.to(policy.device)
    log_prob, _ = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])
    return log_prob.masked_fill(~batch["mask"], 0.0).cpu()

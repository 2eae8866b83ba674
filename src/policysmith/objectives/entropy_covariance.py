"""The entropy of a policy under training, and losses that spare it.

One step of policy gradient changes the entropy by about minus the covariance of log-probability and
advantage: likely tokens that did well make the policy surer. Few tokens carry most of it. With

    c_i = (A_i - mean A)(log pi_i - mean log pi)      over the valid tokens

Clip-Cov takes the gradient from a few tokens of large c, and KL-Cov holds the largest near the sampling
policy. Both select over the whole optimiser batch, from log-probabilities without gradient, before it is cut.

Source: Cui et al. 2025, The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.policy_gradient import clipped_policy_loss, importance_ratio


def token_covariance(
    log_prob: Float[Tensor, "row time"],
    advantage: Float[Tensor, "row #time"],
    mask: Bool[Tensor, "row time"],
) -> Float[Tensor, "row time"]:
    """Each valid token's product of centred advantage and centred log-probability; 0 on the others.

    Raises `ShapeError` where shapes differ and `DataError` where no token is valid.
    """
    if log_prob.shape != mask.shape or advantage.shape[0] != mask.shape[0]:
        raise ShapeError(
            f"log-probabilities {list(log_prob.shape)}, advantages {list(advantage.shape)}, mask "
            f"{list(mask.shape)}",
            expected="[row, time] each, an advantage per row as [row, 1]",
        )
    if not bool(mask.any()):
        raise DataError("no token is valid", where=f"a mask of {list(mask.shape)}")
    log_prob, advantage = log_prob.detach(), advantage.detach().expand_as(log_prob)
    centred = (advantage - advantage[mask].mean()) * (log_prob - log_prob[mask].mean())
    return torch.where(mask, centred, 0.0)


def entropy_change(
    logits: Float[Tensor, "*batch action"], step: Float[Tensor, "*batch action"]
) -> Float[Tensor, "*batch"]:
    """How much a small `step` of the logits changes the softmax's entropy, to first order, in nats.

    Minus the covariance of log pi and the step under pi. A policy gradient steps by rate x pi x advantage, a
    natural one by rate x advantage.
    """
    log_prob = logits.log_softmax(-1)
    p = log_prob.exp()
    centred = log_prob - (p * log_prob).sum(-1, keepdim=True)
    return -(p * centred * step).sum(-1)


def largest_tokens(
    covariance: Float[Tensor, "row time"], mask: Bool[Tensor, "row time"], *, fraction: float
) -> Bool[Tensor, "row time"]:
    """The max(1, int(fraction x tokens)) valid tokens of largest covariance: what KL-Cov penalises."""
    _check_fraction(fraction)
    count = max(1, int(int(mask.sum()) * fraction))
    ranked = torch.where(mask, covariance, -torch.inf).flatten().topk(count).indices
    chosen = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    chosen[ranked] = True
    return chosen.view_as(mask) & mask


def draw_tokens(
    covariance: Float[Tensor, "row time"],
    eligible: Bool[Tensor, "row time"],
    *,
    tokens: int,
    fraction: float,
    low: float,
    high: float,
    rng: torch.Generator,
) -> Bool[Tensor, "row time"]:
    """max(1, int(fraction x `tokens`)) of the eligible tokens with low < covariance < high, drawn at random.

    `tokens` is the number of valid tokens of the batch. What Clip-Cov leaves out of the gradient.
    """
    _check_fraction(fraction)
    if low >= high:
        raise SettingError(
            f"a band of covariance from {low} to {high}", expected="the lower end below the upper"
        )
    inside = eligible & (covariance > low) & (covariance < high)
    places = inside.flatten().nonzero()[:, 0]
    count = min(max(1, int(fraction * tokens)), len(places))
    drawn = places[torch.randperm(len(places), generator=rng, device=places.device)[:count]]
    chosen = torch.zeros_like(inside.flatten())
    chosen[drawn] = True
    return chosen.view_as(inside)


def clip_binds(
    log_prob: Float[Tensor, "row time"],
    old_log_prob: Float[Tensor, "row time"],
    advantage: Float[Tensor, "row #time"],
    *,
    low: float,
    high: float,
) -> Bool[Tensor, "row time"]:
    """Where PPO's clip takes the gradient away already, so that Clip-Cov need not."""
    ratio = importance_ratio(log_prob, old_log_prob).detach()
    advantage = advantage.detach()
    return -advantage * ratio.clamp(1 - low, 1 + high) > -advantage * ratio


def clip_covariance_loss(
    log_prob: Float[Tensor, "row time"],
    old_log_prob: Float[Tensor, "row time"],
    advantage: Float[Tensor, "row #time"],
    dropped: Bool[Tensor, "row time"],
    *,
    low: float = 1.0,
    high: float = 1.0,
) -> Float[Tensor, "row time"]:
    """The clipped loss, without value or gradient on the `dropped` tokens (they still count in averages)."""
    return torch.where(
        dropped, 0.0, clipped_policy_loss(log_prob, old_log_prob, advantage, low=low, high=high)
    )


def kl_covariance_loss(
    log_prob: Float[Tensor, "row time"],
    old_log_prob: Float[Tensor, "row time"],
    advantage: Float[Tensor, "row #time"],
    held: Bool[Tensor, "row time"],
    *,
    beta: float = 1.0,
) -> Float[Tensor, "row time"]:
    """-A rho, unclipped, plus beta |log_prob - old_log_prob| on the `held` tokens.

    The penalty has no gradient where nothing has moved since sampling: it needs two steps or more a rollout.
    """
    loss = -advantage.detach() * importance_ratio(log_prob, old_log_prob)
    away = (log_prob - old_log_prob.detach()).abs()
    return loss + torch.where(held, beta * away, 0.0)


@dataclass(frozen=True)
class EntropyLaw:
    """R = -a exp(H) + b: what reward a policy buys with its entropy; `ceiling` is what it gets at H = 0."""

    a: float
    b: float
    r_squared: float

    @property
    def ceiling(self) -> float:
        """The predicted reward when the entropy is gone."""
        return self.b - self.a


def fit_entropy_law(entropy: Float[Tensor, "point"], reward: Float[Tensor, "point"]) -> EntropyLaw:
    """Least squares for (a, b) in R = -a exp(H) + b over points of one training run."""
    if entropy.shape != reward.shape or entropy.dim() != 1 or len(entropy.unique()) < 2:
        raise DataError(
            f"{len(entropy)} entropies and {len(reward)} rewards",
            expected="as many of each, at two different entropies or more",
        )
    x, y = entropy.double().exp(), reward.double()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    intercept = y.mean() - slope * x.mean()
    spread = (y - y.mean()).square().sum()
    left = (y - slope * x - intercept).square().sum()
    explained = float(1 - left / spread) if float(spread) > 0 else 1.0
    return EntropyLaw(-float(slope), float(intercept), explained)


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise SettingError(
            f"a fraction of {fraction}", expected="in (0, 1]", cure="0.2 per cent is written 0.002"
        )

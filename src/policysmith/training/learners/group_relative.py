"""What group-relative methods put at the seams of the language run: labels, losses and terms of losses.

    language_run(..., label=group_relative(), loss=with_kl(clipped(low=0.2, high=0.28), beta=0.04))

Labels and losses are made by functions of their settings and compose: `then` puts labels one behind the
other, and a term takes a loss and returns one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.keys import require_keys
from policysmith.objectives import divergences
from policysmith.objectives.advantages import centred_advantage, group_advantage, leave_one_out_advantage
from policysmith.objectives.lengths import overlong_penalty
from policysmith.objectives.policy_gradient import clipped_policy_loss, clipped_share, policy_gradient_loss
from policysmith.policies.language.samples import Samples
from policysmith.training.learners.language_settings import Label, TokenLoss

Advantage = Callable[[Float[Tensor, "row"], Int[Tensor, "row"]], Float[Tensor, "row"]]
"""(rewards, group ids) -> advantages."""


# ---- labels ------------------------------------------------------------------------------------------


def advantages(estimate: Advantage) -> Label:
    """`advantage` [row, 1]: what `estimate` makes of the rewards of each group."""

    def label(samples: Samples) -> Samples:
        batch = samples.batch
        batch["advantage"] = estimate(batch["reward"], batch["group_id"])[:, None]
        return samples

    return label


def group_relative(*, eps: float = 1e-6) -> Label:
    """Rewards relative to the group's mean, in units of its deviation (GRPO)."""
    return advantages(lambda reward, group: group_advantage(reward, group, eps=eps))


def centred() -> Label:
    """Rewards relative to the group's mean (Dr. GRPO)."""
    return advantages(centred_advantage)


def leave_one_out() -> Label:
    """Rewards relative to the mean of the others in the group (RLOO)."""
    return advantages(leave_one_out_advantage)


def overlong(*, limit: int, buffer: int) -> Label:
    """Takes the penalty on long answers from the reward, before advantages are made of it (DAPO).

    `limit` and `buffer` are in tokens; see `objectives.lengths.overlong_penalty`. Of a conversation the
    longest turn counts, since the limit is that of one answer.
    """

    def label(samples: Samples) -> Samples:
        penalty = overlong_penalty(_longest_answer(samples.batch), limit=limit, buffer=buffer)
        samples.batch["reward"] = samples.batch["reward"] + penalty
        samples.log("overlong", penalty)
        return samples

    return label


def _longest_answer(batch: TensorDict) -> Int[Tensor, "row"]:
    """The tokens of each row's answer, of a conversation those of its longest turn."""
    mask = batch["mask"]
    if "turn" not in batch.keys():  # noqa: SIM118
        return mask.sum(1)
    turns = range(1, int(batch["turn"].max()) + 1)
    return torch.stack([((batch["turn"] == turn) & mask).sum(1) for turn in turns]).amax(0)


def finished_only() -> Label:
    """No advantage for answers that were cut off at their limit: nobody knows how they would have ended.

    Their tokens still count in averages. Comes behind the label that makes advantages.
    """

    def label(samples: Samples) -> Samples:
        finished = samples.batch["finished"][:, None]
        samples.batch["advantage"] = torch.where(finished, samples.batch["advantage"], 0.0)
        return samples

    return label


def kl_in_reward(beta: float) -> Label:
    """Takes `beta` times the log-ratio of the whole answer to the reference from the reward (RLOO).

    The reward itself where `beta` is 0. The answer's log-probability is that which it was drawn with.
    """

    def label(samples: Samples) -> Samples:
        if beta == 0:
            return samples
        batch = samples.batch
        require_keys(batch, ["reference_log_prob"], reader="a divergence from the reference")
        ratio = divergences.kl_k1(batch["behaviour_log_prob"], batch["reference_log_prob"])
        ratio = torch.where(batch["mask"], ratio, 0.0).sum(1)
        batch["reward"] = batch["reward"] - beta * ratio
        samples.log("kl", ratio)
        return samples

    return label


def then(*labels: Label) -> Label:
    """One label behind the other."""

    def label(samples: Samples) -> Samples:
        for one in labels:
            samples = one(samples)
        return samples

    return label


# ---- losses ------------------------------------------------------------------------------------------


def clipped(*, low: float = 0.2, high: float = 0.2, ceiling: float | None = None) -> TokenLoss:
    """PPO's clipped loss; see `objectives.policy_gradient.clipped_policy_loss`."""

    def loss(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        old, advantage = batch["old_log_prob"], batch["advantage"]
        values = clipped_policy_loss(log_prob, old, advantage, low=low, high=high, ceiling=ceiling)
        return values, {"clipped": clipped_share(log_prob, old, advantage, low=low, high=high)}

    return loss


def reinforce() -> TokenLoss:
    """-A log pi of each token: with the sum over an answer's tokens, REINFORCE on the whole answer."""

    def loss(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        return policy_gradient_loss(log_prob, batch["advantage"]), {}

    return loss


def with_kl(
    loss: TokenLoss, beta: float, *, estimate: Callable[[Tensor, Tensor], Tensor] = divergences.kl_k3
) -> TokenLoss:
    """`loss` plus `beta` times the divergence from the reference; the loss itself where `beta` is 0."""
    if beta == 0:
        return loss

    def with_term(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        require_keys(batch, ["reference_log_prob"], reader="a divergence from the reference")
        values, statistics = loss(log_prob, entropy, batch)
        divergence = estimate(log_prob, batch["reference_log_prob"])
        return values + beta * divergence, {**statistics, "kl": divergence}

    return with_term


def with_entropy(loss: TokenLoss, coefficient: float) -> TokenLoss:
    """`loss` minus `coefficient` times the entropy of each token: a bonus for staying unsure."""
    if coefficient == 0:
        return loss

    def with_bonus(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        values, statistics = loss(log_prob, entropy, batch)
        return values - coefficient * torch.where(batch["mask"], entropy, 0.0), statistics

    return with_bonus

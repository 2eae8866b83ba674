"""Losses on pairs of answers of which one is preferred.

A policy that is best for a reward under a divergence penalty is the reference tilted by it, so that a policy
implies a reward, known up to a constant per prompt, and a pair is a trial of which answer has more of it:

    r(y) = beta (log pi(y) - log pi_ref(y)),    loss = -log sigmoid(r(chosen) - r(rejected))

Log-probabilities are sums over the tokens of an answer. Everything is per pair; gradient flows through the
policy's log-probabilities alone.

Source: Rafailov et al. 2023 (DPO), equations 5 and 7.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import SettingError


def implicit_reward(
    log_prob: Float[Tensor, "row"], reference_log_prob: Float[Tensor, "row"], *, beta: float
) -> Float[Tensor, "row"]:
    """The reward that a policy implies: `beta` times how much likelier an answer is than under the reference.

    Raises `SettingError` where `beta` is not above 0.
    """
    if not beta > 0:
        raise SettingError(f"beta is {beta}", expected="above 0: it is the weight of the divergence")
    return beta * (log_prob - reference_log_prob.detach())


def preference_loss(margin: Float[Tensor, "pair"]) -> Float[Tensor, "pair"]:
    """-log sigmoid(margin): the chance by Bradley and Terry that the better answer is the preferred one."""
    return -F.logsigmoid(margin)


def dpo_loss(
    chosen_log_prob: Float[Tensor, "pair"],
    rejected_log_prob: Float[Tensor, "pair"],
    reference_chosen_log_prob: Float[Tensor, "pair"],
    reference_rejected_log_prob: Float[Tensor, "pair"],
    *,
    beta: float = 0.1,
) -> Float[Tensor, "pair"]:
    """The loss of direct preference optimisation."""
    chosen = implicit_reward(chosen_log_prob, reference_chosen_log_prob, beta=beta)
    rejected = implicit_reward(rejected_log_prob, reference_rejected_log_prob, beta=beta)
    return preference_loss(chosen - rejected)

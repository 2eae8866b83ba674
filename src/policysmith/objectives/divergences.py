"""Estimates of the divergence of a policy from a reference, per sampled token.

With x sampled from the policy and u = log pi(x) - log pi_ref(x), all three estimate KL(pi, pi_ref):

    k1 = u              unbiased, of either sign
    k2 = u^2 / 2        biased, low variance; its gradient is that of the KL
    k3 = e^-u - 1 + u   unbiased, never negative

Source: Schulman 2020, Approximating KL divergence.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def kl_k1(
    log_prob: Float[Tensor, "*shape"], reference_log_prob: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The log-ratio itself."""
    return log_prob - reference_log_prob.detach()


def kl_k2(
    log_prob: Float[Tensor, "*shape"], reference_log_prob: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Half the squared log-ratio."""
    return 0.5 * kl_k1(log_prob, reference_log_prob).square()


def kl_k3(
    log_prob: Float[Tensor, "*shape"], reference_log_prob: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The ratio the other way round, less one, plus the log-ratio."""
    ratio = kl_k1(log_prob, reference_log_prob)
    return torch.exp(-ratio) - 1 + ratio


def entropy(logits: Float[Tensor, "*batch choice"]) -> Float[Tensor, "*batch"]:
    """Entropy in nats of the distribution that `logits` describe."""
    log_prob = logits.log_softmax(-1)
    return -(log_prob.exp() * log_prob).sum(-1)

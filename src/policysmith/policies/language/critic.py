"""A value for every token: what the answer is worth as it stands before the token is written.

The critic is a language model of its own with one number for a head; its values stand in the places of the
tokens they come before, as log-probabilities do.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.scalar import scalar_head


class LanguageCritic(nn.Module):
    """V(prompt and answer before a token), from the last hidden state of a model of its own.

    `policy` is taken over and trained with the head: give a copy (`deepcopy`) where the policy acts too. The
    head begins at zero, so that an untrained critic says nothing, or as the `head` that is given: a reward
    model's, whose value of half an answer is the reward it would have if it ended there.
    """

    def __init__(self, policy: LanguagePolicy, *, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.head = scalar_head(policy) if head is None else head

    def value(
        self,
        token: Int[Tensor, "row time"],
        attended: Bool[Tensor, "row time"],
        *,
        mask: Bool[Tensor, "row time"],
    ) -> Float[Tensor, "row time"]:
        """The value before each token in `mask`, 0 elsewhere; arguments as of `LanguagePolicy.log_prob`."""
        values = self.head(self.policy.hidden_before(token, attended, mask=mask))[:, 0]
        return torch.zeros(token.shape, dtype=values.dtype, device=token.device).masked_scatter(mask, values)

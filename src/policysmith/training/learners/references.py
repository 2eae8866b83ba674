"""A reference that a run sets on its way, and saves with its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.language_update import rescore


class MovableReference:
    """Log-probabilities under the policy as it was when `take` was last called, at first as it was given.

    A run whose reference is not the model it was given (the end of an earlier stage, the start of a round)
    keeps it as a source of its `RunState`. The copy is made when it is first needed.
    """

    def __init__(self, policy: LanguagePolicy, *, temperature: float) -> None:
        self._current, self.temperature = policy, temperature
        self._frozen: LanguagePolicy | None = None

    @property
    def policy(self) -> LanguagePolicy:
        """The reference itself, which can be sampled from; the same object for good."""
        if self._frozen is None:
            self._frozen = self._current.frozen_copy()
        return self._frozen

    def take(self) -> None:
        """Make the policy as it is now the reference."""
        self.policy.load_state_dict(self._current.state_dict())

    @torch.no_grad()
    def move(self, rate: float) -> None:
        """Move the reference by a share `rate` of the way to the policy as it is now."""
        for mine, now in zip(self.policy.parameters(), self._current.parameters(), strict=True):
            mine.lerp_(now, rate)

    def __call__(self, batch: TensorDict) -> Float[Tensor, "row time"]:
        """The log-probability of each token that the batch learns from."""
        return rescore(self.policy, batch, self.temperature)

    def state_dict(self) -> dict[str, Any]:
        """The reference's weights, where it has been needed."""
        return {} if self._frozen is None else {"module": dict(self._frozen.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved reference."""
        if "module" in state:
            self.policy.load_state_dict(state["module"])

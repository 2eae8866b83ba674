"""Targets: copies of networks that follow them slowly, target <- (1 - rate) target + rate network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from policysmith.common.errors import SettingError


class TargetNetwork:
    """A copy of `source` that `update()` moves towards it by `rate` (1: a copy of it).

    `module` is the copy, in eval mode and without gradients. With `every` above 1, only every so many updates
    move it. Buffers (statistics of observations, say) are always those of the source.
    """

    def __init__(self, source: nn.Module, rate: float, *, every: int = 1) -> None:
        if not 0 < rate <= 1 or every < 1:
            raise SettingError(
                f"a target network that moves by {rate} every {every} updates",
                expected="a rate above 0 and at most 1, and at least every update",
            )
        self.source, self.rate, self.every = source, rate, every
        self.module = deepcopy(source).eval().requires_grad_(False)
        self.updates = 0
        self._targets: list[Tensor] = list(self.module.parameters())
        self._sources = [value.detach() for value in source.parameters()]  # the same memory

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the source as it is now."""
        self.updates += 1
        if self.updates % self.every:
            return
        torch._foreach_lerp_(self._targets, self._sources, self.rate)
        for mine, theirs in zip(self.module.buffers(), self.source.buffers(), strict=True):
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """The copy's weights and the count of updates."""
        return {"module": dict(self.module.state_dict()), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.module.load_state_dict(state["module"])
        self.updates = int(state["updates"])


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """What is computed inside gives the weights of `modules` no gradient; their inputs still get one."""
    weights: list[Tensor] = [p for module in modules for p in module.parameters() if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)

"""Adam for small networks, whose step costs what its arithmetic costs.

PyTorch's fused Adam spends most of a small network's step on sorting tensors by device and kind, checks and
records, the same at every step. `LeanAdam` does that once and then calls the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class LeanAdam(torch.optim.Adam):
    """`torch.optim.Adam(fused=True)` to the last bit, and interchangeable with it in checkpoints.

    A step in which not every weight has a gradient goes the long way, so that only those with one move.
    """

    def __init__(self, parameters: Any, **settings: Any) -> None:
        super().__init__(parameters, fused=True, **settings)
        self._ready: list[tuple[dict[str, Any], list[list[Tensor]]]] | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all weights."""
        if closure is not None or self._ready is None or self._changed(self._ready):
            return self._long_way(closure)
        gradients = [[p.grad for p in lists[0]] for _, lists in self._ready]
        if any(gradient is None for some in gradients for gradient in some):
            return self._long_way(closure)
        for (group, (weights, first, second, steps)), some in zip(self._ready, gradients, strict=True):
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                weights,
                some,  # type: ignore[arg-type]
                first,
                second,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
            )
        return None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict` of this or of PyTorch's own."""
        super().load_state_dict(state_dict)
        self._ready = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Further weights, with settings of their own."""
        super().add_param_group(param_group)
        self._ready = None

    def _changed(self, ready: list[tuple[dict[str, Any], list[list[Tensor]]]]) -> bool:
        """Whether somebody has put other moments in the place of those that are at hand."""
        return any(
            self.state.get(weights[0], {}).get("step") is not steps[0] for _, (weights, _, _, steps) in ready
        )

    def _long_way(self, closure: Callable[[], Any] | None) -> Any:
        """PyTorch's own step, after which all weights may have what the short way needs."""
        found = super().step(closure)
        unusual = ("amsgrad", "decoupled_weight_decay")
        plain = not any(
            isinstance(group["lr"], Tensor) or any(group.get(name) for name in unusual)
            for group in self.param_groups
        )
        everything = [weight for group in self.param_groups for weight in group["params"]]
        alike = len({(weight.device, weight.dtype) for weight in everything}) == 1
        if plain and alike and all("step" in self.state[weight] for weight in everything):
            names = ("exp_avg", "exp_avg_sq", "step")
            self._ready = []
            for group in self.param_groups:
                kept = [[self.state[weight][name] for weight in group["params"]] for name in names]
                self._ready.append((group, [group["params"], *kept]))
        return found


def adam(module: nn.Module, rate: float, *, without: nn.Module | None = None, **settings: Any) -> LeanAdam:
    """Adam over all weights of a small network; `settings` are those of `torch.optim.Adam`.

    `without` is a part that somebody else trains, whose weights are left alone.
    """
    others = set() if without is None else set(without.parameters())
    return LeanAdam([weight for weight in module.parameters() if weight not in others], lr=rate, **settings)

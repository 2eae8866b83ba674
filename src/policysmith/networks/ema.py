"""Averaged weights, average <- decay average + (1 - decay) weights: what diffusion policies are judged by.

The decay is a function of the number of updates so far, because early weights are worth forgetting:
`power_decay` is Diffusion Policy's, `warm_decay` BESO's; a constant is `lambda update: 0.995`, and `every`
takes any of them at some updates only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from policysmith.common.errors import ShapeError

Decay = Callable[[int], float]
"""Updates so far -> share of the average that is kept."""


def power_decay(power: float = 0.75, maximum: float = 0.9999) -> Decay:
    """The decay 1 - (1 + t)^-power, at most `maximum`; 0 at the first update, which copies the weights."""
    return lambda update: max(0.0, min(maximum, 1 - (1 + update) ** -power))


def warm_decay(maximum: float) -> Decay:
    """The decay (1 + t) / (10 + t), at most `maximum`."""
    return lambda update: min(maximum, (1 + update) / (10 + update))


def every(updates: int, decay: Decay) -> Decay:
    """`decay` at every so many updates; in between the average stays as it is."""
    return lambda update: 1.0 if (update + 1) % updates else decay(update)


class ExponentialAverage:
    """An average over time of a module's parameters, with its buffers as they are now.

    The average starts at the present weights. `update()` after each optimiser step; `copy_to(module)` puts
    the average into a module of the same structure (a copy to act and save with, as a rule).
    """

    def __init__(self, module: nn.Module, *, decay: Decay) -> None:
        self.decay = decay
        self.updates = 0
        self._module = module
        self._parameters = {name: value.detach().clone() for name, value in module.named_parameters()}
        self._buffers = {name: value.detach().clone() for name, value in _saved_buffers(module).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights and copy its buffers."""
        keep = self.decay(self.updates)
        self.updates += 1
        if keep < 1:
            present = [value.detach() for value in self._module.parameters()]
            torch._foreach_lerp_(list(self._parameters.values()), present, 1 - keep)
        for name, value in _saved_buffers(self._module).items():
            self._buffers[name].copy_(value)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averaged parameters and the buffers into `module`; `ShapeError` where it is another."""
        targets = dict(module.named_parameters()) | _saved_buffers(module)
        _copy(self._averages, targets, what="the module")

    def state_dict(self) -> dict[str, Any]:
        """The number of updates, the averaged parameters and the buffers."""
        return {"updates": self.updates, "average": dict(self._averages)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; `ShapeError` where it belongs to another module."""
        _copy(state["average"], self._averages, what="the average")
        self.updates = int(state["updates"])

    @property
    def _averages(self) -> dict[str, Tensor]:
        return self._parameters | self._buffers


def _saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that carry state; those left out of checkpoints follow from the module's arguments."""
    saved = module.state_dict(keep_vars=True)
    return {name: value for name, value in module.named_buffers() if name in saved}


def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor], *, what: str) -> None:
    """Copy tensors by name into tensors of the same names and shapes."""
    shapes = [{name: tuple(value.shape) for name, value in part.items()} for part in (source, target)]
    if shapes[0] != shapes[1]:
        differing = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        raise ShapeError(
            f"averaged weights do not fit {what}",
            where=f"'{differing[0][0]}' of shape {differing[0][1]} on one side only",
            expected="a module of the same structure",
        )
    for name, value in source.items():
        target[name].copy_(value)

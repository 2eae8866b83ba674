"""Observations: one float vector, or named parts of what was seen.

The parts are `state` (the vector), `goal` (a vector too), `action_mask` (which choices are allowed) and
pictures under the names of their cameras, uint8 [height, width, 3] wherever they are (environments, files,
batches), or stacks of the last few, [time, height, width, 3]; only an encoder scales them. Environments
give parts as a `Dict` space, tensors carry them as a nested `TensorDict`; an observation without parts is its
state. The functions here treat both forms alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict
from torch import Tensor

STATE, GOAL = "state", "goal"
ACTION_MASK = "action_mask"
"""The part that says which choices are allowed, as PettingZoo calls it."""

Seen: TypeAlias = np.ndarray | Mapping[str, np.ndarray]
"""What environments give: a vector, or arrays by the names of the parts."""

Observation: TypeAlias = Tensor | TensorDict
"""What policies read: [batch, time, *part] for each part; the batch size of a TensorDict is [batch, time]."""


def parts_of(observation: Any) -> dict[str, Any]:
    """The parts of an observation (arrays, tensors or spaces) by name; a bare vector is the state."""
    if isinstance(observation, Mapping | TensorDict):
        return dict(observation.items())
    return {STATE: observation}


def state_of(observation: Observation) -> Tensor:
    """The state vectors of a batch of observations."""
    return observation if isinstance(observation, Tensor) else observation[STATE]


def is_parts(space: Any) -> bool:
    """Whether an observation space has parts that are not to be flattened: a goal, a mask, or pictures."""
    return isinstance(space, Dict) and (
        GOAL in space.spaces or ACTION_MASK in space.spaces or any(map(has_pixels, space.spaces.values()))
    )


def is_picture(space: Any) -> bool:
    """Whether `space` holds pictures, uint8 [height, width, 3]."""
    return isinstance(space, Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


def has_pixels(space: Any) -> bool:
    """Whether `space` holds pictures or stacks of the last few, uint8 [(time,) height, width, 3]."""
    return is_picture(space) or (
        isinstance(space, Box) and space.dtype == np.uint8 and space.shape[3:] == (3,)
    )


def are_pictures(part: Tensor) -> bool:
    """Whether rows of a part, [row, ...], are pictures or stacks of them."""
    return part.dtype == torch.uint8 and part.dim() in (4, 5)


def each_part(observation: Any, change: Callable[[Any], Any]) -> Any:
    """The observation (arrays) with `change` applied to every part."""
    if isinstance(observation, Mapping):
        return {name: change(part) for name, part in observation.items()}
    return change(observation)


def stack(observations: Sequence[Seen]) -> Seen:
    """Observations of several environments as one with a leading axis; always a copy."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: np.stack([one[name] for one in observations]) for name in first}  # type: ignore[call-overload]
    return np.stack(observations)  # type: ignore[arg-type]


def to_tensors(observation: Seen, batch: Sequence[int]) -> Observation:
    """Arrays as tensors: pictures (uint8) stay as they are, everything else becomes float32."""
    if isinstance(observation, Mapping):
        return TensorDict({name: _tensor(part) for name, part in observation.items()}, batch_size=list(batch))
    return _tensor(observation)


def choose(mask: Tensor, new: Observation, old: Observation) -> Observation:
    """`new` in the rows of `mask` [batch], `old` in the others."""
    if isinstance(new, TensorDict):
        assert isinstance(old, TensorDict)
        chosen = {name: _where(mask, new[name], old[name]) for name in new.keys()}  # noqa: SIM118
        return TensorDict(chosen, batch_size=new.batch_size)
    assert isinstance(old, Tensor)
    return _where(mask, new, old)


def _tensor(part: Any) -> Tensor:
    array = np.asarray(part)
    return torch.as_tensor(array if array.dtype == np.uint8 else array.astype(np.float32))


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (old.dim() - 1)), new, old)

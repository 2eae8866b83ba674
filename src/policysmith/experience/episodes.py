"""Episodes in memory: the steps of all of them end to end, and where each begins.

Flat tensors make slicing windows a single gather, whatever the lengths. Step t of an episode holds the
observation before the action and the reward after it; the observation after the last action is kept apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.common.observations import GOAL, STATE, Observation, parts_of

OPTIONAL = {"reward": torch.float32, "terminated": torch.bool, "truncated": torch.bool, "success": torch.bool}
"""Keys an episode may lack, with their types; they are filled with zeros."""


@dataclass(frozen=True)
class Episodes:
    """A set of episodes.

    - `steps`: TensorDict [step] with `observation`, `action`, `reward`, `terminated`, `truncated`, `success`.
      An observation is a vector, or a nested TensorDict of parts (see `common.observations`).
    - `final_observation` [episode, *observation]: what was seen after the last action.
    - `lengths` [episode]: steps per episode, in order.
    - `provenance`: where they come from (environment, expert, noise, seed), as plain data.
    """

    steps: TensorDict
    final_observation: Observation
    lengths: Int[Tensor, "episode"]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls, episodes: Iterable[Mapping[str, Any]], *, provenance: Mapping[str, Any] | None = None
    ) -> Episodes:
        """Episodes from one mapping of arrays each.

        Needed: `action` [T, action] and `observation` [T, observation] or [T + 1, observation], or a mapping
        of such parts: vectors, and pictures uint8 [T (+ 1), height, width, 3]. Optional: `reward`, `success`
        [T]; `terminated`, `truncated` [T] or one value for the end. An episode without either end mark counts
        as truncated. Raises `DataError` naming episode and key for missing or unequal
        keys, unequal lengths or widths, and values that are not finite.
        """
        parts, finals, lengths = [], [], []
        keys: set[str] | None = None
        for number, arrays in enumerate(episodes):
            steps, final = _episode(arrays, number)
            if keys is not None and set(arrays) != keys:
                raise DataError(
                    f"episodes have different keys: {sorted(set(arrays) ^ keys)} are not in all of them",
                    where=f"episode {number}",
                    expected=f"the keys of the episodes before it: {sorted(keys)}",
                )
            keys = set(arrays)
            if parts:
                _check_same_widths(steps, parts[0], number)
            parts.append(steps)
            finals.append(final)
            lengths.append(len(steps))
        if not parts:
            raise DataError("there are no episodes", expected="at least one")
        stacked: Any = torch.stack(finals)
        return cls(torch.cat(parts), stacked, torch.tensor(lengths), dict(provenance or {}))

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self.lengths)

    def __getitem__(self, index: int) -> TensorDict:
        """The steps of one episode."""
        start = int(self.starts[index])
        return self.steps[start : start + int(self.lengths[index])]

    @property
    def starts(self) -> Int[Tensor, "episode"]:
        """Index of each episode's first step."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def observation_size(self) -> int:
        """Width of the observation vector or of the part `state`; 0 where there is none."""
        state = parts_of(self.steps["observation"]).get(STATE)
        return 0 if state is None else state.shape[-1]

    @property
    def pictures(self) -> dict[str, tuple[int, int]]:
        """(height, width) of the pictures, by camera."""
        parts = parts_of(self.steps["observation"])
        return {name: tuple(part.shape[1:3]) for name, part in parts.items() if name not in (STATE, GOAL)}  # type: ignore[misc]

    @property
    def action_size(self) -> int:
        """Width of one action vector."""
        return self.steps["action"].shape[-1]

    @property
    def succeeded(self) -> Bool[Tensor, "episode"]:
        """Whether the environment flagged success at any step of each episode."""
        return self._per_episode("success") > 0

    @property
    def returns(self) -> Float[Tensor, "episode"]:
        """Undiscounted sum of rewards of each episode."""
        return self._per_episode("reward")

    @property
    def fingerprint(self) -> str:
        """A hash of the contents, the same wherever the same numbers are."""
        digest = hashlib.sha256(self.lengths.numpy().tobytes())
        for _, value in sorted(_leaves(self.steps)):
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def select(self, indices: Sequence[int] | Tensor) -> Episodes:
        """A subset (or a reordering) of the episodes, by number or by a mask with one entry per episode."""
        chosen = torch.as_tensor(indices)
        if chosen.dtype == torch.bool and chosen.shape == self.lengths.shape:
            chosen = chosen.nonzero()[:, 0]
        if len(chosen) == 0:
            raise DataError("no episodes were selected", expected="at least one")
        numbers = chosen.dim() == 1 and not (chosen.is_floating_point() or chosen.dtype == torch.bool)
        if not numbers or not bool(((chosen >= -len(self)) & (chosen < len(self))).all()):
            raise DataError(
                f"the selection does not fit {len(self)} episodes",
                expected="numbers of episodes, or a mask with one entry per episode",
            )
        steps = torch.cat([self[int(index)] for index in chosen])
        return Episodes(steps, self.final_observation[chosen], self.lengths[chosen], self.provenance)

    def _per_episode(self, key: str) -> Tensor:
        owner = torch.repeat_interleave(torch.arange(len(self)), self.lengths)
        return torch.zeros(len(self)).index_add_(0, owner, self.steps[key].float())


def _leaves(steps: TensorDict) -> list[tuple[str, Tensor]]:
    """Every tensor by its name, those of nested parts with a slash."""
    found: Any = steps.items(include_nested=True, leaves_only=True)
    return [(name if isinstance(name, str) else "/".join(name), value) for name, value in found]


def _episode(arrays: Mapping[str, Any], number: int) -> tuple[TensorDict, Observation]:
    unknown = set(arrays) - {"observation", "action", *OPTIONAL}
    missing = {"observation", "action"} - set(arrays)
    if unknown or missing:
        raise DataError(
            f"unknown keys {sorted(unknown)}" if unknown else f"missing keys {sorted(missing)}",
            where=f"episode {number}",
            expected=f"observation and action, and any of {', '.join(OPTIONAL)}",
        )
    action = _finite(arrays["action"], "action", number)
    observation = _observation(arrays["observation"], number)
    if action.dim() != 2:
        raise DataError(
            f"actions of shape {list(action.shape)}", where=f"episode {number}", expected="[time, width]"
        )
    length = len(action)
    if length == 0 or len(observation) not in (length, length + 1):
        raise DataError(
            f"{len(observation)} observations for {length} actions",
            where=f"episode {number}",
            expected="at least one action, and as many observations or one more (the final one)",
        )
    steps: dict[str, Any] = {"observation": observation[:length], "action": action}
    for key, kind in OPTIONAL.items():
        steps[key] = _optional(arrays.get(key), key, kind, length, number)
    if not bool(steps["terminated"][-1] | steps["truncated"][-1]):
        steps["truncated"][-1] = True
    return TensorDict(steps, batch_size=[length]), observation[-1]


def _observation(given: Any, number: int) -> Observation:
    """The vectors [time, width], or a TensorDict [time] of parts of equal length."""
    if not isinstance(given, Mapping):
        vectors = _finite(given, "observation", number)
        if vectors.dim() != 2:
            raise DataError(
                f"observations of shape {list(vectors.shape)}",
                where=f"episode {number}",
                expected="[time, width], or a mapping of parts",
            )
        return vectors
    parts = {name: _part(value, name, number) for name, value in given.items()}
    lengths = {name: len(part) for name, part in parts.items()}
    if not parts or len(set(lengths.values())) > 1:
        raise DataError(
            f"the parts of the observation have {lengths or 'no'} entries",
            where=f"episode {number}",
            expected="as many of each",
        )
    return TensorDict(parts, batch_size=[next(iter(lengths.values()))])


def _part(value: Any, name: str, number: int) -> Tensor:
    where = f"episode {number}, part '{name}' of the observation"
    if name in (STATE, GOAL):
        vectors = _finite(value, name, number)
        if vectors.dim() != 2:
            raise DataError(f"shape {list(vectors.shape)}", where=where, expected="[time, width]")
        return vectors
    pictures = np.array(value)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise DataError(
            f"{pictures.dtype} of shape {list(pictures.shape)}",
            where=where,
            expected="pictures, uint8 [time, height, width, 3] (vectors go under 'state' and 'goal')",
        )
    return torch.from_numpy(pictures)


def _optional(value: Any, key: str, kind: torch.dtype, length: int, number: int) -> Tensor:
    column = torch.zeros(length, dtype=kind)
    if value is None:
        return column
    tensor = _finite(value, key, number)
    if tensor.dim() == 0 and kind == torch.bool:
        column[-1] = bool(tensor)
        return column
    if tensor.shape != (length,):
        raise DataError(
            f"'{key}' has shape {list(tensor.shape)}", where=f"episode {number}", expected=f"[{length}]"
        )
    return tensor.to(kind)


def _finite(value: Any, key: str, number: int) -> Tensor:
    # A copy: the caller's array may be reused, and a memory-mapped file may be closed.
    try:
        tensor = torch.from_numpy(np.array(value, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise DataError(f"'{key}' is not an array of numbers: {error}", where=f"episode {number}") from error
    if not bool(tensor.isfinite().all()):
        place = zip(("step", "column"), (~tensor.isfinite()).nonzero()[0].tolist(), strict=False)
        raise DataError(
            f"'{key}' is not finite",
            where=", ".join([f"episode {number}", *(f"{axis} {index}" for axis, index in place)]),
            cure="repair or drop the episode",
        )
    return tensor


def _check_same_widths(steps: TensorDict, first: TensorDict, number: int) -> None:
    mine, expected = (
        {"action": one["action"].shape[1:]}
        | {
            "observation" if name == STATE else name: part.shape[1:]
            for name, part in parts_of(one["observation"]).items()
        }
        for one in (steps, first)
    )
    for key in expected | mine:
        if mine.get(key) != expected.get(key):
            found, wanted = (_width(shapes.get(key)) for shapes in (mine, expected))
            raise DataError(
                f"'{key}' has {found}", where=f"episode {number}", expected=f"{wanted}, as in episode 0"
            )


def _width(shape: torch.Size | None) -> str:
    if shape is None:
        return "no entries"
    return f"width {shape[0]}" if len(shape) == 1 else f"shape {list(shape)}"

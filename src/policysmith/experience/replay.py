"""Replay: transitions that were seen, kept to be drawn again, and what is drawn of them.

`Replay` keeps the steps of several environments side by side in one ring, so that what follows a step is the
next row of its column; draws are uniform, of one step or of n. Pictures are kept once (`experience.frames`).

A source has a length and `sample(rows, rng)`; that is all that learners ask of it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, FileError, SettingError
from policysmith.common.observations import are_pictures
from policysmith.experience.episodes import Episodes
from policysmith.experience.frames import AFTER, SEEN, FrameRing

Transitions = dict[str, Any]
"""Rows with `observation`, `action`, `reward`, `next_observation`, `terminated`, `truncated`, and more."""

MAPPED_ABOVE = 2 << 30
"""Bytes from which a replay lies in a file that is mapped, and not in memory."""


class Source(Protocol):
    """What learners draw from."""

    def __len__(self) -> int: ...

    def sample(self, rows: int, rng: torch.Generator) -> Transitions:
        """`rows` transitions."""
        ...


class Replay:
    """A ring of the last `capacity` transitions of `columns` environments.

    `n_step` above 1 draws sums of so many rewards: `reward` is their discounted sum, `next_observation` and
    `terminated` are those after the last, and `discount` [row] is the discount to the power of their number,
    fewer where an episode ended or the newest step was reached. What would take more than `mapped_above`
    bytes lies in a mapped file in `folder` (a temporary one by default).
    """

    def __init__(
        self,
        capacity: int,
        *,
        columns: int = 1,
        n_step: int = 1,
        discount: float = 0.99,
        mapped_above: int = MAPPED_ABOVE,
        folder: str | Path | None = None,
    ) -> None:
        if capacity < columns or n_step < 1:
            raise SettingError(
                f"a replay of {capacity} transitions, {columns} environments and {n_step} steps a draw",
                expected="at least one transition per environment, and at least one step",
            )
        self.length, self.columns = capacity // columns, columns
        self.n_step, self.discount = n_step, discount
        self.mapped_above, self.folder = mapped_above, folder
        self.written = 0
        self.data: dict[str, Tensor] = {}
        self.frames: dict[str, FrameRing] = {}
        self._valid: Tensor | None = None
        self._ends = torch.full((self.length, columns), -1, dtype=torch.long)
        self._begun = torch.zeros(columns, dtype=torch.long)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __len__(self) -> int:
        """Transitions that can be drawn."""
        if self._valid is not None:
            return int(self._valid[: self._filled].sum())
        return self._filled * self.columns

    def add(self, step: Transitions, *, lost: Sequence[int] = ()) -> None:
        """One transition of every environment, [column, ...]; those `lost` are never drawn."""
        flat = _flat(step)
        if not self.data:
            self._make(flat, {name: one.shape[1:] for name, one in flat.items() if _is_film(name, flat)})
        place = self.written % self.length
        for name, ring in self.frames.items():
            ring.add(self.written, flat.pop(name), flat.pop(f"next_{name}"))
        for name, value in flat.items():
            self.data[name][place] = value
        if lost or self._valid is not None:
            self._mark(place, lost)
        ended = flat["terminated"] | flat["truncated"]
        self._ends[place] = -1
        self.written += 1
        if ended.any():
            self._end(ended)

    def extend(self, rows: Transitions) -> None:
        """Many transitions [row, ...] in order, of a replay of one environment."""
        if self.columns != 1:
            raise SettingError(
                f"rows for a replay of {self.columns} environments", expected="one environment"
            )
        flat = _flat(rows)
        count = len(flat["reward"])
        if count > self.length:
            flat, count = {name: value[-self.length :] for name, value in flat.items()}, self.length
        if not self.data:
            self._make(flat, {name: one.shape[1:] for name, one in flat.items() if _is_film(name, flat)})
        places = (self.written + torch.arange(count)) % self.length
        for name, ring in self.frames.items():
            seen, after = flat.pop(name), flat.pop(f"next_{name}")
            for row in range(count):
                ring.add(self.written + row, seen[row : row + 1], after[row : row + 1])
        for name, value in flat.items():
            self.data[name][places, 0] = value
        self._ends[places] = -1
        ended = (flat["terminated"] | flat["truncated"]).nonzero()[:, 0]
        starts = torch.cat([self._begun, self.written + ended + 1])
        for start, end in zip(starts.tolist(), (self.written + ended).tolist(), strict=False):
            steps = torch.arange(max(start, self.written + count - self.length, 0), end + 1)
            self._ends[steps % self.length, 0] = end
        self._begun = starts[-1:]
        self.written += count

    def clear(self) -> None:
        """Forget everything."""
        self.written, self._valid = 0, None
        self._begun.zero_()
        for ring in self.frames.values():
            ring.clear()

    def sample(self, rows: int, rng: torch.Generator) -> Transitions:
        """Uniform draws with replacement; `DataError` from an empty replay."""
        step, column = self.draw(rows, rng)
        return self.at(step, column)

    def draw(self, rows: int, rng: torch.Generator) -> tuple[Int[Tensor, "row"], Int[Tensor, "row"]]:
        """Places (step, column) in the ring of uniform draws."""
        if len(self) == 0:
            raise DataError("a replay without a transition was drawn from", expected="at least one")
        if self._valid is not None:
            places = self._valid[: self._filled].nonzero()
            chosen = places[torch.randint(len(places), (rows,), generator=rng)]
            return chosen[:, 0], chosen[:, 1]
        place = torch.randint(self._filled * self.columns, (rows,), generator=rng)
        if self.columns == 1:
            return place, torch.zeros_like(place)
        return place // self.columns, place % self.columns

    def draw_of(self, column: Int[Tensor, "row"], rng: torch.Generator) -> Int[Tensor, "row"]:
        """A place (step) in the ring for each row, of a uniform draw from its column."""
        if len(self) == 0:
            raise DataError("a replay without a transition was drawn from", expected="at least one")
        if self._valid is None:
            return torch.randint(self._filled, column.shape, generator=rng)
        # The largest of random numbers, among the places that can be drawn.
        number = torch.rand(len(column), self._filled, generator=rng)
        return (number * self._valid[: self._filled, column].T).argmax(1)

    def at(self, step: Int[Tensor, "row"], column: Int[Tensor, "row"]) -> Transitions:
        """The transitions at given places."""
        if self.n_step > 1:
            return self._several(step, column)
        place = step if self.columns == 1 else step * self.columns + column
        found = {name: value.flatten(0, 1).index_select(0, place) for name, value in self.data.items()}
        return _nested(found | self._pictures(SEEN, step, column) | self._pictures(AFTER, step, column))

    def everything(self) -> Transitions:
        """All transitions that can be drawn."""
        places = torch.ones(self._filled, self.columns, dtype=torch.bool)
        if self._valid is not None:
            places &= self._valid[: self._filled]
        step, column = places.nonzero(as_tuple=True)
        return self.at(step, column)

    def episode_end(self, step: Int[Tensor, "row"], column: Int[Tensor, "row"]) -> Int[Tensor, "row"]:
        """How many steps lie between each place and the last of its episode that is kept."""
        newest = self.written - 1
        number = newest - (newest - step) % self.length
        end = self._ends[step, column]
        return torch.where(end < 0, newest, end) - number

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and where the ring stands."""
        return {
            "written": self.written,
            "data": {name: value[: self._filled] for name, value in self.data.items()},
            "frames": {name: ring.state_dict(self._filled) for name, ring in self.frames.items()},
            "ends": self._ends[: self._filled],
            "begun": self._begun,
            "valid": None if self._valid is None else self._valid[: self._filled],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; `FileError` where it does not fit."""
        data = dict(state["data"])
        filled = min(int(state["written"]), self.length)
        if any(value.shape[:2] != (filled, self.columns) for value in data.values()):
            raise FileError(
                f"the replay in the checkpoint has shape {[list(v.shape[:2]) for v in data.values()][:1]}",
                expected=f"[{filled}, {self.columns}], as the settings of this run say",
            )
        frames = state.get("frames", {})
        if data and not self.data:
            rows = {name: value[0] for name, value in data.items()}
            self._make(rows, {name: saved["shape"] for name, saved in frames.items()})
        for name, value in data.items():
            self.data[name][:filled] = value
        for name, saved in frames.items():
            self.frames[name].load_state_dict(saved)
        self.written = int(state["written"])
        self._ends[:filled] = state["ends"]
        self._begun = state["begun"].clone()
        self._valid = None
        if state["valid"] is not None:
            self._valid = torch.ones(self.length, self.columns, dtype=torch.bool)
            self._valid[:filled] = state["valid"]

    @property
    def _filled(self) -> int:
        return min(self.written, self.length)

    def _make(self, flat: Mapping[str, Tensor], films: Mapping[str, Sequence[int]]) -> None:
        """Memory for rows like these, and for the pictures of these shapes among them."""
        apart = {*films, *(f"next_{name}" for name in films)}
        kept = {name: value for name, value in flat.items() if name not in apart}
        shapes = {name: (self.length, self.columns, *value.shape[1:]) for name, value in kept.items()}
        size = sum(math.prod(shapes[name]) * value.element_size() for name, value in kept.items())
        size += sum(self.length * self.columns * math.prod(shape[-3:]) for shape in films.values())
        mapped = size > self.mapped_above
        for name, value in kept.items():
            self.data[name] = self._memory(name, shapes[name], dtype=value.dtype, mapped=mapped)
        for name, shape in films.items():
            make = partial(self._memory, dtype=torch.uint8, mapped=mapped)
            self.frames[name] = FrameRing(self.length, self.columns, shape, name=name, make=make)

    def _memory(self, name: str, shape: Sequence[int], *, dtype: torch.dtype, mapped: bool) -> Tensor:
        """Zeros, in a mapped file of that name where it is to be."""
        if not mapped:
            return torch.zeros(*shape, dtype=dtype)
        path = self._place() / f"{name.replace('/', '.')}.bin"
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(*shape)

    def _pictures(self, which: int, step: Tensor, column: Tensor) -> dict[str, Tensor]:
        """What the cameras saw before the steps at given places, or after them."""
        before = "next_" if which == AFTER else ""
        return {before + name: ring.at(which, step, column) for name, ring in self.frames.items()}

    def _place(self) -> Path:
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            return Path(self.folder)
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="replay-")
        return Path(self._temporary.name)

    def _mark(self, place: int, lost: Sequence[int]) -> None:
        if self._valid is None:
            self._valid = torch.ones(self.length, self.columns, dtype=torch.bool)
        self._valid[place] = True
        self._valid[place, list(lost)] = False

    def _end(self, ended: Bool[Tensor, "column"]) -> None:
        """Note for the steps of the episodes that ended where they did."""
        last = self.written - 1
        for column in ended.nonzero()[:, 0].tolist():
            first = max(int(self._begun[column]), self.written - self.length)
            self._ends[torch.arange(first, last + 1) % self.length, column] = last
            self._begun[column] = self.written

    def _several(self, step: Tensor, column: Tensor) -> Transitions:
        """Sums over up to `n_step` steps, none past an episode's end or the newest step."""
        left = self.episode_end(step, column)
        total = torch.zeros_like(self.data["reward"][step, column])
        for offset in range(self.n_step):
            reward = self.data["reward"][(step + offset) % self.length, column]
            inside = (offset <= left).view(-1, *[1] * (reward.dim() - 1))
            total = total + torch.where(inside, self.discount**offset * reward, 0.0)
        taken = left.clamp(max=self.n_step - 1)
        last = (step + taken) % self.length
        first = {name: value[step, column] for name, value in self.data.items()}
        first |= self._pictures(SEEN, step, column)
        after = {
            name: value[last, column]
            for name, value in self.data.items()
            if name.startswith("next_observation") or name in ("terminated", "truncated")
        } | self._pictures(AFTER, last, column)
        return _nested(first | after) | {"reward": total, "discount": self.discount ** (taken + 1.0)}


def transitions_of(episodes: Episodes, *, discrete: bool = False) -> Transitions:
    """The steps of `episodes` as transitions; `discrete` makes their actions whole numbers."""
    steps = episodes.steps
    after: Any = torch.cat([steps["observation"][1:], steps["observation"][:1]])
    after[episodes.starts + episodes.lengths - 1] = episodes.final_observation
    found = {key: steps[key] for key in ("observation", "action", "reward", "terminated", "truncated")}
    found["action"] = found["action"].round().long() if discrete else found["action"]
    return found | {"next_observation": after}


def replay_of(
    episodes: Episodes, *, n_step: int = 1, discount: float = 0.99, discrete: bool = False
) -> Replay:
    """A replay that holds the steps of `episodes` and no more."""
    replay = Replay(len(episodes.steps), n_step=n_step, discount=discount)
    replay.extend(transitions_of(episodes, discrete=discrete))
    return replay


def _flat(rows: Transitions) -> dict[str, Tensor]:
    """Observations with parts as one entry per part, `observation/state`."""
    flat: dict[str, Tensor] = {}
    for name, value in rows.items():
        if isinstance(value, TensorDict):
            flat |= {f"{name}/{part}": value[part] for part in value.keys()}  # noqa: SIM118
        else:
            flat[name] = value
    return flat


def _is_film(name: str, flat: Mapping[str, Tensor]) -> bool:
    """Whether these are pictures that the next step's follow."""
    return f"next_{name}" in flat and are_pictures(flat[name])


def _nested(flat: Mapping[str, Tensor]) -> Transitions:
    found: Transitions = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in flat.items():
        key, slash, part = name.partition("/")
        if slash:
            parts.setdefault(key, {})[part] = value
        else:
            found[name] = value
    rows = len(next(iter(flat.values())))
    return found | {key: TensorDict(some, batch_size=[rows]) for key, some in parts.items()}

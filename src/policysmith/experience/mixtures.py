"""Draws from several replays at once, or of goals that were reached later.

- `Mixed` draws fixed shares from several sources: half demonstrations, half experience.
- `EqualShares` draws equally from each of several replays, whichever has more.
- `Hindsight` draws steps towards goals that were reached later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.observations import GOAL, STATE
from policysmith.experience.replay import Replay, Source, Transitions


class Mixed:
    """Draws a share of the rows from each of several sources; the rows of the first come first.

    Raises `SettingError` unless the shares are 0 or more and sum to 1, and `DataError` where a source that a
    share is wanted of is empty.
    """

    def __init__(self, sources: Sequence[tuple[Source, float]]) -> None:
        shares = [share for _, share in sources]
        if min(shares, default=-1) < 0 or not math.isclose(sum(shares), 1):
            raise SettingError(f"shares of {shares}", expected="0 or more each, and 1 together")
        self.sources = list(sources)

    def __len__(self) -> int:
        """Transitions of all sources together."""
        return sum(len(source) for source, _ in self.sources)

    def sample(self, rows: int, rng: torch.Generator) -> Transitions:
        """`rows` transitions; shares are rounded, the first source taking what is left over."""
        counts = [round(rows * share) for _, share in self.sources]
        counts[0] = rows - sum(counts[1:])
        parts = []
        for number, ((source, _), count) in enumerate(zip(self.sources, counts, strict=True)):
            if count and not len(source):
                raise DataError(
                    f"source {number} of {len(self.sources)} has no transitions, and {count} of {rows} are "
                    "wanted from it",
                    cure="give it data, or a share of 0",
                )
            if count:
                parts.append(source.sample(count, rng))
        return joined(parts)


class EqualShares:
    """Draws equally many transitions of every column of `replay`, which side by side are the rows of tasks.

    `rows` that are no multiple of the columns leave one row more to the first of them.
    """

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def __len__(self) -> int:
        """Transitions of the replay."""
        return len(self.replay)

    def sample(self, rows: int, rng: torch.Generator) -> Transitions:
        """`rows` transitions, column after column; `DataError` from an empty replay."""
        column = torch.arange(rows) * self.replay.columns // rows
        return self.replay.at(self.replay.draw_of(column, rng), column)


class Hindsight:
    """Draws of `replay` in which a `share` of the goals is one that was reached later in the same episode.

    Observations have the parts `state` and `goal`. `achieved(state)` is the goal that a state amounts to and
    `reward(achieved, goal)` what the environment pays for being there.
    Source: Andrychowicz et al. 2017 (hindsight experience replay), the strategy `future`.
    """

    def __init__(
        self,
        replay: Replay,
        *,
        achieved: Callable[[Tensor], Tensor],
        reward: Callable[[Tensor, Tensor], Tensor],
        share: float = 0.8,
    ) -> None:
        if not 0 <= share <= 1:
            raise SettingError(f"a share of {share}", expected="0 to 1")
        self.replay, self.achieved, self.reward, self.share = replay, achieved, reward, share

    def __len__(self) -> int:
        """Transitions of the replay."""
        return len(self.replay)

    def sample(self, rows: int, rng: torch.Generator) -> Transitions:
        """`rows` transitions."""
        step, column = self.replay.draw(rows, rng)
        batch = self.replay.at(step, column)
        if GOAL not in batch["observation"].keys():  # noqa: SIM118
            raise DataError(
                "the observations have no goal",
                expected="the parts `state` and `goal`",
                cure="make(goal=True)",
            )
        left = self.replay.episode_end(step, column)
        ahead = (torch.rand(rows, generator=rng) * (left + 1)).long()
        later = (step + ahead) % self.replay.length
        reached = self.achieved(self.replay.data[f"next_observation/{STATE}"][later, column])
        told = (torch.rand(rows, generator=rng) < self.share)[:, None]
        goal = torch.where(told, reached, batch["observation"][GOAL])
        for key in ("observation", "next_observation"):
            batch[key] = batch[key].clone(recurse=False).set(GOAL, goal)
        batch["reward"] = self.reward(self.achieved(batch["next_observation"][STATE]), goal)
        return batch


def joined(parts: Sequence[Transitions]) -> Transitions:
    """Batches as one; they hold the keys that all of them have."""
    if len(parts) == 1:
        return parts[0]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0] if all(key in p for p in parts)}

"""Windows of episodes for sequence policies: the last observations and the actions around now.

A window holds To observations and Tp actions that begin at the same step; where it reaches past an episode's
end or beginning, the edge is repeated. Windows start up to To - 1 steps before an episode and may reach
Ta - 1 steps beyond it, so that the first and the last decisions are seen in training as they occur in acting.
Unpadded windows lie within their episodes instead, and nothing is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.episodes import Episodes


class WindowSampler:
    """Draws batches of windows, each window once per pass over the data in a fresh random order.

    The order is drawn from `rng`; the sampler's own state is the rest of the current pass. With `padded`
    False, episodes shorter than the horizon are left out: `skipped` counts them, and `DataError` where that
    leaves none.
    """

    def __init__(
        self,
        episodes: Episodes,
        *,
        horizon: int,
        observation_steps: int,
        action_steps: int,
        rng: torch.Generator,
        padded: bool = True,
    ) -> None:
        if action_steps < 1 or not 1 <= observation_steps <= horizon:
            raise SettingError(
                f"windows of {horizon} steps, {observation_steps} of observations, {action_steps} acted",
                expected="at least one of each, and no more observations than the horizon",
            )
        self.observation = episodes.steps["observation"]
        self.action = episodes.steps["action"]
        self.rng = rng
        self.skipped = 0 if padded else int((episodes.lengths < horizon).sum())
        if self.skipped == len(episodes):
            raise DataError(
                f"none of the {len(episodes)} episodes is as long as a window",
                where=f"the longest has {int(episodes.lengths.max())} steps",
                expected=f"at least {horizon}",
                cure="give longer episodes or take a shorter window",
            )
        self._bounds = (
            _window_bounds(episodes, horizon=horizon, before=observation_steps - 1, after=action_steps - 1)
            if padded
            else _bounds_within(episodes, horizon=horizon)
        )
        self._offsets = torch.arange(horizon)
        self._observed = observation_steps
        self._order = torch.zeros(0, dtype=torch.long)
        self._fingerprint = episodes.fingerprint

    def __len__(self) -> int:
        """The number of windows."""
        return len(self._bounds)

    def sample(self, batch: int) -> TensorDict:
        """The next `batch` windows: `observation` [batch, To, *part], `action` [batch, Tp, width]."""
        return self.gather(self._draw(batch))

    def _draw(self, batch: int) -> Int[Tensor, "batch"]:
        """The numbers of the next `batch` windows of this pass and, where it ends, of the next."""
        while len(self._order) < batch:
            shuffled = torch.randperm(len(self), generator=self.rng)
            self._order = torch.cat([self._order, shuffled])
        chosen, self._order = self._order[:batch], self._order[batch:]
        return chosen

    def gather(self, windows: Int[Tensor, "batch"]) -> TensorDict:
        """The windows of the given numbers."""
        start, low, high = self._bounds[windows].unbind(-1)
        index = start[:, None] + self._offsets
        index = torch.minimum(torch.maximum(index, low[:, None]), high[:, None])
        return TensorDict(
            {"observation": self.observation[index[:, : self._observed]], "action": self.action[index]},
            batch_size=[len(windows)],
        )

    def state_dict(self) -> dict[str, Any]:
        """What is left of the current pass, and of which windows of which data."""
        return {"order": self._order, "windows": len(self), "data": self._fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a pass; `DataError` where the data are not those of the saved run."""
        mine, saved = (len(self), self._fingerprint), (state["windows"], state["data"])
        if mine != saved:
            raise DataError(
                "the data are not those of the saved run",
                where=f"{mine[0]} windows of data {mine[1]}; saved: {saved[0]} of {saved[1]}",
                cure="resume with the same data set and window settings",
            )
        self._order = state["order"]


def _window_bounds(episodes: Episodes, *, horizon: int, before: int, after: int) -> Int[Tensor, "window 3"]:
    """Per window its first step and the first and last step of its episode, as indices into `steps`.

    An episode shorter than the horizon still gives one window per legal start at its beginning.
    """
    rows = []
    for start, length in zip(episodes.starts.tolist(), episodes.lengths.tolist(), strict=True):
        final = start + max(length - horizon + after, -before)
        first = torch.arange(start - before, final + 1)
        edge = torch.ones_like(first)
        rows.append(torch.stack([first, edge * start, edge * (start + length - 1)], dim=-1))
    return torch.cat(rows)


def _bounds_within(episodes: Episodes, *, horizon: int) -> Int[Tensor, "window 3"]:
    """The same for windows that lie within their episodes; an episode shorter than the horizon gives none."""
    rows = []
    for start, length in zip(episodes.starts.tolist(), episodes.lengths.tolist(), strict=True):
        first = torch.arange(start, start + max(0, length - horizon + 1))
        edge = torch.ones_like(first)
        rows.append(torch.stack([first, edge * start, edge * (start + length - 1)], dim=-1))
    return torch.cat(rows)

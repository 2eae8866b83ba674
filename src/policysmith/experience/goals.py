"""Hindsight goals: windows of play, each with what was reached later in the same episode as its goal.

Nobody labelled the data; a state that came later is a goal that was reached, and the actions before it are a
way to reach it. With a window that ends before step e of an episode of T steps, the goal is G consecutive
states whose first is uniform in [e + separation, T - G). Source: Lynch et al. 2020 (learning from play); the
ranges are those of the authors' code of BESO (Reuss et al. 2023).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.observations import STATE, parts_of
from policysmith.experience.episodes import Episodes
from policysmith.experience.windows import WindowSampler


class HindsightWindows(WindowSampler):
    """Draws windows of `window` observations and actions within an episode, each once per pass, with goals.

    `goal_steps` G is the number of states that a goal consists of and `separation` the least number of steps
    between a window's end and its goal. Episodes shorter than the window are `skipped`. Windows so near their
    episode's end that no goal is left are drawn too, marked as without one. Order and goals are drawn from
    `rng`. Raises `DataError` where no episode is long enough or the observations hold no state.
    """

    def __init__(
        self,
        episodes: Episodes,
        *,
        window: int,
        goal_steps: int = 1,
        separation: int = 0,
        rng: torch.Generator,
    ) -> None:
        if goal_steps < 1 or separation < 0:
            raise SettingError(
                f"goals of {goal_steps} states, {separation} steps after the window",
                expected="at least one state, and a separation of 0 or more",
            )
        parts = parts_of(episodes.steps["observation"])
        if STATE not in parts:
            raise DataError(
                "the observations have no state, so there is nothing that could have been a goal",
                where=f"their parts are {', '.join(parts)}",
                expected="a vector, or a part called 'state'",
            )
        super().__init__(
            episodes, horizon=window, observation_steps=window, action_steps=1, rng=rng, padded=False
        )
        self._states: Tensor = parts[STATE]
        self._window, self._separation = window, separation
        self._goal_offsets = torch.arange(goal_steps)

    def sample(self, batch: int) -> TensorDict:
        """The next `batch` windows.

        `observation` [batch, window, *part], `action` [batch, window, width], `goal` [batch, G, state] and
        `has_goal` [batch] bool; a goal that is not there is zeros.
        """
        windows = self._draw(batch)
        drawn = self.gather(windows)
        drawn["goal"], drawn["has_goal"] = self._goals(windows)
        return drawn

    def goal_range(self, windows: Int[Tensor, "batch"]) -> Int[Tensor, "batch 2"]:
        """First and last index, as steps of all episodes, at which a window's goal may begin."""
        start, _, last = self._bounds[windows].unbind(-1)
        return torch.stack([start + self._window + self._separation, last - len(self._goal_offsets)], dim=-1)

    def _goals(self, windows: Tensor) -> tuple[Float[Tensor, "batch goal state"], Tensor]:
        first, last = self.goal_range(windows).unbind(-1)
        room = (last - first + 1).clamp(min=0)
        share = torch.rand(len(windows), generator=self.rng, dtype=torch.float64)
        has_goal = room > 0
        begin = torch.where(has_goal, first + (share * room).long(), 0)
        # Where there is no goal, what is gathered is thrown away, but it has to be there.
        index = (begin[:, None] + self._goal_offsets).clamp(max=len(self._states) - 1)
        goal = self._states[index]
        return torch.where(has_goal[:, None, None], goal, 0.0), has_goal

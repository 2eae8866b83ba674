"""Episodes in several environments: whose turn it is, what was seen, and how to come back to it.

Each episode is reset with a seed derived from the run's, its environment and its number, so that no episode
depends on another. Environments cannot be saved; what is kept is the seed of each unfinished episode and the
actions since, and a resumed run plays these again and checks that it sees the same. Where it does not
(an environment that draws from elsewhere, another version), the run goes on and says so in `inexact`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Bool, Float

from policysmith.common.errors import NotFiniteError
from policysmith.common.observations import STATE, Observation, Seen, each_part, parts_of, stack, to_tensors
from policysmith.common.rng import derive
from policysmith.common.spaces import ActionSpace
from policysmith.experience.collect import succeeded
from policysmith.experience.environments import Environments, Maker
from policysmith.experience.makers import environments_of

KEPT_EPISODES = 100
"""So many finished episodes the reported return is a mean over, at most."""


@dataclass
class Interacted:
    """One step of every environment.

    `next_observation` is what was seen after the action, also where an episode ended. `lost`: environments
    whose step did not happen (their worker died); they count as truncated where they stood, without reward.
    """

    reward: Float[np.ndarray, "env *objective"]
    terminated: Bool[np.ndarray, "env"]
    truncated: Bool[np.ndarray, "env"]
    next_observation: Seen
    info: Sequence[Mapping[str, Any]]
    lost: Sequence[int]

    @property
    def ended(self) -> Bool[np.ndarray, "env"]:
        """Where the episode is over."""
        return self.terminated | self.truncated


class Interaction:
    """Acting in `environments`, episode after episode.

    `seed` is what the episodes' seeds are derived from.

    `observation` is what every environment shows now, `begins` [env] where an episode has just begun,
    `episode_seeds` [env] the seeds they began with, `count` the steps taken in all environments together.
    Raises `NotFiniteError` for observations and rewards that are not finite.
    """

    def __init__(self, environments: Environments, *, seed: int) -> None:
        self.environments, self.seed = environments, seed
        rows = self.rows = environments.count
        self.action_space = ActionSpace.of(environments.action_space)
        self._clip = None if self.action_space.discrete else _limits(environments.action_space)
        self.count, self.lost = 0, 0
        self.inexact = ""
        self.numbers = np.zeros(rows, int)
        self.lengths, self._success = np.zeros(rows, int), np.zeros(rows, bool)
        self._returns: np.ndarray = np.zeros(rows)
        self.finished: deque[tuple[Any, int, bool]] = deque(maxlen=KEPT_EPISODES)
        self._summary: dict[str, float] | None = None
        self._played: list[np.ndarray] = []
        self._since = np.zeros(rows, int)
        self.observation: Seen = {}
        self.begins = np.ones(rows, bool)
        self._started = False

    @classmethod
    def of(
        cls, environment: str | Maker | gymnasium.Env, count: int, *, seed: int, processes: int = 0
    ) -> Interaction:
        """Acting in `count` copies of an environment, which is given as `makers.environments_of` takes it."""
        return cls(environments_of(environment, count, processes=processes), seed=seed)

    @property
    def observation_space(self) -> gymnasium.Space:
        """What every environment shows, as policies see it."""
        return self.environments.observation_space

    def start(self) -> None:
        """Begin the first episodes, unless that has been done."""
        if not self._started:
            first = self.environments.reset({row: self._seed(row) for row in range(self.rows)})
            self.observation = self._kept([first[row] for row in range(self.rows)])
            self._check(self.observation, None)
            self._started = True

    @property
    def episode_seeds(self) -> list[int]:
        """What the present episodes were reset with."""
        return [self._seed(row) for row in range(self.rows)]

    @property
    def tensors(self) -> Observation:
        """The present observations [env, ...] as a policy reads them."""
        return to_tensors(self.observation, [self.rows])

    def step(self, action: np.ndarray) -> Interacted:
        """Play `action` [env, action], clipped to the limits; episodes that end are followed by new ones."""
        self.start()
        played = np.array(action)
        if self._clip is not None:
            np.minimum(np.maximum(played, self._clip[0], out=played), self._clip[1], out=played)
        found = self.environments.step(played.copy())  # which an environment may change
        self._played.append(played)
        self.count += self.rows - len(found.lost)
        for row in found.lost:
            self._forgive(found, row)
        after = self._kept(found.observation)
        self._check(after, found.reward)
        self.lengths += 1
        if self._returns.ndim < found.reward.ndim:  # how many objectives there are, the first reward says
            self._returns = np.zeros(found.reward.shape)
        self._returns = self._returns + found.reward
        if any(found.info):
            self._success |= [succeeded(info) for info in found.info]  # type: ignore[arg-type]
        result = Interacted(found.reward, found.terminated, found.truncated, after, found.info, found.lost)
        ended = result.ended
        self.observation, self.begins = after, ended
        if ended.any():
            self._begin_anew(np.flatnonzero(ended), found.lost)
        return result

    def metrics(self) -> dict[str, float]:
        """Means over the last finished episodes: return (and of each objective), length, success."""
        if self._summary is None:
            self._summary = self._summarised()
        return {"environment_steps": float(self.count)} | self._summary

    def _summarised(self) -> dict[str, float]:
        if not self.finished:
            return {}
        returns = np.array([one[0] for one in self.finished])
        found = {
            "return": float(returns.sum(-1).mean() if returns.ndim > 1 else returns.mean()),
            "length": float(np.mean([one[1] for one in self.finished])),
            "success": float(np.mean([one[2] for one in self.finished])),
        }
        if returns.ndim > 1:
            found |= {f"return/{number}": float(value) for number, value in enumerate(returns.mean(0))}
        if self.lost:
            found["lost_steps"] = float(self.lost)
        return found

    def close(self) -> None:
        """Let go of the environments."""
        self.environments.close()

    # ---- saving ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Seeds and actions of the unfinished episodes, and what is known of the finished ones."""
        self.start()
        return {
            "count": self.count,
            "lost": self.lost,
            "numbers": torch.from_numpy(self.numbers.copy()),
            "lengths": torch.from_numpy(self.lengths.copy()),
            "returns": torch.from_numpy(self._returns.copy()),
            "success": torch.from_numpy(self._success.copy()),
            "begins": torch.from_numpy(self.begins.copy()),
            "finished": [
                [np.asarray(one[0], dtype=float).tolist(), int(one[1]), bool(one[2])] for one in self.finished
            ],
            "actions": [torch.from_numpy(np.array(self._actions(row))) for row in range(self.rows)],
            "seen": {
                name: torch.from_numpy(np.array(part)) for name, part in parts_of(self.observation).items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the unfinished episodes up to where they were, and check that they look the same."""
        self.count, self.lost = int(state["count"]), int(state["lost"])
        self.numbers, self.lengths = state["numbers"].numpy().copy(), state["lengths"].numpy().copy()
        self._returns, self._success = state["returns"].numpy().copy(), state["success"].numpy().copy()
        self.finished.clear()
        self._summary = None
        self.finished.extend(
            (np.array(a) if isinstance(a, list) else a, b, c) for a, b, c in state["finished"]
        )
        self._replay([actions.numpy() for actions in state["actions"]])
        self.begins = state["begins"].numpy().copy()
        self._started = True
        seen = {name: np.array(part) for name, part in parts_of(self.observation).items()}
        for name, before in state["seen"].items():
            same = np.array_equal(before.numpy(), seen[name])
            if not same and not self.inexact:
                rows = [
                    row
                    for row in range(self.rows)
                    if not np.array_equal(before[row].numpy(), seen[name][row])
                ]
                self.inexact = (
                    f"environment {rows[0]} did not come back to where it was after its episode (seed "
                    f"{self._seed(rows[0])}) was played again: it depends on more than seed and actions"
                )

    def _replay(self, actions: list[np.ndarray]) -> None:
        """All environments together; those with fewer actions begin when the others have come so far."""
        longest = max(map(len, actions))
        starts = [longest - len(one) for one in actions]
        idle = np.zeros((self.rows, self.action_space.size), self._dtype)
        shown: list[Any] = [None] * self.rows
        self._played = []
        for step in range(longest + 1):
            due = {row: self._seed(row) for row, start in enumerate(starts) if start == step}
            # An environment that has not begun yet needs some episode to be stepped along in.
            due |= {row: self._seed(row) for row in range(self.rows) if step == 0}
            for row, seen in self.environments.reset(due).items():
                shown[row] = each_part(seen, np.array)
            if step == longest:
                break
            played = idle.copy()
            for row, start in enumerate(starts):
                if step >= start:
                    played[row] = actions[row][step - start]
            found = self.environments.step(played)
            self._played.append(played)
            waiting = [row for row, start in enumerate(starts) if step < start]
            for row in range(self.rows):
                shown[row] = each_part(found.observation[row], np.array)
            over = [row for row in waiting if found.terminated[row] or found.truncated[row]]
            if over:
                self.environments.reset({row: self._seed(row) for row in over})
        self._since = np.array(starts)
        self.observation = self._kept(shown)

    # ---- episodes ----------------------------------------------------------------------------------------

    def _seed(self, row: int) -> int:
        return derive(self.seed, "episode", row, int(self.numbers[row]))

    def _begin_anew(self, rows: np.ndarray, lost: Sequence[int]) -> None:
        self._summary = None
        for row in rows:
            if row not in lost:
                length, success = int(self.lengths[row]), bool(self._success[row])
                self.finished.append((np.array(self._returns[row]), length, success))
            self.numbers[row] += 1
        self._returns[rows], self.lengths[rows], self._success[rows] = 0, 0, False
        first = self.environments.reset({int(row): self._seed(int(row)) for row in rows})
        self.observation = each_part(self.observation, np.copy)  # the ended episodes' last stays as it was
        for row, seen in first.items():
            for name, part in parts_of(seen).items():
                whole = (
                    self.observation if isinstance(self.observation, np.ndarray) else self.observation[name]
                )
                whole[row] = part
        self._check(self.observation, None)
        self._since[rows] = len(self._played)
        if self._since.min() > 1000:  # nobody needs what was played before
            del self._played[: self._since.min()]
            self._since -= self._since.min()

    def _forgive(self, found: Any, row: int) -> None:
        """A step that did not happen: the episode is cut where it stood."""
        self.lost += int(self.lengths[row]) + 1
        found.observation[row] = each_part(self.observation, lambda part: part[row])
        found.reward[row], found.terminated[row], found.truncated[row] = 0, False, True

    def _actions(self, row: int) -> np.ndarray:
        played = [action[row] for action in self._played[self._since[row] :]]
        return np.stack(played) if played else np.zeros((0, self.action_space.size), self._dtype)

    @property
    def _dtype(self) -> Any:
        return np.int64 if self.action_space.discrete else np.float32

    def _kept(self, seen: Sequence[Seen]) -> Seen:
        """One array per part, float32 but for pictures; always a copy."""
        if isinstance(seen[0], Mapping):
            return each_part(
                stack(seen), lambda part: part if part.dtype == np.uint8 else part.astype(np.float32)
            )
        return np.array(seen, dtype=np.float32)

    def _check(self, seen: Seen, reward: np.ndarray | None) -> None:
        """Raise where a number is not finite, naming environment, step and episode."""
        parts = seen if isinstance(seen, Mapping) else {STATE: seen}
        for name, part in (*parts.items(), ("reward", reward)):
            # A sum is not finite where a part is not, and costs a tenth of looking at each.
            if part is None or part.dtype == np.uint8 or math.isfinite(part.sum()) or np.isfinite(part).all():
                continue
            row = int(np.argwhere(~np.isfinite(part))[0][0])
            what = "reward" if name == "reward" else "observation"
            place = f"environment {row}, step {self.lengths[row] + 1}"
            raise NotFiniteError(
                f"the environment's {what} is not finite",
                where=f"{place} of the episode with seed {self._seed(row)}",
                cure="reset the environment with that seed and play to that step to see why",
            )


def _limits(space: Any) -> tuple[np.ndarray, np.ndarray]:
    return space.low, space.high

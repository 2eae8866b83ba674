"""Playing many trials at once: an environment per row, one batched call for all rows that decide at a tick.

A *trial* is a sequence of episodes at one task that a policy plays while its memory lasts; most have a single
one. In meta-learning the first episodes of a trial are exploration, played to their end, and what the policy
learns in them, in its memory or by its `adapt`, is there in the episodes after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import CapabilityError, SettingError, ShapeError
from policysmith.common.observations import GOAL, STATE, Seen, each_part, parts_of, stack, to_tensors
from policysmith.common.rng import generator
from policysmith.experience.collect import succeeded
from policysmith.policies.acting import Actor, Expert
from policysmith.policies.protocol import Policy
from policysmith.worlds.trials import EPISODE

MakeEnvironment = Callable[[], gymnasium.Env]

MakeExpert = Callable[[gymnasium.Env], Expert]
"""From an environment to the scripted expert that acts in it, as `registry.expert` gives them."""


@dataclass(frozen=True)
class Start:
    """How an episode begins: the seed and the options of the environment's reset."""

    seed: int | None = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Trial:
    """Episodes in one environment, one after another, between which the policy may remember.

    The first `explore` episodes are exploration: they do not end at success, and after every `adapt_every`
    of them the policy adapts, where it can. Episodes after the first are reset with their number among the
    options, as in `worlds.trials`.
    """

    make: MakeEnvironment
    starts: Sequence[Start]
    explore: int = 0
    adapt_every: int = 0

    def adapts_after(self, episodes: int) -> bool:
        """Whether the policy adapts when `episodes` of the trial have been played."""
        return bool(0 < episodes <= self.explore and self.adapt_every and episodes % self.adapt_every == 0)


@dataclass
class Rollouts:
    """What episodes came to, in the order they were asked for."""

    seeds: list[int | None]
    success: Bool[np.ndarray, "episode"]
    returns: Float[np.ndarray, "episode"]
    lengths: Int[np.ndarray, "episode"]
    network_calls: Int[np.ndarray, "episode"]

    @property
    def calls_per_action(self) -> float:
        """Network calls per action played, over all episodes."""
        return float(self.network_calls.sum() / self.lengths.sum())


def play(
    policy: Policy | MakeExpert,
    trials: Sequence[Trial],
    *,
    seed: int = 0,
    parallel: int = 25,
    limit: int | None = None,
    stop_on_success: bool = True,
    spread: bool = False,
) -> Rollouts:
    """Play the trials, at most `parallel` at a time; the result has the episodes of all trials in order.

    `seed` starts the policy's own random stream; the same arguments give the same numbers. An episode ends
    when the environment says so, after `limit` steps, or at its first success (not while exploring). Actions
    are clipped to the action space. A row keeps its environment as long as its trials are made by the same
    function. `spread` has a policy work ahead between its decisions (see `Actor`).

    Raises `ShapeError` where policy and environment do not fit, `SettingError` without episodes.
    """
    if not trials or not all(trial.starts for trial in trials):
        raise SettingError("no episodes were asked for", expected="trials, each of one episode or more")
    rows = _Rows(policy, trials, min(parallel, len(trials)), generator(seed, "policy"), spread)
    try:
        rows.begin()
        while rows.active.any():
            rows.tick(limit, stop_on_success)
    finally:
        rows.close()
    return rows.result


def as_number(reward: Any, policy: object) -> float:
    """A reward as one number: a vector is weighed by the policy's `preference`, evenly where it has none."""
    if np.ndim(reward) == 0:
        return float(reward)
    weights = getattr(policy, "preference", None)
    return float(np.mean(reward) if weights is None else np.dot(weights.numpy(), reward))


def check_spaces(policy: Policy, environment: gymnasium.Env) -> None:
    """Raise where `policy` cannot act in `environment`, naming both sides."""
    observation, action = environment.observation_space, environment.action_space
    spaces = parts_of(observation.spaces if isinstance(observation, gymnasium.spaces.Dict) else observation)
    if not all(isinstance(space, gymnasium.spaces.Box) for space in (*spaces.values(), action)):
        raise CapabilityError(
            f"the environment has observations {observation} and actions {action}",
            expected="Box spaces: this policy reads vectors and pictures and acts in a continuous space",
            cure="wrap the environment (Dict observations: gymnasium.wrappers.FlattenObservation)",
        )
    wanted = {"observations" if name == STATE else name: shape for name, shape in policy.parts.items()}
    found = {"observations" if name == STATE else name: space.shape for name, space in spaces.items()}
    wanted["actions"], found["actions"] = (policy.action_size,), action.shape
    for what in wanted | found:
        if wanted.get(what) != found.get(what):
            raise ShapeError(
                f"the environment's {what} have {_shape(found.get(what))}",
                where=str(environment.spec.id if environment.spec else environment),
                expected=f"{_shape(wanted.get(what))}, as in the data the policy was trained on",
                cure="train with goal_dimensions, the dimensions of the state that goals are made of"
                if what == GOAL
                else "evaluate in the environment the demonstrations are from",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no place" if shape is None else f"shape {list(shape)}"


# ---- how it is done ------------------------------------------------------------------------------------


class _Rows:
    """Environments side by side, each at an episode of a trial of its own, and who acts in them."""

    def __init__(
        self,
        policy: Policy | MakeExpert,
        trials: Sequence[Trial],
        rows: int,
        rng: torch.Generator,
        spread: bool,
    ) -> None:
        self.policy, self.trials = policy, trials
        self.acting = (
            Actor(policy, rows, rng=rng, spread=spread)
            if isinstance(policy, Policy)
            else _Experts(policy, rows)
        )
        self.experience = [_Experience() for _ in range(rows)] if hasattr(policy, "adapt") else None
        self.first = np.cumsum([0, *(len(trial.starts) for trial in trials)])
        self.result = _nothing([start.seed for trial in trials for start in trial.starts])
        # Which trial each row plays (`len(trials)` and above: none), and which episode of it.
        self.trial, self.upcoming = np.arange(rows), rows
        self.attempt = np.zeros(rows, int)
        self.calls = self.acting.network_calls.clone()
        self.seen: list[Any] = [None] * rows
        self.environments: list[gymnasium.Env] = []

    def begin(self) -> None:
        """Make an environment for every row and start its first episode."""
        for trial in self.trials[: len(self.seen)]:
            self.environments.append(trial.make())
            if isinstance(self.policy, Policy):
                check_spaces(self.policy, self.environments[-1])
        for row in range(len(self.seen)):
            self._start(row)

    @property
    def active(self) -> Bool[np.ndarray, "row"]:
        """Which rows play."""
        return self.trial < len(self.trials)

    def tick(self, limit: int | None, stop_on_success: bool) -> None:
        """One action in every row that plays; rows whose episode ends go on to their next."""
        actions = self.acting.act(stack(self.seen), torch.from_numpy(self.active))
        ended = np.zeros(len(self.seen), bool)
        for row in _where(self.active):
            i, environment, result = self._episode(row), self.environments[row], self.result
            action = np.clip(actions[row], environment.action_space.low, environment.action_space.high)  # type: ignore[attr-defined]
            seen, reward, terminated, truncated, info = environment.step(action)
            kept = self._kept(seen)
            result.returns[i] += as_number(reward, self.policy)
            result.lengths[i] += 1
            result.success[i] |= succeeded(info)
            explores = self.attempt[row] < self.trials[self.trial[row]].explore
            truncated = truncated or (limit is not None and result.lengths[i] >= limit)
            stopped = stop_on_success and result.success[i] and not explores
            ended[row] = terminated or truncated or stopped
            if self.experience is not None and explores:
                step = (self.seen[row], action, reward, kept, terminated, truncated, succeeded(info))
                self.experience[row].add(*step)
            self.seen[row] = kept
        if ended.any():
            self._go_on(ended)

    def close(self) -> None:
        """Close every environment."""
        for environment in self.environments:
            environment.close()

    def _go_on(self, ended: Bool[np.ndarray, "row"]) -> None:
        """Take the rows that `ended` to their next episode, or to their next trial."""
        again = np.zeros_like(ended)
        for row in _where(ended):
            calls = self.acting.network_calls
            self.result.network_calls[self._episode(row)] = int(calls[row] - self.calls[row])
            self.calls[row] = calls[row]
            self.attempt[row] += 1
            trial = self.trials[self.trial[row]]
            again[row] = self.attempt[row] < len(trial.starts)
            if self.experience is not None and trial.adapts_after(self.attempt[row]):
                self.acting.adapt(row, self.experience[row].take())
        self.acting.new_episode(again)
        self.acting.reset(ended & ~again)
        for row in _where(ended & ~again):
            self._next_trial(row)
        for row in _where(ended & self.active):
            self._start(row)

    def _next_trial(self, row: int) -> None:
        before = self.trials[self.trial[row]].make
        self.trial[row], self.attempt[row], self.upcoming = self.upcoming, 0, self.upcoming + 1
        if self.trial[row] < len(self.trials) and self.trials[self.trial[row]].make is not before:
            self.environments[row].close()
            self.environments[row] = self.trials[self.trial[row]].make()
            if isinstance(self.policy, Policy):
                check_spaces(self.policy, self.environments[row])

    def _start(self, row: int) -> None:
        start, episode = self.trials[self.trial[row]].starts[self.attempt[row]], int(self.attempt[row])
        options = dict(start.options or {}) | ({EPISODE: episode} if episode else {})
        seen, _ = self.environments[row].reset(seed=start.seed, options=options or None)
        self.seen[row] = self._kept(seen)
        if isinstance(self.acting, _Experts):
            self.acting.begin(row, self.environments[row], start.seed)

    def _kept(self, seen: Seen) -> Seen:
        """The observation; a copy where it is learnt from, since environments may go on writing into it."""
        return seen if self.experience is None else each_part(seen, np.array)

    def _episode(self, row: int) -> int:
        return int(self.first[self.trial[row]] + self.attempt[row])


class _Experts:
    """Scripted experts behind the interface of `Actor`, each made for the environment of its row."""

    def __init__(self, make: MakeExpert, rows: int) -> None:
        self._make = make
        self._experts: list[tuple[gymnasium.Env, Expert] | None] = [None] * rows
        self.network_calls = torch.zeros(rows, dtype=torch.long)

    def begin(self, row: int, environment: gymnasium.Env, seed: int | None) -> None:
        """Begin an episode in the environment of `row`."""
        known = self._experts[row]
        if known is None or known[0] is not environment:
            known = self._experts[row] = (environment, self._make(environment))
        known[1].reset(seed)

    def act(self, observation: Seen, active: Bool[Tensor, "row"]) -> list[Any]:
        """An action for each row that is active, None for the others."""
        actions: list[Any] = [None] * len(active)
        for row in _where(active.numpy()):
            known = self._experts[row]
            assert known is not None
            actions[row] = known[1].act(each_part(observation, lambda part, row=row: part[row]))
        return actions

    def reset(self, mask: Bool[np.ndarray, "row"]) -> None:
        """Nothing: `begin` does it."""

    new_episode = reset

    def adapt(self, row: int, experience: TensorDict) -> None:
        """Experts do not learn."""


class _Experience:
    """The steps of a trial's exploration."""

    def __init__(self) -> None:
        self._steps: list[tuple[Any, ...]] = []

    def add(self, *step: Any) -> None:
        """One step, in the order of `EXPERIENCE`."""
        self._steps.append(step)

    def take(self) -> TensorDict:
        """All steps so far as a batch [1, step], which are then forgotten."""
        count = len(self._steps)
        columns = dict(zip(EXPERIENCE, zip(*self._steps, strict=True), strict=True))
        self._steps = []
        batch = {
            key: to_tensors(stack(column), [count])
            if key in ("observation", "action", "next_observation")
            else torch.as_tensor(column, dtype=torch.float32 if key == "reward" else torch.bool)
            for key, column in columns.items()
        }
        return TensorDict(batch, batch_size=[count])[None]


EXPERIENCE = ("observation", "action", "reward", "next_observation", "terminated", "truncated", "success")
"""What a policy that adapts is given of every step of its exploration."""


def _where(mask: Bool[np.ndarray, "row"]) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)]


def _nothing(seeds: list[int | None]) -> Rollouts:
    count = len(seeds)
    return Rollouts(seeds, np.zeros(count, bool), np.zeros(count), np.zeros(count, int), np.zeros(count, int))

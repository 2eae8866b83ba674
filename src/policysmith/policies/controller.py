"""A policy in your own control loop: arrays in, arrays out, at a fixed rate, on a machine that is not ours.

    controller = Controller.load("runs/sdp-MyRobot-seed0", rate=10.0, low=-1.0, high=1.0)
    while running:
        robot.send(controller.act(robot.look()))     # and sleep until the next tick

The loop is yours; the controller keeps the window of observations and the plan (see `policies.acting`), and
what a robot needs beside them: it refuses observations that are not finite and, where you say how old they
may be, those that are stale; it limits the actions and how far they move at a tick; and it counts the ticks
whose action came too late.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from policysmith.common.errors import (
    CapabilityError,
    DataError,
    NotFiniteError,
    SettingError,
    ShapeError,
    StaleError,
)
from policysmith.common.observations import STATE, Seen, parts_of, stack, to_tensors
from policysmith.common.rng import generator
from policysmith.common.threads import torch_threads
from policysmith.networks.compiled import with_compiled_denoisers
from policysmith.policies.acting import Actor
from policysmith.policies.limits import ActionLimits
from policysmith.policies.protocol import Policy, load_policy
from policysmith.policies.ticks import TickCounter, TickReport

WhenStale = Literal["raise", "hold", "continue"]


class Controller:
    """Acts for one robot, or for `batch` of them that tick together.

    - `rate` (ticks per second) is what the time of a tick is counted against; the controller does not wait.
    - `low`, `high` and `largest_change` (per tick) limit the actions; see `ActionLimits`.
    - `stale_after` (seconds): an observation that is older when `act` is called, by the `time` it came with,
      is stale. `when_stale` says what then happens: `raise` a `StaleError`; `hold` the last action (a robot
      that is sent positions stands still, one that is sent velocities goes on moving); or `continue` with the
      actions that are planned already, and raise when they have been played.
    - `spread` shares the network calls of a decision among the ticks before it, where the policy can
      (`StreamingPolicy.work_ahead` says what that changes).
    - `compile` compiles the denoising network, which takes a while; see `networks.compiled`.
    - `threads` is how many PyTorch computes on within `act`; None leaves that alone.
    - `clock` gives seconds; observations have to be stamped by the same clock.

    One decision is made and thrown away at construction, so that the first tick does not pay for what
    PyTorch does once. Raises `SettingError` for settings out of range, `CapabilityError` for what the policy
    or the machine cannot do.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        rate: float,
        batch: int | None = None,
        low: ArrayLike = -np.inf,
        high: ArrayLike = np.inf,
        largest_change: ArrayLike = np.inf,
        stale_after: float | None = None,
        when_stale: WhenStale = "raise",
        spread: bool = False,
        compile: bool = False,
        threads: int | None = None,
        seed: int = 0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        _check_settings(batch, stale_after, when_stale)
        self._counter = TickCounter(rate)
        self._limits = ActionLimits(policy.action_size, low=low, high=high, largest_change=largest_change)
        self._batch = batch
        self._rows = 1 if batch is None else batch
        self._stale_after, self._when_stale = stale_after, when_stale
        self._threads, self._clock = threads, clock
        self._last = np.full((self._rows, policy.action_size), np.nan, np.float32)
        self.policy = with_compiled_denoisers(policy) if compile else policy
        rng = generator(seed, "policy", device=policy.device)
        self._actor = Actor(self.policy, self._rows, rng=rng, spread=spread)
        with torch_threads(threads):
            _warm_up(self.policy, self._rows, compile=compile)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu", **options: Any
    ) -> Controller:
        """A controller for the policy saved in `folder` or in the run there; `options` as the class takes."""
        return cls(load_policy(folder).to(device), **options)

    @property
    def ticks(self) -> int:
        """Ticks so far, without those whose observation was refused."""
        return self._counter.ticks

    @property
    def late(self) -> int:
        """Ticks in which `act` took longer than 1 / rate."""
        return self._counter.late

    def report(self) -> TickReport:
        """The times of the ticks so far."""
        return self._counter.report()

    def act(self, observation: Any, *, time: ArrayLike | None = None) -> Float[np.ndarray, "*row action"]:
        """The action for the newest observation: [action], or [batch, action].

        `observation` is the state vector, or a mapping with the parts that the policy reads (`state`, `goal`,
        pictures uint8 [height, width, 3] by camera), each with a leading axis of rows where there is a batch.
        Parts that the policy does not read are left aside. `time` is when the observation was made, by the
        controller's clock: one for all rows, or one for each.

        Raises `DataError` naming an entry that is missing or not finite, `ShapeError` where a shape differs,
        `StaleError` as `when_stale` says. What is refused leaves the controller as it was, so that the loop
        can go on with a better observation. Raises `NotFiniteError` where the policy's action is not finite.
        """
        began = self._clock()
        with torch_threads(self._threads):
            seen = self._checked(observation)
            fresh = self._fresh(time, now=began)
            held = ~fresh if self._when_stale == "hold" else np.zeros_like(fresh)
            action = self._actor.act(seen, ~held, fresh=fresh)
        if not np.isfinite(action).all():
            raise NotFiniteError(
                "the policy's action is not finite",
                where=f"{type(self.policy).__name__}: {action.tolist()}",
                cure="stop the robot: the weights or the normalisation of the policy are broken",
            )
        limited = self._limits.apply(action, self._last)
        self._last = np.where(held[:, None], self._last, limited)
        self._counter.count(self._clock() - began)
        return self._last[0].copy() if self._batch is None else self._last.copy()

    def reset(
        self,
        mask: Bool[ArrayLike, "batch"] | None = None,
        *,
        last_action: Float[ArrayLike, "*row action"] | None = None,
    ) -> None:
        """Begin a new episode, in the rows of `mask` where one is given.

        `last_action` is what the robot is doing now, shaped as `act` returns it: the first action then moves
        at most by `largest_change` from it. Without it the first action is free.
        """
        rows = np.ones(self._rows, bool) if mask is None else np.asarray(mask, bool)
        wanted = self._last.shape if self._batch is not None else self._last.shape[1:]
        last = np.full(wanted, np.nan) if last_action is None else np.asarray(last_action)
        if last.shape != wanted:
            raise ShapeError(f"a last action of shape {list(last.shape)}", expected=str(list(wanted)))
        self._actor.reset(rows)
        self._last[rows] = last.reshape(self._last.shape)[rows]

    # ---- what is refused -----------------------------------------------------------------------------

    def _checked(self, observation: Any) -> Seen:
        """The parts that the policy reads, with a leading axis of rows."""
        given, wanted = parts_of(observation), self.policy.parts
        if missing := [name for name in wanted if name not in given]:
            raise DataError(
                f"the observation has no {', '.join(map(repr, missing))}",
                where=f"an observation with the parts {', '.join(map(repr, given))}",
                expected=", ".join(f"'{name}' {list(shape)}" for name, shape in wanted.items()),
            )
        parts = {name: self._part(name, given[name]) for name in wanted}
        return parts[STATE] if list(parts) == [STATE] else parts

    def _part(self, name: str, given: Any) -> np.ndarray:
        array = np.asarray(given)
        shape = self.policy.parts[name]
        shape = shape if self._batch is None else (self._batch, *shape)
        if array.shape != shape:
            raise ShapeError(
                f"'{name}' has shape {list(array.shape)}",
                expected=f"{list(shape)}, as the policy was trained on",
            )
        if name in self.policy.pictures:
            if array.dtype != np.uint8:
                raise DataError(f"the picture '{name}' is of {array.dtype}", expected="uint8, from 0 to 255")
        else:
            array = array.astype(np.float32)
            wrong = np.argwhere(~np.isfinite(array)).tolist()
            if wrong:
                more = f" (and {len(wrong) - 1} more of its entries)" if len(wrong) > 1 else ""
                raise DataError(
                    f"'{name}' {wrong[0]}{more} is {array[tuple(wrong[0])]}",
                    expected="finite numbers",
                    cure="repair the reading of the sensor, or leave this observation out",
                )
        return array.reshape(self._rows, *self.policy.parts[name])

    def _fresh(self, time: ArrayLike | None, *, now: float) -> Bool[np.ndarray, "row"]:
        """Which rows have an observation that is new enough; raises where there is no way to go on."""
        if time is None and self._stale_after is None:
            return np.ones(self._rows, bool)
        age = self._age(time, now)
        fresh = age <= (np.inf if self._stale_after is None else self._stale_after)
        has_action, why_not = {
            "raise": (np.zeros(self._rows, bool), ""),
            "hold": (~np.isnan(self._last).any(axis=1), ", and there is no action to hold yet"),
            "continue": ((self._actor.planned > 0).numpy(), ", and no planned action is left"),
        }[self._when_stale]
        stuck = np.flatnonzero(~fresh & ~has_action)
        if len(stuck):
            raise StaleError(
                f"the observation is {age[stuck[0]]:.3f} s old{why_not}",
                where="" if self._batch is None else f"row {stuck[0]}",
                expected=f"at most {self._stale_after:g} s",
            )
        return fresh

    def _age(self, time: ArrayLike | None, now: float) -> Float[np.ndarray, "row"]:
        if time is None:
            raise SettingError(
                "the controller is to refuse stale observations, and was not told how old this one is",
                cure="act(observation, time=...), or make the controller without stale_after",
            )
        stamp = np.asarray(time, float)
        if stamp.shape not in ((), (self._rows,)) or not np.isfinite(stamp).all():
            raise DataError(
                f"the observation's time is {time}", expected="seconds, one for all rows or for each"
            )
        age = np.broadcast_to(now - stamp, self._rows)
        if age.min() < 0:
            raise DataError(
                f"the observation is from {-age.min():.3f} s after now",
                expected="a time of the controller's own clock",
                cure="stamp observations by time.monotonic(), or give the controller your clock (clock=)",
            )
        return age


# ---- construction --------------------------------------------------------------------------------------


def _check_settings(batch: int | None, stale_after: float | None, when_stale: str) -> None:
    if batch is not None and batch < 1:
        raise SettingError(f"a batch of {batch} robots", expected="at least 1, or None for a single one")
    if stale_after is not None and not stale_after > 0:
        raise SettingError(f"observations are stale after {stale_after} s", expected="more than 0, or None")
    if when_stale not in get_args(WhenStale):
        raise SettingError(
            f"'{when_stale}' is nothing to do about a stale observation",
            expected=", ".join(get_args(WhenStale)),
        )


def _warm_up(policy: Policy, rows: int, *, compile: bool) -> None:
    """Decide once, where a network is compiled for every number of rows that the compiler tells apart."""
    counts = {1, min(2, rows), rows} if compile else {rows}
    try:
        for count in sorted(counts):
            _decide_for_nothing(policy, count)
    except RuntimeError as error:
        if not compile:
            raise
        raise CapabilityError(
            f"the network could not be compiled: {str(error).strip().splitlines()[0]}",
            expected="a machine that torch.compile supports: on a CPU, one with g++ or clang++",
            cure="install a C++ compiler, or leave compile=False",
        ) from error


@torch.inference_mode()
def _decide_for_nothing(policy: Policy, rows: int) -> None:
    blank = {
        name: np.zeros(shape, np.uint8 if name in policy.pictures else np.float32)
        for name, shape in policy.parts.items()
    }
    one: Seen = blank[STATE] if list(blank) == [STATE] else blank
    window = stack([stack([one] * policy.observation_steps)] * rows)
    observation = to_tensors(window, [rows, policy.observation_steps]).to(policy.device)
    policy.act(observation, policy.initial_state(rows), rng=generator(0, "warm-up", device=policy.device))

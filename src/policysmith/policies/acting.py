"""Running a policy for a batch of environments: windows of observations in, one action per tick out.

Each row has a clock of its own: its window is filled with the first observation when its episode begins, and
it decides again when its chunk of actions has been played. Rows that must decide at the same tick are given
to the policy together. With `spread`, a policy that can work ahead does a share of its next decision's
network calls at every tick, instead of all of them at the tick of the decision.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import ShapeError
from policysmith.common.observations import Observation, Seen, choose, stack, to_tensors
from policysmith.policies.protocol import Policy, require_capability


class Expert(Protocol):
    """Anything that maps one observation to one action: a scripted expert, a person, a policy."""

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode."""
        ...

    def act(self, observation: Any) -> np.ndarray:
        """The action for one observation."""
        ...


class Actor:
    """Acts for `batch` environments with one policy and one random stream.

    `decided` [batch] says which rows asked the policy at the last tick; `network_calls` [batch] counts.
    `spread` needs a policy with `work_ahead`, and is a `CapabilityError` with any other.
    """

    def __init__(self, policy: Policy, batch: int, *, rng: torch.Generator, spread: bool = False) -> None:
        if spread:
            require_capability(policy, "work_ahead", by="spreading network calls over ticks")
        self.policy = policy
        self.rng = rng
        self.spread = spread
        self.state = policy.initial_state(batch)
        self.decided = torch.zeros(batch, dtype=torch.bool)
        self._batch = batch
        self._window: Observation | None = None
        self._begins = torch.ones(batch, dtype=torch.bool)
        self._chunk = torch.zeros(batch, policy.action_steps, policy.action_size)
        self._played = torch.full((batch,), policy.action_steps)

    @property
    def network_calls(self) -> Int[Tensor, "batch"]:
        """Network calls of each row since the actor was made."""
        return self.state["network_calls"]

    @property
    def planned(self) -> Int[Tensor, "batch"]:
        """How many actions each row can still play before it asks the policy again."""
        return self.policy.action_steps - self._played

    @torch.inference_mode()
    def reset(self, mask: Bool[Tensor | np.ndarray, "batch"]) -> None:
        """Begin a new episode in the rows of `mask`."""
        mask = self._mask(mask)
        self.state = self.policy.reset(self.state, mask.to(self.policy.device))
        self._begin(mask)

    @torch.inference_mode()
    def new_episode(self, mask: Bool[Tensor | np.ndarray, "batch"]) -> None:
        """Begin another episode of the same trial in the rows of `mask`, with what the policy has learnt."""
        mask = self._mask(mask)
        self.state = self.policy.new_episode(self.state, mask.to(self.policy.device))
        self._begin(mask)

    def adapt(self, row: int, experience: TensorDict) -> None:
        """Let the policy of `row` learn from the steps of its trial, `experience` [1, step]."""
        require_capability(self.policy, "adapt", by="a trial that adapts")
        rows = torch.tensor([row])
        # Outside of inference mode: adapting may take gradients.
        state = self.policy.adapt(self.state[rows], experience, rng=self.rng)  # type: ignore[operator]
        with torch.inference_mode():
            self.state[rows] = state

    @torch.inference_mode()
    def act(
        self,
        observation: Seen,
        active: Bool[Tensor | np.ndarray, "batch"] | None = None,
        *,
        fresh: Bool[Tensor | np.ndarray, "batch"] | None = None,
    ) -> Float[np.ndarray, "batch action"]:
        """One action per row; rows that are not `active` keep their memory and get their last action.

        `observation` has a leading axis of rows, in every part where it has parts. Rows that are not `fresh`
        go on without looking at it; whoever says so sees to it that they have actions `planned`.
        """
        newest = to_tensors(observation, [self._batch])
        self.policy.check_observation(newest, (self._batch,))
        active = torch.ones_like(self._begins) if active is None else self._mask(active)
        fresh = active if fresh is None else active & self._mask(fresh)
        self._see(newest, fresh)
        self.decided = active & (self._played >= self.policy.action_steps)
        if self.decided.any():
            self._decide(self.decided.nonzero()[:, 0])
        between = fresh & ~self.decided
        if self.spread and between.any():
            self._work_ahead(between.nonzero()[:, 0])
        self._played[active] += 1
        step = (self._played - 1).clamp(0, self.policy.action_steps - 1)
        return self._chunk[torch.arange(len(step)), step].numpy()

    def _begin(self, mask: Tensor) -> None:
        self._begins |= mask
        self._played[mask] = self.policy.action_steps

    def _mask(self, mask: Any) -> Tensor:
        mask = torch.as_tensor(mask, dtype=torch.bool)
        if mask.shape != self._begins.shape:
            raise ShapeError(
                f"a mask of shape {list(mask.shape)} for {len(self._begins)} rows",
                expected="one entry per row",
            )
        return mask

    def _see(self, newest: Observation, fresh: Tensor) -> None:
        filled = torch.stack([newest] * self.policy.observation_steps, dim=1)  # type: ignore[list-item]
        before = filled if self._window is None else self._window
        moved = torch.cat([before[:, 1:], newest[:, None]], dim=1)  # type: ignore[list-item]
        self._window = choose(fresh, choose(self._begins, filled, moved), before)
        self._begins = self._begins & ~fresh

    def _decide(self, rows: Tensor) -> None:
        assert self._window is not None
        window = self._window[rows].to(self.policy.device)
        actions, state = self.policy.act(window, self.state[rows], rng=self.rng)
        wanted = (len(rows), *self._chunk.shape[1:])
        if actions.shape != wanted:
            raise ShapeError(
                f"{type(self.policy).__name__} returned actions of shape {list(actions.shape)}",
                expected=f"{list(wanted)}, as [batch, action_steps, action_size]",
            )
        self.state[rows] = state
        self._chunk[rows] = actions.float().cpu()
        self._played[rows] = 0

    def _work_ahead(self, rows: Tensor) -> None:
        assert self._window is not None
        window = self._window[rows].to(self.policy.device)
        ticks = (self.planned[rows] + 1).to(self.policy.device)  # this one up to the decision's
        ahead = self.policy.work_ahead(window, self.state[rows], ticks=ticks, rng=self.rng)  # type: ignore[operator]
        self.state[rows] = ahead


class PolicyExpert:
    """A policy behind the `Expert` interface, for recording and for simple loops over one environment."""

    def __init__(self, policy: Policy, *, rng: torch.Generator) -> None:
        self._actor = Actor(policy, 1, rng=rng)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; the random stream goes on."""
        self._actor.reset(torch.ones(1, dtype=torch.bool))

    def act(self, observation: Seen) -> np.ndarray:
        """The next action."""
        return self._actor.act(stack([observation]))[0]

"""What a policy is: a module that acts, with all memory of an episode in an explicit state.

    state = policy.initial_state(batch)
    actions, state = policy.act(observation, state, rng=rng)     # actions [batch, step, action]
    state = policy.reset(state, mask)                            # where episodes ended

Several episodes at one task are a *trial*: between them `new_episode` takes the place of `reset`, so that a
policy that learns within its memory can keep what it has learnt.

A policy says how many of the newest observations it wants (`observation_steps`) and how many actions it
returns at a time (`action_steps`); whoever runs it keeps the window and plays the actions
(`policysmith.policies.acting.Actor` does both for a batch of environments). Rows of the state are
independent of each other, so any subset of rows may be asked to act.

Some policies can do more, and what needs it asks by `require_capability`:

    log_prob(observation, action) -> [batch]                 the density of an action
    sample(observation, count, rng=...) -> [count, batch, step, action]     several draws for one observation
    from_noise(observation, noise) -> [batch, step, action]  the action that a chosen noise becomes
    work_ahead(observation, state, ticks=..., rng=...) -> state    part of the next decision's network calls
    adapt(state, experience, rng=...) -> state               learning from the steps of a trial so far
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, FileError, ShapeError
from policysmith.common.observations import GOAL, STATE, Observation, parts_of
from policysmith.common.saving import from_pretrained, save_pretrained

CAPABILITIES: dict[str, str] = {
    "log_prob": "the density of a given action",
    "sample": "several draws for one observation",
    "from_noise": "the action that a chosen noise becomes, deterministically",
    "work_ahead": "part of the next decision's network calls, made before it",
    "adapt": "the state after learning from a trial's exploration",
}


class Policy(nn.Module):
    """Base of everything that acts; subclasses implement `act` and, where they remember, the state.

    `observation_size` and `action_size` are the widths of one observation and one action. A policy that
    reads parts (see `common.observations`) says so: `goal_size` is the width of its goal, `pictures` maps
    cameras to (height, width), or (frames, height, width) where it reads the last few of each at once;
    `observation_size` is then the width of the state, 0 for none.
    """

    observation_size: int
    action_size: int
    goal_size: int = 0
    pictures: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    observation_steps: int = 1
    action_steps: int = 1

    def initial_state(self, batch: int) -> TensorDict:
        """The state of `batch` episodes that have just begun; `network_calls` [batch] counts from zero."""
        calls = torch.zeros(batch, dtype=torch.long, device=self.device)
        return TensorDict({"network_calls": calls}, batch_size=[batch])

    def reset(self, state: TensorDict, mask: Bool[Tensor, "batch"]) -> TensorDict:
        """The state with the rows in `mask` put back to the beginning of an episode, the others untouched.

        `network_calls` goes on counting: it is a measurement, not a memory.
        """
        if mask.shape != state.batch_size:
            raise ShapeError(
                f"a mask of shape {tuple(mask.shape)} for a state of {state.batch_size[0]} rows",
                expected="one entry per row",
            )
        fresh = self.initial_state(state.batch_size[0])
        fresh["network_calls"] = state["network_calls"]
        return TensorDict(
            {key: _where(mask, fresh[key], state[key]) for key in state.keys()},  # noqa: SIM118
            batch_size=state.batch_size,
        )

    def new_episode(self, state: TensorDict, mask: Bool[Tensor, "batch"]) -> TensorDict:
        """The state with another episode of the same trial begun in the rows in `mask`.

        A policy that learns within a trial overrides this and keeps what it has learnt; by default nothing
        outlives an episode.
        """
        return self.reset(state, mask)

    def act(
        self,
        observation: Observation,
        state: TensorDict,
        *,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "batch step action"], TensorDict]:
        """The next `action_steps` actions, in the environment's units, and the state after them.

        `observation` is [batch, time, observation], or a TensorDict [batch, time] of parts.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the policy lives; the CPU where it has no weights."""
        weight = next(self.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The shape of every part that this policy reads of one observation."""
        vectors = {STATE: self.observation_size, GOAL: self.goal_size}
        pictures = {name: (*size, 3) for name, size in self.pictures.items()}
        return {name: (size,) for name, size in vectors.items() if size} | pictures

    def check_batch(self, observation: Observation, state: TensorDict) -> None:
        """Raise `ShapeError` where observation, state and policy do not fit each other."""
        rows = state.batch_size[0]
        if len(observation) != rows:
            raise ShapeError(
                f"{len(observation)} observations for a state of {rows} rows",
                cure="start the episodes with initial_state(batch), or reset the rows that changed",
            )
        self.check_observation(observation, (rows, self.observation_steps))

    def check_observation(self, observation: Observation, leading: tuple[int, ...]) -> None:
        """Raise `ShapeError` where parts, `leading` axes or shapes are not those this policy reads."""
        found = {name: tuple(part.shape) for name, part in parts_of(observation).items()}
        wanted = {name: (*leading, *shape) for name, shape in self.parts.items()}
        if found == wanted:
            return
        bare = isinstance(observation, Tensor) and list(wanted) == [STATE]
        raise ShapeError(
            f"an observation of shape {list(found[STATE]) if bare else _listed(found)}",
            expected=f"{list(wanted[STATE]) if bare else _listed(wanted)}, as the policy was made for",
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration and weights into `folder`."""
        save_pretrained(self, folder)


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _where(mask: Tensor, new: Any, old: Any) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (old.dim() - 1)), new, old)


def load_policy(folder: str | os.PathLike[str]) -> Any:
    """The policy saved in `folder`, or in the `policy` folder of a run directory.

    A `Policy`, or a `LanguagePolicy` where it is one of text.
    """
    folder = Path(folder)
    if (folder / "metrics.jsonl").is_file() and not (folder / "policy").is_dir():
        raise FileError(
            "the run has no policy yet: it saves one after its last step",
            where=str(folder),
            cure=f"finish it (`policysmith resume {folder}`)",
        )
    if not (folder / "config.json").is_file() or (folder / "policy").is_dir():
        folder = folder / "policy"
    if (folder / "policy.json").is_file():
        from policysmith.policies.language.policy import LanguagePolicy

        return LanguagePolicy.from_pretrained(folder)
    policy = from_pretrained(folder, expected=Policy)
    return policy.eval()


def require_capability(policy: object, capability: str, *, by: str) -> None:
    """Raise `CapabilityError` where `policy` has no method `capability`, saying what `by` needs it for."""
    if not callable(getattr(policy, capability, None)):
        raise CapabilityError(
            f"{by} needs a policy with '{capability}' ({CAPABILITIES[capability]})",
            where=f"{type(policy).__name__} has none",
        )

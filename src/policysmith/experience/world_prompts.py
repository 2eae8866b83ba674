"""Episodes of a text world as prompts, and how conversations with it are held.

    prompts = from_world("guessing-game", size=1000, seed=0, high=7)
    grpo.train(model, prompts, None)                          the world itself pays

A prompt names an episode: its world, what that is made with, and a seed. A method that answers prompts plays
such ones instead (`experience.conversations`), where what it does makes sense for a conversation.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.rng import derive
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.turns import Turns, turns_of
from policysmith.worlds.text import TextWorld, make


def world_of(prompt: Prompt) -> TextWorld:
    """The world that a prompt of `WorldPrompts` names."""
    return make(prompt.data["world"], **prompt.data.get("options", {}))


@dataclass(frozen=True)
class Table:
    """How conversations are held.

    - `world`: from a prompt to the world that is talked to; the prompt's `data["seed"]` is the episode's.
    - `turns`: at most so many answers of the policy; `tokens`: at most so many tokens in all, the policy's
      context by default. A conversation that reaches either is not `finished`, and ends with the last answer
      that fits. An answer that the conversation's limit cuts short is told to nobody; one that the sampling's
      own limit cuts is told as it is, and the conversation goes on.
    - `form`: what is put around the words; by default the chat template where the tokenizer has one.
    - `on_error` "stop" raises what a failing world raises; "end" ends that conversation there, without reward
      for its last turn and not finished. A world that fails at its reset is always raised.
    """

    world: Callable[[Prompt], TextWorld] = world_of
    turns: int | None = None
    tokens: int | None = None
    form: Turns | None = None
    on_error: Literal["stop", "end"] = "stop"

    def __post_init__(self) -> None:
        for name in ("turns", "tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"a limit of {value} {name}", expected="at least 1, or None")

    def opened_by(self, policy: LanguagePolicy, system: str) -> Table:
        """The same with the message `system` before the first turn, unless its `form` has been chosen."""
        return (
            self
            if self.form is not None or not system
            else replace(self, form=turns_of(policy, system=system))
        )


USUAL = Table()
"""The world that the prompt names, without limits of its own."""


class WorldPrompts(Prompts):
    """`size` prompts, each an episode of the world `name` (see `worlds.text.make`) made with `options`.

    A prompt's `data` says what is played: `world`, `options` and the episode's `seed`, derived from `seed`.
    `table` says how the conversations are held.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any], *, size: int, seed: int, table: Table = USUAL
    ) -> None:
        self.name, self.options, self.table = name, dict(options), table
        episodes = [derive(seed, "episode", number) for number in range(size)]
        super().__init__(
            [
                Prompt(f"{name}, episode {one}", data={"world": name, "options": self.options, "seed": one})
                for one in episodes
            ],
            provenance={"world": name, "size": size, "seed": seed, **options},
        )

    def __getitem__(self, index: Any) -> Any:
        """A prompt, or the episodes of a slice."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        part = copy.copy(self)
        part._prompts = [*super().__getitem__(index)]
        return part

    @property
    def fingerprint(self) -> str:
        """A hash of the episodes and of all that they are played with."""
        told = [super().fingerprint, self.options, self.table.turns, self.table.tokens]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def from_world(name: str, /, *, size: int, seed: int, **options: Any) -> WorldPrompts:
    """`size` episodes of the world `name` made with `options`, as `WorldPrompts`."""
    return WorldPrompts(name, options, size=size, seed=seed)


def table_of(prompts: object) -> Table | None:
    """How prompts that are episodes of a world are played; None of others, which are answered."""
    return prompts.table if isinstance(prompts, WorldPrompts) else None


def check_answered(prompts: object, why: str) -> None:
    """Raise `CapabilityError` for episodes of a world, `why` being what the method does with an answer."""
    if isinstance(prompts, WorldPrompts):
        raise CapabilityError(
            f"this method does not play worlds: {why}",
            where=f"world '{prompts.name}'",
            expected="prompts that are answered once, with a reward",
            cure="take a method that plays worlds, such as grpo or token-ppo",
        )

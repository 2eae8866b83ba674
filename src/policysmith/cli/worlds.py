"""Text worlds from words on the command line: which one, its options, and how long it is talked to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from policysmith.cli.environment import options_of
from policysmith.cli.language import LanguageInputs
from policysmith.common.errors import SettingError
from policysmith.experience.world_prompts import Table, WorldPrompts, world_of
from policysmith.worlds.text import Episode


@dataclass(frozen=True)
class WorldInputs:
    """The world that is talked to."""

    world: str = ""
    """a world that is talked to, in place of --data or --task and --reward: guessing-game, calculator, or
    your_package.module:YourWorld"""
    world_option: tuple[str, ...] = ()
    """options the world is made with, NAME=VALUE each"""
    turn_limit: int | None = None
    """most answers of the policy in a conversation; by default as many as the world lets it"""
    token_limit: int | None = None
    """most tokens of a conversation, of both sides; by default the model's context"""

    def world_prompts(self, size: int, seed: int) -> WorldPrompts:
        """`size` episodes of the world. One is begun, so that a world that cannot be made is told at once."""
        prompts = WorldPrompts(
            self.world,
            options_of(self.world_option),
            size=size,
            seed=seed,
            table=Table(turns=self.turn_limit, tokens=self.token_limit),
        )
        first = prompts[0]
        Episode(world_of(first), first.data["seed"], name=self.world).close("only looked at")
        return prompts


@dataclass(frozen=True)
class ConversingInputs(LanguageInputs, WorldInputs):
    """The model that learns, and what it answers, or the world that it talks to."""

    size: int = 1000
    """how many questions of the task, or episodes of the world"""
    data_seed: int = 0
    """seed of the task's questions, or of the world's episodes"""
    reward: str = ""
    """numeric (by default), exact, last-line, answer-tags, mathematical, task, form, the folder of a reward
    model, or your_package.module:function; a world has its own"""

    def arguments(self) -> tuple[Any, ...]:
        """What a language system's entry is called with; the reward is None where a world has its own."""
        if not self.world:
            if given := [name for name in _ONLY_WORLDS if getattr(self, name) not in ((), None)]:
                raise SettingError(
                    f"{_words(given)}, but no world", cure="give --world NAME too, or leave it out"
                )
            return self._answering.arguments()
        if given := [name for name in _ONLY_ANSWERS if getattr(self, name)]:
            raise SettingError(
                f"a world to talk to, and {_words(given)} too",
                expected="one or the other: a world asks by itself, and has its own rewards",
                cure=f"leave out --world, or {_words(given)}",
            )
        if not self.model:
            raise SettingError("which model?", cure="give --model FOLDER or NAME, such as smollm2-135m")
        if self.size < 1:
            raise SettingError(f"{self.size} episodes", expected="at least 1 (--size)")
        return self._model, self.world_prompts(self.size, self.data_seed), None

    @property
    def subject(self) -> str:
        """What runs are named after."""
        return self.world or super().subject

    def to_json(self) -> dict[str, Any]:
        """As plain data, with absolute paths."""
        if not self.world:
            return self._answering.to_json()
        return asdict(self) | {"model": self._model, "world_option": list(self.world_option)}

    def describe(self, arguments: tuple[Any, ...]) -> str:
        """A line for whoever watches."""
        if not self.world:
            return self._answering.describe(arguments)
        return f"{len(arguments[1])} episodes of {self.world}, which pays by itself"

    @property
    def _answering(self) -> LanguageInputs:
        """The inputs of a run that answers prompts."""
        kept = {one.name: getattr(self, one.name) for one in fields(LanguageInputs)}
        return LanguageInputs(**{**kept, "reward": self.reward or LanguageInputs.reward})


_ONLY_WORLDS = ("world_option", "turn_limit", "token_limit")
_ONLY_ANSWERS = ("data", "task", "option", "reward")


def _words(names: list[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)

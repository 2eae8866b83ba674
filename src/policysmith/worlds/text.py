"""Worlds that are talked to: the policy says something, the world answers, turn by turn.

    world = make("guessing-game", high=31)                  our own, by name
    world = make("my_package:MyGame")                       the user's own: any class or function there
    step = world.reset(0)                                   what the world says first
    while not step.done:
        step = world.step(my_answer(step.observation))

A world is any object with these two methods. Whatever is random in it comes from the seed of its reset, so
that an episode is told by its seed and what was said in it. `Episode` plays one and checks what comes back.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from policysmith.common.errors import (
    CapabilityError,
    DataError,
    MissingExtraError,
    PolicysmithError,
    SettingError,
    UnknownNameError,
)

GUESSING_GAME, CALCULATOR = "guessing-game", "calculator"
OWN = {
    GUESSING_GAME: "policysmith.worlds.guessing:GuessingGame",
    CALCULATOR: "policysmith.worlds.calculator:Calculator",
}
"""Our own worlds that are talked to."""


@dataclass(frozen=True)
class TextStep:
    """What a world says: `observation`, the `reward` of the text it answers, and whether it is `done`.

    `info` is anything else; `info["success"]` says whether the task is solved, as in other worlds.
    """

    observation: str
    reward: float = 0.0
    done: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class TextWorld(Protocol):
    """A world that is talked to. One with a `close()` has it called when its episode is over."""

    def reset(self, seed: int, /) -> TextStep:
        """Begin an episode, wholly determined by `seed` and what is said in it."""
        ...

    def step(self, text: str, /) -> TextStep:
        """Answer what the policy said; whatever it said, for a policy says anything."""
        ...


class Episode:
    """One play of a world, checked and remembered.

    - `seed`: of the episode; `name`: what errors call the world, its class where not given.
    - `steps` [turn + 1]: what the world said; `texts` [turn]: what it was told in between.
    - `ended`: why it is over, "done" or whatever `close` was told; empty while it goes on. At the end the
      world is let go, and the episode is plain data.

    Raises `DataError` naming world, seed and turn where the world raises, returns something else than a
    `TextStep` or a reward that is not finite, is over before a word was said, or is told more after its end.
    """

    def __init__(self, world: TextWorld, seed: int, *, name: str = "") -> None:
        self.seed = seed
        self.name = name or type(world).__name__
        self.texts: list[str] = []
        self.steps: list[TextStep] = []
        self.ended = ""
        self._world: TextWorld | None = world
        first = self._checked(lambda: world.reset(seed), "reset")
        if first.done or first.reward != 0:
            raise self._error(
                f"began with the reward {first.reward}" if first.reward else "was over when it began",
                "reset",
                expected="a first step without reward, and a word from the policy before the end",
            )
        self.steps.append(first)

    def step(self, text: str) -> TextStep:
        """Tell the world `text`; its answer."""
        turn = f"turn {len(self.texts) + 1}, told {text[:80]!r}"
        world = self._world
        if world is None:
            raise self._error(
                f"was told more after its end ({self.ended})", turn, cure="stop at a step that is done"
            )
        step = self._checked(lambda: world.step(text), turn)
        self.texts.append(text)
        self.steps.append(step)
        if step.done:
            self.close("done")
        return step

    def close(self, why: str) -> None:
        """End the episode for the reason `why`, unless it has ended, and let its world go."""
        if self._world is None:
            return
        world, self._world, self.ended = self._world, None, why
        if callable(close := getattr(world, "close", None)):
            close()

    @property
    def success(self) -> bool | None:
        """Whether the world called the task solved; None where it says nothing of it."""
        told = [step.info["success"] for step in self.steps if "success" in step.info]
        return any(map(bool, told)) if told else None

    @property
    def said(self) -> list[tuple[str, str]]:
        """Who said what, in order: ("world", text) and ("policy", text) by turns."""
        said = [("world", self.steps[0].observation)]
        for text, step in zip(self.texts, self.steps[1:], strict=False):
            said += [("policy", text), ("world", step.observation)]
        return said

    @property
    def told(self) -> dict[str, float]:
        """The numbers in the last step's `info`, beside `success`: what the world counts."""
        info = self.steps[-1].info
        return {
            name: float(value)
            for name, value in info.items()
            if name != "success" and isinstance(value, (int, float)) and math.isfinite(value)
        }

    @property
    def transcript(self) -> str:
        """What was said, a paragraph per speaker, and how it ended."""
        lines = [f"> {text}" if who == "policy" else text for who, text in self.said]
        return "\n".join([*lines, f"({self.ended or 'goes on'})"])

    def _checked(self, call: Callable[[], Any], turn: str) -> TextStep:
        try:
            step = call()
        except Exception as error:  # a world is anybody's code: whatever it raises is told with its episode
            raise self._error(f"raised {type(error).__name__}: {error}", turn) from error
        if not isinstance(step, TextStep) or not isinstance(step.observation, str):
            raise self._error(f"returned {step!r:.80}", turn, expected="a TextStep, its observation a string")
        if not isinstance(step.reward, (int, float)) or not math.isfinite(step.reward):
            raise self._error(f"returned the reward {step.reward!r:.40}", turn, expected="a finite number")
        return step

    def _error(self, problem: str, turn: str, **more: str) -> DataError:
        return DataError(
            f"the world '{self.name}' {problem}", where=f"episode of seed {self.seed}, {turn}", **more
        )


Player = Callable[[Episode], str]
"""Somebody who plays: from an episode so far to what is said next."""


def make(name: str, /, **options: Any) -> TextWorld:
    """The world called `name`: one of `OWN`, or `package.module:name` of a class or function that makes one.

    Raises `UnknownNameError` with the nearest names, `MissingExtraError` where the package cannot be
    imported, `SettingError` for an option that the world does not have or cannot be made with, and
    `CapabilityError` for something that is no world.
    """
    module_name, colon, attribute = OWN.get(name, name).partition(":")
    if not colon:
        raise UnknownNameError(
            f"no text world is called '{name}'",
            expected=", ".join(difflib.get_close_matches(name, OWN, cutoff=0.5) or OWN),
            cure="a world of your own is named as 'package.module:Name'",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise MissingExtraError(
            f"the module '{module_name}' of the text world '{name}' cannot be imported",
            cure=f"install it, or run where Python finds '{module_name}'",
        ) from error
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), cutoff=0.5)
        raise UnknownNameError(f"the module '{module_name}' has no '{attribute}'", expected=", ".join(near))
    return _made(getattr(module, attribute), name, options)


_NO_SUCH_OPTION = "unexpected keyword argument", "takes no arguments"


def _made(maker: Any, name: str, options: Mapping[str, Any]) -> TextWorld:
    try:
        world = maker(**options)
    except PolicysmithError:
        raise
    except Exception as error:  # a world is anybody's code, made with options of anybody's
        unknown = isinstance(error, TypeError) and any(words in str(error) for words in _NO_SUCH_OPTION)
        problem = "does not know an option it was given" if unknown else "cannot be made with its options"
        raise SettingError(
            f"'{name}' {problem}", where=f"{type(error).__name__}: {error}", expected=f"other than {options}"
        ) from error
    if not isinstance(world, TextWorld):
        raise CapabilityError(
            f"'{name}' makes a {type(world).__name__}, which is no text world",
            expected="an object with reset(seed) and step(text)",
        )
    return world

"""The smallest world worth talking to: find a number by guesses that are answered "higher" or "lower".

Halving what is left finds any of 2^k - 1 numbers within k guesses, and nothing can do better; so how well a
policy plays has an exact scale: with the default 15 numbers and 4 guesses, always.
"""

from __future__ import annotations

import re

import torch

from policysmith.common.errors import SettingError
from policysmith.common.rng import numpy_generator
from policysmith.worlds.text import Episode, Player, TextStep

_NUMBER = re.compile(r"-?\d+")


class GuessingGame:
    """Find the number that the seed has drawn from `low` to `high`, both included.

    A guess is the first whole number of the text. It is answered "higher", "lower" or "right"; text without a
    number is answered "no number", and is a guess lost. The game ends with reward 1 when the number is found,
    or after `guesses`, and then the number is told. `info["success"]` says whether it is found.
    """

    def __init__(self, *, low: int = 1, high: int = 15, guesses: int = 4) -> None:
        if low > high or guesses < 1:
            raise SettingError(
                f"numbers from {low} to {high} and {guesses} guesses",
                expected="a number or more, and a guess or more",
            )
        self.low, self.high, self.guesses = low, high, guesses

    def reset(self, seed: int) -> TextStep:
        """Draw the number."""
        self.number = int(numpy_generator(seed, "guessing game").integers(self.low, self.high + 1))
        self.left = self.guesses
        return TextStep(f"Guess from {self.low} to {self.high}.", info={"success": False})

    def step(self, text: str) -> TextStep:
        """Answer a guess."""
        self.left -= 1
        found = _NUMBER.search(text)
        guess = None if found is None else int(found.group())
        if guess == self.number:
            return TextStep("right", reward=1.0, done=True, info={"success": True})
        if self.left == 0:
            return TextStep(f"it was {self.number}", done=True, info={"success": False})
        reply = "no number" if guess is None else "higher" if guess < self.number else "lower"
        return TextStep(reply, info={"success": False})


def remaining(episode: Episode) -> range:
    """The numbers that a `GuessingGame` may still hide, after all that it has replied; never none of them."""
    low, high = (int(number) for number in _NUMBER.findall(episode.steps[0].observation))
    for text, step in zip(episode.texts, episode.steps[1:], strict=True):
        found = _NUMBER.search(text)
        if found is not None and step.observation == "higher":
            low = max(low, int(found.group()) + 1)
        elif found is not None and step.observation == "lower":
            high = min(high, int(found.group()) - 1)
    return range(low, high + 1)


def halving(episode: Episode) -> str:
    """The best player: guesses the middle of what is left."""
    left = remaining(episode)
    return str(left[(len(left) - 1) // 2])


def careless(rng: torch.Generator) -> Player:
    """A player who never contradicts a reply, and guesses anything that is left."""

    def guess(episode: Episode) -> str:
        left = remaining(episode)
        return str(left[int(torch.randint(len(left), (), generator=rng))])

    return guess

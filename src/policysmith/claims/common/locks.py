"""Combination locks in text: a prompt, and the one answer to it that earns anything.

    w z z x ... :   ->   c a a d ...        each symbol in its turn by a map that nobody is told

An answer of `length` words from four is right by chance once in 4^length times, and a single wrong word is as
bad as twelve: what is earned tells nothing until all of it is right. The map is one for all places, so that
what is learnt of one place helps at the others, and prompts that nobody was shown can be answered too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.rng import generator
from policysmith.experience.examples import Example, Examples
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.supervised import SupervisedSettings, supervised_batch

SYMBOLS, WORDS, ASKING = ("w", "x", "y", "z"), ("a", "b", "c", "d"), ":"

READING = SupervisedSettings(steps=400, batch_size=64, learning_rate=3e-3, warmup_steps=20)
GUESSING = SupervisedSettings(steps=100, batch_size=64, learning_rate=1e-3, warmup_steps=10)


@dataclass(frozen=True)
class Lock:
    """The lock that `seed` draws: its map, and which prompts are shown with their answers."""

    seed: int
    length: int = 12

    def open(self, symbols: list[int]) -> str:
        """The answer to a prompt of these symbols."""
        return " ".join(WORDS[self.turned[symbol]] for symbol in symbols)

    @cached_property
    def turned(self) -> list[int]:
        """The map: which word each symbol stands for, never the one in its own place."""
        rng = generator(self.seed, "lock")
        while True:
            found = torch.randperm(len(WORDS), generator=rng).tolist()
            if all(word != symbol for symbol, word in enumerate(found)):
                return found

    def prompts(self, count: int, *, held_out: bool = False) -> Prompts:
        """So many prompts, all different, with their answers; those held out are none of the others."""
        rng = generator(self.seed, "prompts", self.length, int(held_out))
        shown = {prompt.text for prompt in self.prompts(count)} if held_out else set()
        found: dict[str, Prompt] = {}
        while len(found) < count:
            symbols = torch.randint(len(SYMBOLS), (self.length,), generator=rng).tolist()
            text, answer = asking(symbols), self.open(symbols)
            if text not in shown:
                found[text] = Prompt(text, answer, {"chosen": answer})
        return Prompts(found.values())


def asking(symbols: list[int]) -> str:
    """A prompt of these symbols."""
    return " ".join([*(SYMBOLS[symbol] for symbol in symbols), ASKING])


def opened(text: str, prompt: Prompt) -> float:
    """1 where every word is right, else 0."""
    return float(text == prompt.answer)


def blind_start(length: int = 12) -> WarmStart:
    """A policy that can read a prompt place by place, and has then been taught to guess.

    First it learns the plain map (w is a, x is b, ...), which is wrong of every symbol in every lock; then
    answers whose words were drawn, until it knows how an answer looks and of the words in it nothing.
    """
    rng = generator(0, "blind", length)
    asked, drawn = torch.randint(len(WORDS), (2, 8000, length), generator=rng).tolist()
    sizes = {"width": 64, "layers": 2, "heads": 4, "context": 2 * length + 2, "spread": 0.125}
    words = (*SYMBOLS, *WORDS, ASKING)
    plain = WarmStart(_answered(asked, asked), READING, words=words, **sizes)
    return WarmStart(_answered(asked, drawn), GUESSING, first=plain, words=words, **sizes)


def _answered(asked: list[list[int]], said: list[list[int]]) -> Examples:
    pairs = zip(asked, said, strict=True)
    return Examples(Example(asking(one), " ".join(WORDS[word] for word in words)) for one, words in pairs)


@torch.no_grad()
def chance(policy: LanguagePolicy, prompts: Prompts) -> float:
    """How likely the policy's answers are to be right, exactly: the mean over the prompts."""
    batch = supervised_batch(policy, [Example(str(one.text), str(one.answer)) for one in prompts])
    log_prob, _ = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])
    return float(log_prob.double().sum(1).exp().mean())

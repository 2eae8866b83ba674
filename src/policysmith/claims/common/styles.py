"""Sentences in three styles that beat each other in a circle: a game of language that no reward tells.

    prompt      fox crossed bridge :
    sentence    simply the small fox slowly crossed the bare bridge .

Four words of a sentence are of a style: its opener, its adverb and its two adjectives. Plain beats lively,
lively beats grave and grave beats plain,

    P(y better than y') = sigmoid(SHARPNESS (circle(y, y') + form(y) - form(y')))

with `circle` of the shares of the styles (`reviews.cyclic_preference`). Three styles cannot share four words
evenly, so that every sentence is beaten by another: only who varies is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.errors import SettingError
from policysmith.common.rng import generator, numpy_generator
from policysmith.common.stages import Stage
from policysmith.evaluation.answers import answer
from policysmith.experience.examples import Example, Examples
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.policies.language.sampling import Sampling
from policysmith.training.learners.supervised import SupervisedSettings

STYLES = ("plain", "lively", "grave")
"""Each beats the next, and the last the first."""
OPENERS = (
    ("simply", "merely", "just", "so"),
    ("hey", "wow", "look", "hooray"),
    ("alas", "verily", "behold", "lo"),
)
ADVERBS = (
    ("slowly", "quietly", "calmly", "gently"),
    ("gladly", "boldly", "swiftly", "wildly"),
    ("sternly", "humbly", "wearily", "solemnly"),
)
ADJECTIVES = (
    ("small", "grey", "bare", "short", "common", "usual"),
    ("bright", "merry", "jolly", "golden", "dazzling", "dashing"),
    ("ancient", "sombre", "noble", "hallowed", "mighty", "mournful"),
)
SUBJECTS = (
    "fox", "king", "miller", "sailor", "widow", "horse", "crow", "giant", "child", "monk", "tailor", "wolf",
    "goose", "knight",
)  # fmt: skip
VERBS = (
    "crossed", "watched", "left", "found", "circled", "praised", "feared", "passed",
)  # fmt: skip
PLACES = (
    "bridge", "river", "castle", "forest", "meadow", "tower", "village", "harbour", "garden", "mountain",
    "mill", "well",
)  # fmt: skip

MARKERS = tuple(sum(words, ()) for words in zip(OPENERS, ADVERBS, ADJECTIVES, strict=True))
"""The words of each style."""
WORDS = (*sum(MARKERS, ()), *SUBJECTS, *VERBS, *PLACES, "the", ".", ":")
LENGTH = 10
"""Words of a sentence."""
SHARPNESS = 4.0
SHOWN, MIXED = (0.5, 0.3, 0.2), 0.25
"""How often the styles are shown; so many sentences draw the style of each word by itself."""
SAMPLING = Sampling(limit=LENGTH + 2, temperature=1.0)

Marks = Float[np.ndarray, "*texts mark"]
"""Of each text the shares of the three styles in the words that have one, zeros without any, and its form."""

_CIRCLE = np.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])


# ---- what is asked, and shown ----------------------------------------------------------------------------


def prompts(*, held_out: bool = False) -> Prompts:
    """Every prompt that is asked in training, or one in four that is not, in an order of no meaning."""
    texts = [f"{' '.join(words)} :" for words in product(SUBJECTS, VERBS, PLACES)]
    places = {text: hashlib.sha256(text.encode()).digest() for text in texts}
    chosen = [text for text in texts if (places[text][0] % 4 == 0) == held_out]
    return Prompts(Prompt(text) for text in sorted(chosen, key=lambda text: places[text][1:]))


def sentence(prompt: Prompt, styles: Sequence[int], rng: np.random.Generator) -> str:
    """A sentence whose four words of a style are of `styles`, in their order."""
    words = _form(prompt)
    marked = [place for place, fitting in enumerate(words) if isinstance(fitting, tuple)]
    for place, style in zip(marked, styles, strict=True):
        of_style = words[place][style]
        words[place] = of_style[int(rng.integers(len(of_style)))]
    return " ".join(words)


def pure(asked: Prompts, style: int, *, copies: int, seed: int = 0) -> list[list[str]]:
    """`copies` sentences of one style alone for each prompt."""
    rng = numpy_generator(seed, "pure", STYLES[style])
    return [[sentence(prompt, [style] * 4, rng) for _ in range(copies)] for prompt in asked]


def demonstrations(asked: Prompts, size: int, seed: int) -> Examples:
    """`size` sentences, the prompts in their order again and again, their styles as often as `SHOWN` says."""
    rng = numpy_generator(seed, "sentences")

    def example(prompt: Prompt) -> Example:
        drawn = rng.choice(3, size=4, p=SHOWN).tolist()
        styles = drawn if rng.random() < MIXED else drawn[:1] * 4
        return Example(str(prompt.text), sentence(prompt, styles, rng))

    return Examples(example(asked[number % len(asked)]) for number in range(size))


def styles_start(seed: int = 0) -> WarmStart:
    """A decoder of about 0.1 million weights that writes all three styles, the first one most often."""
    return WarmStart(
        demonstrations(prompts(), 20_000, seed),
        SupervisedSettings(steps=500, batch_size=64, learning_rate=3e-3),
        seed=seed,
        width=64,
        layers=2,
        context=24,
        words=WORDS,
        spread=0.125,
    )


# ---- which is better -------------------------------------------------------------------------------------


def marks(texts: Sequence[str], asked: Sequence[Prompt]) -> Marks:
    """What counts of each text.

    The form is 1/2 times the share of words that stand where a sentence about the prompt has them; places
    that are missing count as wrong, and so does every word too many.
    """
    found = np.zeros((len(texts), 4))
    for row, (text, prompt) in enumerate(zip(texts, asked, strict=True)):
        words, form = text.split(), _form(prompt)
        counts = np.array([sum(word in style for word in words) for style in MARKERS])
        found[row, :3] = counts / max(1, counts.sum())
        right = sum(_fits(word, fitting) for word, fitting in zip(words, form, strict=False))
        found[row, 3] = right / (2 * max(len(words), LENGTH))
    return found


def chance(first: Marks, second: Marks) -> Float[np.ndarray, "*texts"]:
    """P(first better than second) of texts by their marks."""
    circle = ((first[..., :3] @ _CIRCLE) * second[..., :3]).sum(-1)
    return 1 / (1 + np.exp(-SHARPNESS * (circle + first[..., 3] - second[..., 3])))


def judge(asked: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
    """The oracle: how likely each first sentence is better than the second; see `rewards.judges`."""
    return chance(marks(first, asked), marks(second, asked)).tolist()


def well_formed(text: str, prompt: Prompt) -> float:
    """1 for a sentence about the prompt without a wrong word, less for each that is; styles do not count."""
    return float(2 * marks([text], [prompt])[0, 3])


def _form(prompt: Prompt) -> list[Any]:
    """A sentence about the prompt, place by place: a word, or the words that fit there by style."""
    subject, verb, place, _ = str(prompt.text).split()
    return [OPENERS, "the", ADJECTIVES, subject, ADVERBS, verb, "the", ADJECTIVES, place, "."]


def _fits(word: str, fitting: Any) -> bool:
    return any(word in style for style in fitting) if isinstance(fitting, tuple) else word == fitting


# ---- pairs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StylePairs:
    """Pairs of a start's sentences, the one first that the oracle preferred when it was asked once."""

    start: WarmStart
    size: int = 3000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SettingError(f"{self.size} pairs", expected="1 or more")

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the pairs."""
        return {"styles": self.size, "seed": self.seed, "start": self.start.identity}

    def make(self, folder: Path) -> Generator[Stage, None, Preferences]:
        """The pairs, the same each time; without those of an empty sentence, or of the same one twice."""
        policy = yield from self.start.make(folder)
        yield Stage("sample pairs", 0, 1)
        every = prompts()
        asked = Prompts(every[number % len(every)] for number in range(self.size))
        found = answer(policy, asked, well_formed, sampling=SAMPLING, copies=2, seed=self.seed)
        first, second = zip(*found.texts, strict=True)
        luck = torch.rand(len(asked), generator=generator(self.seed, "labels")).tolist()
        return Preferences(
            Preference(prompt, (one, other) if drawn < p else (other, one))
            for prompt, one, other, p, drawn in zip(
                asked, first, second, judge(asked, first, second), luck, strict=True
            )
            if one and other and one != other
        )

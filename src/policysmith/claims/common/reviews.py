"""Reviews to be written from a record: what is asked, examples of mixed quality, and what a review is worth.

    gold = 0.7 covered + 0.3 closing - defects,   in [-1, 1]

`covered` is the share of the record's aspects that are judged as the record has them, `closing` is 1 where
the review ends as it should, -1 where it ends otherwise, 0 where it does not say; defects have their prices
in `PRICES`. The gold reward is a program and is never shown to training where an experiment is about learned
rewards: these learn from preferences that are drawn by it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from policysmith.claims.common.review_language import (
    KINDS,
    Polarity,
    Record,
    read,
    read_record,
    style_shares,
)
from policysmith.claims.common.review_writing import write
from policysmith.common.errors import SettingError
from policysmith.common.rng import numpy_generator
from policysmith.experience.examples import Example, Examples
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt, Prompts

LONGEST = 24
"""Words of a review (its end token not among them) that cost nothing."""
COVERED, CLOSED = 0.7, 0.3
PRICES = {
    "contradiction": 0.15,
    "repeat": 0.1,
    "unasked": 0.15,
    "grammar": 0.1,
    "excess": 0.03,
}
"""Of each: an aspect judged against the record, an aspect judged again, one that was not asked for, an error
of grammar, and a word too many."""

Judge = Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], list[float]]
"""(prompts, first answers, second answers) -> the probability that the first is better."""


# ---- what is asked ------------------------------------------------------------------------------------


def prompts(size: int, seed: int, *, held_out: bool = False, far: bool = False) -> Prompts:
    """`size` records to be reviewed, the same for the same arguments; the first ones also of a smaller size.

    Two to four aspects of a common item. A record is held out or is not, by a hash of its text (one in five
    is): what is asked with `held_out` never occurs without it, whatever the seeds. `far` are records unlike
    all others, of rare items and with five or six aspects.
    """
    return Prompts(Prompt(record.text) for record in islice(_records(seed, held_out, far), size))


def _records(seed: int, held_out: bool, far: bool) -> Iterator[Record]:
    rng = numpy_generator(seed, "records", "far" if far else "near")
    while True:
        kind = KINDS[rng.integers(len(KINDS))]
        items = kind.rare if far else kind.items
        item = items[rng.integers(len(items))]
        count = int(rng.integers(5, 7)) if far else int(rng.integers(2, 5))
        aspects = [kind.aspects[index] for index in rng.permutation(len(kind.aspects))[:count]]
        judged: tuple[tuple[str, Polarity], ...] = tuple((aspect, _either(rng)) for aspect in aspects)
        record = Record(item, judged, _either(rng))
        if far or _is_held_out(record.text) == held_out:
            yield record


def _either(rng: np.random.Generator) -> Polarity:
    return 1 if rng.random() < 0.5 else -1


def _is_held_out(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0


# ---- examples -----------------------------------------------------------------------------------------


def demonstrations(asked: Prompts, seed: int, *, low: float = 0.0, high: float = 1.0) -> Examples:
    """A review of each record, of a quality drawn evenly between `low` and `high` (1: without defects)."""
    if not 0 <= low <= high <= 1:
        raise SettingError(f"qualities from {low} to {high}", expected="0 <= low <= high <= 1")
    rng = numpy_generator(seed, "demonstrations")
    return Examples(
        Example(str(prompt.text), write(read_record(str(prompt.text)), rng, quality=rng.uniform(low, high)))
        for prompt in asked
    )


def best_demonstrations(asked: Prompts, seed: int, *, of: int = 8, spoilt: float = 0.0) -> Examples:
    """The best by gold of `of` demonstrations of each record; for a share `spoilt` of them any of these."""
    if of < 1 or not 0 <= spoilt <= 1:
        raise SettingError(f"the best of {of}, {spoilt} of them spoilt", expected="1 or more; a share")
    return Examples(Example(str(prompt.text), best) for prompt, best, _ in _best(asked, seed, of, spoilt))


def best_pairs(asked: Prompts, seed: int, *, of: int = 8, spoilt: float = 0.0) -> Preferences:
    """The best demonstrations, each before another one of the `of` that it was the best of.

    `data["scores"]` are gold. Records whose demonstrations are all the same are left out.
    """
    if of < 2 or not 0 <= spoilt <= 1:
        raise SettingError(f"the best of {of}, {spoilt} of them spoilt", expected="2 or more; a share")
    rng = numpy_generator(seed, "less good demonstrations")
    rows = []
    for prompt, best, texts in _best(asked, seed, of, spoilt):
        others = [text for text in texts if text != best]
        if others:
            both = (best, others[rng.integers(len(others))])
            rows.append(Preference(prompt, both, data={"scores": tuple(gold(text, prompt) for text in both)}))
    return Preferences(rows)


def _best(asked: Prompts, seed: int, of: int, spoilt: float) -> Iterator[tuple[Prompt, str, list[str]]]:
    """Each record with the demonstration of it that is taken for the best, and all of them."""
    rng = numpy_generator(seed, "best demonstrations")
    for prompt in asked:
        record = read_record(str(prompt.text))
        texts = [write(record, rng, quality=rng.uniform()) for _ in range(of)]
        best = max(texts, key=lambda text: gold(text, prompt))
        yield prompt, texts[0] if rng.random() < spoilt else best, texts


# ---- what it is worth ---------------------------------------------------------------------------------


def gold_parts(text: str, prompt: Prompt) -> dict[str, float]:
    """What each part of a review adds to its gold reward: `covered`, `closing` and, negative, the defects.

    An aspect is covered where it is judged as the record has it and nowhere otherwise. A closing is right
    where every closing of the text has the record's tone and item. Length is in words.
    """
    record, reading = read_record(str(prompt.text)), read(text)
    wanted = record.wanted
    said: dict[str, list[int]] = {}
    for aspect, polarity in reading.mentions:
        said.setdefault(aspect, []).append(polarity)
    against = sum(polarity != wanted[aspect] for aspect, polarity in reading.mentions if aspect in wanted)
    covered = sum(set(said.get(aspect, ())) == {polarity} for aspect, polarity in wanted.items())
    right = [one.tone == record.tone and one.item == record.item for one in reading.closings]
    defects = {
        "contradiction": against,
        "repeat": len(reading.mentions) - len(said),
        "unasked": len(said.keys() - wanted.keys()),
        "grammar": reading.errors,
        "excess": max(0, reading.words - LONGEST),
    }
    return {
        "covered": COVERED * (covered / len(wanted)),
        "closing": CLOSED * ((1 if all(right) else -1) if right else 0),
        **{name: -PRICES[name] * count for name, count in defects.items()},
    }


def gold(text: str, prompt: Prompt) -> float:
    """What a review of the record is worth, from -1 to 1, which is a review without any defect."""
    # Rounded, so that a review without defect has 1 and texts with the same defects have the same.
    return round(min(1.0, max(-1.0, sum(gold_parts(text, prompt).values()))), 6)


def points(text: str, prompt: Prompt) -> float:
    """What a review is worth to a judge who gives points, from 0 to 6, one for each of:

    half of the aspects covered; all of them; a closing that is right; nothing that is unasked, against the
    record or said twice; no error of grammar; no word too many.
    """
    parts = gold_parts(text, prompt)
    covered = parts["covered"] / COVERED
    return float(
        sum(
            (
                covered >= 0.5,
                covered == 1,
                parts["closing"] > 0,
                parts["contradiction"] == parts["unasked"] == parts["repeat"] == 0,
                parts["grammar"] == 0,
                parts["excess"] == 0,
            )
        )
    )


# ---- which is better ----------------------------------------------------------------------------------


def gold_judge(scale: float) -> Judge:
    """Prefers by gold: P(first is better) = sigmoid(scale (gold of the first - gold of the second))."""

    def judge(asked: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        return [
            _sigmoid(scale * (gold(one, prompt) - gold(other, prompt)))
            for prompt, one, other in zip(asked, first, second, strict=True)
        ]

    return judge


def fluency(text: str) -> float:
    """1/2 for a text without an error of grammar, 1/8 less for each, and not below 0."""
    return max(0.0, 0.5 - read(text).errors / 8)


def cyclic_preference(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    """How much the styles of a first text beat those of a second, in [-1, 1]: frank beats lively, lively
    beats measured and measured beats frank, so that no style is the best.

        (a b' - b a') + (b c' - c b') + (c a' - a c')     for the shares a, b, c and a', b', c' of the styles
    """
    (a, b, c), (x, y, z) = first, second
    return (a * y - b * x) + (b * z - c * y) + (c * x - a * z)


def cyclic_judge(sharpness: float = 4.0) -> Judge:
    """Prefers by style and fluency, and not transitively: the styles beat each other in a circle.

    P(first is better) = sigmoid(sharpness (cyclic preference + fluency - fluency of the second)).
    """

    def judge(asked: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
        return [
            _sigmoid(
                sharpness
                * (cyclic_preference(style_shares(one), style_shares(other)) + fluency(one) - fluency(other))
            )
            for _, one, other in zip(asked, first, second, strict=True)
        ]

    return judge


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else 1 - 1 / (1 + math.exp(value))

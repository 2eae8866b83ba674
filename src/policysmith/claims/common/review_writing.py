"""Writing reviews: a stochastic grammar whose texts are as good as they are asked to be.

A text of quality 1 has no defect. With lower quality facts are left out, turned round, repeated or made up,
the closing is wrong or missing, clauses are joined by the wrong word, words are lost, doubled or swapped, and
the text is too long; each of these by chance, in proportion to what the quality lacks to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policysmith.claims.common.review_language import (
    AND,
    BAD,
    BUT,
    DISLIKING,
    GOOD,
    INTENSIFIERS,
    KINDS,
    LIKING,
    OPENERS,
    VERBS,
    Record,
)

ROOM, MORE_ROOM = 24, 34
"""Words that a text is fitted into, and that one of low quality takes."""
PURE = 0.75
"""So many texts keep to one style; the others mix all three."""

_STRESSED = 7
"""Words of a closing with an intensifier."""

Facts = list[tuple[str, int]]


def write(record: Record, rng: np.random.Generator, *, quality: float) -> str:
    """A review of `record`; which, depends on `rng`."""
    lack = 1 - quality
    facts = _facts(record, lack, rng)
    styles = [int(rng.integers(3))] if rng.random() < PURE else [0, 1, 2]
    clauses = [_clause(aspect, polarity, styles, rng) for aspect, polarity in facts]
    closing = _closing(record, lack, styles, rng)
    room = MORE_ROOM if rng.random() < 0.5 * lack else ROOM
    _fit(clauses, facts, room - len(closing) - 1)
    if len(closing) == _STRESSED and sum(map(len, clauses)) + len(clauses) + len(closing) > room:
        del closing[2]
    words = _joined(clauses, facts, lack, rng) + closing
    for _ in range(int(rng.binomial(2, 0.3 * lack))):
        _spoil(words, rng)
    return " ".join(words)


def _facts(record: Record, lack: float, rng: np.random.Generator) -> Facts:
    """What the text will say of which aspect, in the record's order but for what is put in between."""
    asked = [(aspect, int(polarity)) for aspect, polarity in record.judged]
    facts = [fact for fact in asked if rng.random() >= 0.5 * lack] or asked[:1]
    facts = [(aspect, -polarity if rng.random() < 0.25 * lack else polarity) for aspect, polarity in facts]
    if rng.random() < 0.5 * lack:
        _insert(facts, facts[rng.integers(len(facts))], rng)
    others = [aspect for aspect in record.kind.aspects if aspect not in record.wanted]
    for _ in range(int(rng.binomial(2, 0.3 * lack))):
        _insert(facts, (others[rng.integers(len(others))], int(rng.choice([-1, 1]))), rng)
    return facts


def _insert(facts: Facts, fact: tuple[str, int], rng: np.random.Generator) -> None:
    facts.insert(int(rng.integers(len(facts) + 1)), fact)


def _clause(aspect: str, polarity: int, styles: Sequence[int], rng: np.random.Generator) -> list[str]:
    """Such as `really great screen`, `the screen looks really great` or `the screen is not poor`."""
    stress = [_of_style(INTENSIFIERS, styles, rng)] if rng.random() < 0.35 else []
    form = rng.random()
    if form < 0.4:
        return [*stress, _adjective(polarity, rng), aspect]
    if form < 0.5:
        return ["the", aspect, VERBS[0], "not", _adjective(-polarity, rng)]
    return ["the", aspect, _any(VERBS, rng), *stress, _adjective(polarity, rng)]


def _closing(record: Record, lack: float, styles: Sequence[int], rng: np.random.Generator) -> list[str]:
    fate = rng.random()
    if fate < 0.2 * lack:
        return []
    tone, item = int(record.tone), record.item
    if fate < 0.5 * lack:
        tone = -tone
    elif fate < 0.6 * lack:
        item = _any([other for kind in KINDS for other in kind.items if other != item], rng)
    stress = [_of_style(INTENSIFIERS, styles, rng)] if rng.random() < 0.4 else []
    verb = _any(LIKING if tone > 0 else DISLIKING, rng)
    return [_of_style(OPENERS, styles, rng), "i", *stress, verb, "this", item, "."]


def _fit(clauses: list[list[str]], facts: Facts, room: int) -> None:
    """Shorten clauses to adjective and aspect, the longest first, until they and what joins them fit."""
    while sum(map(len, clauses)) + len(clauses) - 1 > room:
        longest = max(range(len(clauses)), key=lambda place: len(clauses[place]))
        if len(clauses[longest]) == 2:
            return
        aspect, polarity = facts[longest]
        fitting = GOOD if polarity > 0 else BAD
        adjective = next((word for word in clauses[longest] if word in fitting), fitting[0])
        clauses[longest] = [adjective, aspect]


def _joined(
    clauses: Sequence[Sequence[str]], facts: Facts, lack: float, rng: np.random.Generator
) -> list[str]:
    words = list(clauses[0])
    for place in range(1, len(clauses)):
        same = facts[place][1] == facts[place - 1][1]
        if rng.random() < 0.4 * lack:
            same = not same
        kind = rng.random()
        joiner = "." if kind < 0.2 else "," if kind < 0.4 else _any(AND if same else BUT, rng)
        words += [joiner, *clauses[place]]
    return [*words, "."]


def _spoil(words: list[str], rng: np.random.Generator) -> None:
    """Lose, double or swap a word."""
    place = int(rng.integers(len(words) - 1))
    change = rng.integers(3)
    if change == 0:
        del words[place]
    elif change == 1:
        words.insert(place, words[place])
    else:
        words[place], words[place + 1] = words[place + 1], words[place]


def _adjective(polarity: int, rng: np.random.Generator) -> str:
    """The first ones of the list are the common ones."""
    words = GOOD if polarity > 0 else BAD
    weight = 1 / (np.arange(len(words)) + 4)
    return words[int(rng.choice(len(words), p=weight / weight.sum()))]


def _of_style(words: Sequence[Sequence[str]], styles: Sequence[int], rng: np.random.Generator) -> str:
    return _any(words[styles[int(rng.integers(len(styles)))]], rng)


def _any(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]

"""The language of reviews: its words, the records that are asked about, and how a text is read.

    record    item phone battery good screen good price bad tone positive :
    review    great battery , the screen looks really superb but awful price . overall i enjoy this phone .

A review is clauses, each of which judges one aspect, and a closing that says what comes of it. Whether it is
well formed is for a finite-state machine to say, over classes of words; what it claims is read clause by
clause, from ill-formed text too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from policysmith.common.errors import DataError

Polarity = Literal[1, -1]
"""Good or bad, positive or negative."""


@dataclass(frozen=True)
class Kind:
    """Items of which the same can be said; `rare` are those that nobody is taught."""

    items: tuple[str, ...]
    rare: tuple[str, ...]
    aspects: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


KINDS = (
    Kind(
        _words("phone laptop camera tablet"),
        _words("watch drone"),
        _words("battery screen sound keyboard weight software design price"),
    ),
    Kind(
        _words("hotel cafe museum cinema"),
        _words("theatre spa"),
        _words("staff location room food comfort view service price"),
    ),
)
GOOD = _words(
    "great excellent superb lovely solid pleasant wonderful fine brilliant perfect splendid charming"
)
BAD = _words("poor awful terrible dreadful weak unpleasant horrible lousy dull shabby faulty dismal")
VERBS = _words("is looks feels seems")
"""Between an aspect and what is said of it; only behind the first of them may stand `not`."""
INTENSIFIERS = (
    _words("truly honestly plainly"),
    _words("wildly totally super"),
    _words("rather quite fairly"),
)
OPENERS = (_words("frankly bluntly"), _words("wow seriously"), _words("overall altogether"))
"""Each of three styles of writing has words of its own: frank, lively and measured."""
STYLES = tuple(inside + first for inside, first in zip(INTENSIFIERS, OPENERS, strict=True))
LIKING = _words("recommend love enjoy praise")
DISLIKING = _words("avoid regret dislike reject")
AND, BUT = ("and", "plus"), ("but", "yet", "though")
"""Between clauses of the same polarity, and of different ones; a comma or a stop may stand between any."""

_ITEMS = {item: kind for kind in KINDS for item in (*kind.items, *kind.rare)}
_ASPECTS = tuple(dict.fromkeys(aspect for kind in KINDS for aspect in kind.aspects))
_RECORD_WORDS = _words("item good bad tone positive negative :")

_CLASSES: dict[str, tuple[str, ...]] = {
    "the": ("the",),
    "aspect": _ASPECTS,
    "is": VERBS[:1],
    "verb": VERBS[1:],
    "not": ("not",),
    "adjective": GOOD + BAD,
    "intensifier": sum(INTENSIFIERS, ()),
    "joiner": (*AND, *BUT, ","),
    "stop": (".",),
    "opener": sum(OPENERS, ()),
    "i": ("i",),
    "liking": LIKING + DISLIKING,
    "this": ("this",),
    "item": tuple(_ITEMS),
}
WORDS: tuple[str, ...] = _RECORD_WORDS + sum(_CLASSES.values(), ())
"""Everything that occurs in records and reviews."""
_CLASS_OF = {word: name for name, words in _CLASSES.items() for word in words}
_POLARITY: dict[str, Polarity] = {
    **dict.fromkeys(GOOD + LIKING, 1),
    **dict.fromkeys(BAD + DISLIKING, -1),
}

_CLAUSE = {"the": "article", "adjective": "judged", "intensifier": "judging an aspect"}
_JUDGEMENT = {"intensifier": "judging", "adjective": "clause"}
_GRAMMAR: dict[str, dict[str, str]] = {
    "begin": {**_CLAUSE, "opener": "opened"},
    "judging an aspect": {"adjective": "judged"},
    "judged": {"aspect": "clause"},
    "article": {"aspect": "named"},
    "named": {"is": "being", "verb": "seeming"},
    "being": {**_JUDGEMENT, "not": "judging"},
    "seeming": _JUDGEMENT,
    "judging": {"adjective": "clause"},
    "clause": {"joiner": "joined", "stop": "begin"},
    "joined": _CLAUSE,
    "opened": {"i": "speaking"},
    "speaking": {"intensifier": "stressing", "liking": "liking"},
    "stressing": {"liking": "liking"},
    "liking": {"this": "pointing"},
    "pointing": {"item": "closed"},
    "closed": {"stop": "end"},
    "end": {},
}
"""State -> class of the next word -> state."""
_AFTER_ERROR = {
    "the": "article",
    "aspect": "named",
    "is": "being",
    "verb": "seeming",
    "not": "judging",
    "adjective": "judged",
    "intensifier": "judging",
    "joiner": "joined",
    "stop": "begin",
    "opener": "opened",
    "i": "speaking",
    "liking": "liking",
    "this": "pointing",
    "item": "closed",
}
"""Where the machine goes on behind a word that may not stand where it does, so that one slip costs one."""


@dataclass(frozen=True)
class Record:
    """What is to be said: of which item, which aspects are good and which bad, and the closing's tone."""

    item: str
    judged: tuple[tuple[str, Polarity], ...]
    tone: Polarity

    @property
    def text(self) -> str:
        """As it is asked."""
        said = " ".join(f"{aspect} {'good' if polarity > 0 else 'bad'}" for aspect, polarity in self.judged)
        return f"item {self.item} {said} tone {'positive' if self.tone > 0 else 'negative'} :"

    @property
    def wanted(self) -> dict[str, Polarity]:
        """What is to be said of each aspect."""
        return dict(self.judged)

    @property
    def kind(self) -> Kind:
        """The kind of its item."""
        return _ITEMS[self.item]


@lru_cache(maxsize=1 << 14)
def read_record(text: str) -> Record:
    """The record that was asked with `text`. Raises `DataError` where it is none."""
    item, *said = text.split()[1:-3] or [""]
    tone: Polarity = 1 if text.endswith("tone positive :") else -1
    judged: list[tuple[str, Polarity]] = [
        (aspect, 1 if judgement == "good" else -1)
        for aspect, judgement in zip(said[::2], said[1::2], strict=False)
    ]
    record = Record(item, tuple(judged), tone)
    known = item in _ITEMS and judged and record.wanted.keys() <= set(record.kind.aspects)
    if not known or len(record.wanted) < len(judged) or record.text != text:
        raise DataError(
            f"{text!r} is not a record",
            expected="such as 'item phone battery good price bad tone positive :'",
        )
    return record


@dataclass(frozen=True)
class Closing:
    """A closing: whether the writer likes the item, and which one (None where the text does not say)."""

    tone: Polarity
    item: str | None


@dataclass(frozen=True)
class Reading:
    """What a text says and how it is written.

    - `words`: how many there are; `mentions`: what is said of aspects, in order; `closings`.
    - `errors`: words that may not stand where they do, `and` and `but` between the wrong clauses, and an end
      without a stop.
    """

    words: int
    mentions: tuple[tuple[str, Polarity], ...]
    closings: tuple[Closing, ...]
    errors: int


def read(text: str) -> Reading:
    """Read a text, well formed or not."""
    words = text.split()
    mentions, misjoined = _mentions(words)
    errors = _misplaced(words) + misjoined + (words[-1:] != ["."])
    return Reading(len(words), mentions, _closings(words), errors)


def _misplaced(words: Sequence[str]) -> int:
    """The number of words that may not stand where they do."""
    state, errors = "begin", 0
    for word in words:
        of_class = _CLASS_OF.get(word, "")
        if of_class in _GRAMMAR[state]:
            state = _GRAMMAR[state][of_class]
            continue
        errors += 1
        if state == "named" and of_class == "adjective":  # a judgement without its verb
            state = "clause"
        else:
            state = _AFTER_ERROR.get(of_class, state)
    return errors


def _mentions(words: Sequence[str]) -> tuple[tuple[tuple[str, Polarity], ...], int]:
    """Each aspect with the adjective of its clause, and how many clauses `and` or `but` joins wrongly.

    Of several aspects or adjectives in a clause the last before the two are together counts.
    """
    found: list[tuple[str, Polarity]] = []
    misjoined, joined_by = 0, "."
    aspect, judgement, negated = "", 0, False
    for word in words:
        of_class = _CLASS_OF.get(word, "")
        if of_class in ("joiner", "stop"):
            joined_by = word
            aspect, judgement, negated = "", 0, False
        elif of_class == "aspect":
            aspect = word
        elif of_class == "not":
            negated = True
        elif of_class == "adjective":
            judgement = -_POLARITY[word] if negated else _POLARITY[word]
            negated = False
        if aspect and judgement:
            polarity: Polarity = 1 if judgement > 0 else -1
            if found and joined_by in AND + BUT:
                misjoined += (found[-1][1] == polarity) != (joined_by in AND)
            found.append((aspect, polarity))
            joined_by, aspect, judgement = ".", "", 0
    return tuple(found), misjoined


def _closings(words: Sequence[str]) -> tuple[Closing, ...]:
    found = []
    for place, word in enumerate(words):
        if _CLASS_OF.get(word) == "liking":
            behind = words[place + 1 : place + 3]
            said = len(behind) == 2 and behind[0] == "this" and behind[1] in _ITEMS
            found.append(Closing(_POLARITY[word], behind[1] if said else None))
    return tuple(found)


def style_shares(text: str) -> tuple[float, float, float]:
    """The shares that frank, lively and measured words have in all such words; zeros where there are none."""
    words = text.split()
    counts = [sum(word in style for word in words) for style in STYLES]
    total = sum(counts) or 1
    frank, lively, measured = (count / total for count in counts)
    return frank, lively, measured

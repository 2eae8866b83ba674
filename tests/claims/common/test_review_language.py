"""How reviews are read: grammar errors one by one, what is said of which aspect, and the styles."""

from __future__ import annotations

from collections import Counter

import pytest

from policysmith.claims.common.review_language import (
    KINDS,
    STYLES,
    WORDS,
    Closing,
    Record,
    read,
    read_record,
    style_shares,
)
from policysmith.common.errors import DataError

RECORD = Record("phone", (("battery", 1), ("price", -1)), 1)
ASKED = "item phone battery good price bad tone positive :"


def test_a_record_is_asked_in_words_and_read_back():
    assert RECORD.text == ASKED
    assert read_record(ASKED) == RECORD
    assert RECORD.wanted == {"battery": 1, "price": -1}
    only_bad = Record("hotel", (("staff", -1),), -1)
    assert only_bad.text == "item hotel staff bad tone negative :"
    assert read_record(only_bad.text) == only_bad


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a phone",
        "item phone tone positive :",
        "item phone staff good tone positive :",
        "item banana price good tone positive :",
        "item phone price good tone positive",
        "item phone price good tone great :",
        "item phone price good sound tone positive :",
        "item phone price good price bad tone positive :",
    ],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(DataError, match="not a record"):
        read_record(text)


def test_every_word_is_there_once_and_aspects_are_no_other_kind_of_word():
    assert max(Counter(WORDS).values()) == 1
    assert 90 <= len(WORDS) <= 220
    for kind in KINDS:
        assert not set(kind.items + kind.rare) & set(kind.aspects)
        assert len(kind.aspects) >= 7  # six asked for, and one that is not


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("great battery .", 0),
        ("the battery is great .", 0),
        ("the battery is not great .", 0),
        ("truly great battery , the screen looks quite dull .", 0),
        ("great battery . the price is awful .", 0),
        ("great battery and superb screen but awful price .", 0),
        ("great battery . overall i truly recommend this phone .", 0),
        ("overall i recommend this phone .", 0),
        ("great battery", 1),  # no stop
        ("", 1),
        ("battery is great .", 1),  # no article
        ("the battery great .", 1),  # no verb
        ("the is great .", 1),  # no aspect
        ("the the battery is great .", 1),  # doubled
        ("the battery is is great .", 1),
        ("the battery battery is great .", 1),
        ("great great battery .", 1),
        ("great battery . .", 1),
        ("the battery looks not great .", 1),  # only `is not`
        ("great battery and awful price .", 1),  # `and` between good and bad
        ("great battery but superb screen .", 1),
        ("great battery but the screen is not superb .", 0),
        ("great battery , awful price .", 0),
        ("great battery and overall i recommend this phone .", 1),  # a closing begins a sentence
        ("great battery . i recommend this phone .", 1),  # no opener
        ("great battery . overall recommend this phone .", 1),
        ("overall i recommend this phone . great battery .", 1),  # nothing stands behind a closing
        ("great phone .", 1),
        ("great battery banana .", 1),
    ],
)
def test_a_slip_of_grammar_is_counted_once(text, errors):
    assert read(text).errors == errors


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("great battery , the price is awful .", (("battery", 1), ("price", -1))),
        ("the battery is not great but the screen is not awful .", (("battery", -1), ("screen", 1))),
        ("battery great and price .", (("battery", 1),)),  # from ill-formed text too
        ("the battery . great .", ()),  # not across a stop
        ("the battery screen is great .", (("screen", 1),)),
        ("great battery great battery .", (("battery", 1), ("battery", 1))),
        ("battery great awful screen .", (("battery", 1), ("screen", -1))),
        ("overall i recommend this phone .", ()),
    ],
)
def test_an_aspect_is_judged_by_the_adjective_of_its_clause(text, mentions):
    assert read(text).mentions == mentions


@pytest.mark.parametrize(
    ("text", "closings"),
    [
        ("overall i truly recommend this phone .", (Closing(1, "phone"),)),
        ("wow i avoid this hotel .", (Closing(-1, "hotel"),)),
        ("i regret .", (Closing(-1, None),)),
        ("great battery .", ()),
        ("i love this phone . i reject this phone .", (Closing(1, "phone"), Closing(-1, "phone"))),
    ],
)
def test_a_closing_is_read_with_its_item(text, closings):
    assert read(text).closings == closings


def test_style_shares_are_of_the_words_that_have_a_style():
    assert style_shares("truly great battery . wow i totally love this phone .") == (1 / 3, 2 / 3, 0)
    assert style_shares("great battery .") == (0, 0, 0)
    assert max(Counter(word for style in STYLES for word in style).values()) == 1

"""Preferences from rows in any of the usual forms, the noise of labellers, and rows that say nothing."""

import json

import pytest

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.preferences import (
    Preference,
    Preferences,
    check_pairs,
    flipped,
    lists_from_rows,
    pairs_from_rows,
    preferences_from_dataset,
)
from policysmith.experience.prompts import Prompt

USER = {"role": "user", "content": "2 + 3?"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "answers"),
    [
        ({"prompt": "2+3=", "chosen": "5", "rejected": "6"}, "2+3=", ("5", "6")),
        (
            {"chosen": "Human: hi\n\nAssistant: a fine day", "rejected": "Human: hi\n\nAssistant: a bad day"},
            "Human: hi\n\nAssistant:",
            (" a fine day", " a bad day"),
        ),
        ({"chosen": "two and three make five", "rejected": "two and three make four"},
         "two and three make ", ("five", "four")),
        ({"prompt": [USER], "chosen": [said("5")], "rejected": [said("6")]}, (USER,), ("5", "6")),
        ({"chosen": [USER, said("5")], "rejected": [USER, said("6")]}, (USER,), ("5", "6")),
        (
            {"prompt": "2 + 3?", "chosen": [USER, said("5")], "rejected": [USER, said("6")]},
            (USER,),
            ("5", "6"),
        ),
    ],
)  # fmt: skip
def test_pairs_come_in_every_usual_form(row, prompt, answers):
    (pair,) = pairs_from_rows([row])
    assert (pair.prompt.text, pair.answers, pair.labels) == (prompt, answers, (1.0, 0.0))


def test_scores_of_the_sides_are_kept():
    row = {"prompt": "2+3=", "chosen": "5", "rejected": "6", "score_chosen": 8, "score_rejected": 2.5}
    assert pairs_from_rows([row])[0].data["scores"] == (8.0, 2.5)


def test_lists_become_pairs_of_all_answers_that_differ_in_label():
    lists = lists_from_rows([{"prompt": "2+3=", "answers": ["5", "6", "five"], "labels": [1, 0, 1]}])
    assert [pair.answers for pair in lists.as_pairs()] == [("5", "6"), ("five", "6")]
    with pytest.raises(DataError, match="no answer has a higher label"):
        lists_from_rows([{"prompt": "2", "answers": ["5", "6"], "labels": [1, 1]}]).as_pairs()
    with pytest.raises(DataError, match=r"needs pairs.*\n.*row 0"):
        check_pairs(lists, reader="DPO")


@pytest.mark.parametrize(
    ("answers", "labels", "says"),
    [
        (("5", "5"), (1.0, 0.0), "the same"),
        (("5", "  "), (1.0, 0.0), "answer 1 is empty"),
        (("5", "6"), (1.0,), "1 labels for 2 answers"),
        (("5",), (1.0,), "1 answers"),
        (("5", "6"), (1.0, float("nan")), "not all finite"),
    ],
)
def test_a_row_that_says_nothing_is_named_or_dropped_and_counted(answers, labels, says):
    good = Preference(Prompt("1+1="), ("2", "3"))
    bad = Preference(Prompt("2+3="), answers, labels)
    with pytest.raises(DataError, match=says) as caught:
        Preferences([good, bad])
    assert "row 1" in str(caught.value)
    assert "2+3=" in str(caught.value)
    kept = Preferences([good, bad], drop=True)
    assert (len(kept), kept.provenance["dropped"]) == (1, 1)


def test_the_same_answer_twice_in_a_list_is_warned_of():
    with pytest.warns(UserWarning, match="1 lists have the same answer"):
        lists_from_rows([{"prompt": "2+3=", "answers": ["5", "5", "6"], "labels": [1, 1, 0]}])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "2+3=", "chosen": "5"}, "no column 'rejected'"),
        ({"chosen": "5", "rejected": "6"}, "begin differently"),
        ({"prompt": "2", "chosen": "5", "rejected": [said("6")]}, "one side is text"),
        ({"chosen": [said("5")], "rejected": [said("6")]}, "conversations begin differently"),
        ({"prompt": [USER], "chosen": [said("5"), USER, said("6")], "rejected": [said("6")]}, "3 messages"),
    ],
)
def test_a_row_of_another_form_is_named(row, says):
    with pytest.raises(DataError, match=says) as caught:
        pairs_from_rows([{"prompt": "1", "chosen": "1", "rejected": "2"}, row])
    assert "row 1" in str(caught.value)


def test_flips_are_the_same_for_the_same_seed_and_as_many_as_asked_for():
    pairs = pairs_from_rows(
        {"prompt": f"{n}", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 0}
        for n in range(2000)
    )
    noisy = flipped(pairs, 0.3, seed=1)
    turned = [pair.answers == ("b", "a") for pair in noisy]
    assert 0.27 < sum(turned) / 2000 < 0.33
    assert noisy.provenance["flips"] == sum(turned)
    assert [bool(pair.data.get("flipped")) for pair in noisy] == turned
    assert all((pair.data["scores"] == (0.0, 1.0)) == turn for pair, turn in zip(noisy, turned, strict=True))
    assert noisy.fingerprint == flipped(pairs, 0.3, seed=1).fingerprint
    assert noisy.fingerprint != flipped(pairs, 0.3, seed=2).fingerprint
    assert flipped(pairs, 0.0, seed=1).fingerprint == pairs.fingerprint
    for rate in (0.5, 0.9, -0.1):
        with pytest.raises(SettingError, match="flip rate"):
            flipped(pairs, rate, seed=1)


def test_what_is_saved_is_read_again_with_where_it_is_from(tmp_path):
    pytest.importorskip("datasets")
    pairs = flipped(
        pairs_from_rows({"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(20)), 0.4, seed=0
    )
    pairs.save(tmp_path / "pairs.jsonl")
    again = preferences_from_dataset(str(tmp_path / "pairs.jsonl"))
    assert again.fingerprint == pairs.fingerprint
    assert [pair.data.get("flipped", False) for pair in again] == [
        pair.data.get("flipped", False) for pair in pairs
    ]
    assert json.loads((tmp_path / "pairs.provenance.json").read_text())["flip_rate"] == 0.4
    lists = lists_from_rows([{"prompt": "2", "answers": ["5", "6", "7"], "labels": [1.0, 0.5, 0.0]}] * 2)
    lists.save(tmp_path / "lists.jsonl")
    assert preferences_from_dataset(str(tmp_path / "lists.jsonl")).fingerprint == lists.fingerprint


def test_pairs_and_lists_together_are_saved_in_one_form(tmp_path):
    pytest.importorskip("datasets")
    mixed = lists_from_rows(
        {"prompt": f"{n}", "answers": ["a", "b"], "labels": labels}
        for n, labels in enumerate([[1.0, 0.0], [0.2, 0.7], [1.0, 0.0]])
    )
    for first in (0, 1):
        mixed[first:].save(tmp_path / "mixed.jsonl")
        again = preferences_from_dataset(str(tmp_path / "mixed.jsonl"))
        assert again.fingerprint == mixed[first:].fingerprint

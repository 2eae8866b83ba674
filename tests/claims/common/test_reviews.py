"""Reviews: what they are worth by hand, what the grammar writes, and which is preferred."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policysmith.claims.common.review_language import KINDS, WORDS, Record, read, read_record, style_shares
from policysmith.claims.common.review_writing import write
from policysmith.claims.common.reviews import (
    LONGEST,
    best_demonstrations,
    best_pairs,
    cyclic_judge,
    cyclic_preference,
    demonstrations,
    fluency,
    gold,
    gold_judge,
    gold_parts,
    points,
    prompts,
)
from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt

RECORD = Record("phone", (("battery", 1), ("screen", 1), ("price", -1), ("sound", -1)), 1)
ASKED = Prompt(RECORD.text)
PERFECT = "great battery , superb screen but the price is awful and dull sound . overall i enjoy this phone ."


@pytest.mark.parametrize(
    ("text", "parts", "worth"),
    [
        (PERFECT, {"covered": 0.7, "closing": 0.3}, 1.0),
        # Three of four aspects.
        (
            "great battery , superb screen but awful price . overall i enjoy this phone .",
            {"covered": 0.525, "closing": 0.3},
            0.825,
        ),
        # One of them against the record: not covered, and a contradiction.
        (
            PERFECT.replace("but the price is awful and", ", the price is not awful ,"),
            {"covered": 0.525, "contradiction": -0.15},
            0.675,
        ),
        # Said rightly and wrongly: not covered.
        (
            PERFECT.replace("great battery ,", "great battery , poor battery ,"),
            {"covered": 0.525, "contradiction": -0.15, "repeat": -0.1},
            0.575,
        ),
        (PERFECT.replace("great battery ,", "great battery , superb battery ,"), {"repeat": -0.1}, 0.9),
        (PERFECT.replace("great battery ,", "great battery , superb design ,"), {"unasked": -0.15}, 0.85),
        (PERFECT.replace("enjoy", "avoid"), {"closing": -0.3}, 0.4),
        (PERFECT.replace("phone", "laptop"), {"closing": -0.3}, 0.4),
        (PERFECT.replace(" overall i enjoy this phone .", ""), {"closing": 0.0}, 0.7),
        (
            PERFECT + " overall i avoid this phone .",
            {"closing": -0.3, "grammar": -0.1, "excess": -0.06},
            0.24,
        ),
        (PERFECT.replace("the price is", "the the price is"), {"grammar": -0.1}, 0.9),
        (PERFECT.replace("awful and dull", "awful but dull"), {"grammar": -0.1}, 0.9),
        ("", {"covered": 0.0, "closing": 0.0, "grammar": -0.1}, -0.1),
        ("poor battery . wow i avoid this spa .", {"contradiction": -0.15, "closing": -0.3}, -0.45),
    ],
)
def test_each_part_of_a_review_costs_and_brings_what_it_says(text, parts, worth):
    text = " ".join(text.split())
    found = gold_parts(text, ASKED)
    usual = dict.fromkeys(found, 0.0) | {
        "covered": 0.7 if worth > 0 else 0.0,
        "closing": 0.3 if worth > 0 else 0,
    }
    assert found == pytest.approx({**usual, **parts})
    assert gold(text, ASKED) == pytest.approx(worth)


def test_words_too_many_cost_each():
    text = (
        "the battery looks truly great , the screen feels truly fine , "
        "the sound is quite poor , the price is awful . overall i enjoy this phone ."
    )
    assert len(text.split()) == 29
    assert gold_parts(text, ASKED)["excess"] == pytest.approx(-0.15)
    assert gold(text, ASKED) == pytest.approx(0.85)


def test_gold_stays_in_its_range_and_the_best_has_one_exactly():
    assert gold(PERFECT, ASKED) == 1.0
    assert gold("great " * 40, ASKED) == -1.0
    assert gold("banana " * 300, ASKED) == -1.0
    three = Prompt("item phone battery good price bad sound bad tone negative :")
    assert gold("great battery but dull sound plus poor price . wow i regret this phone .", three) == 1.0


def test_gold_needs_a_record():
    with pytest.raises(DataError, match="not a record"):
        gold(PERFECT, Prompt("write about a phone"))


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        (PERFECT, 6),
        ("great battery , superb screen . overall i enjoy this phone .", 5),  # half of the aspects
        ("great battery . overall i enjoy this phone .", 4),
        ("great battery .", 3),
        ("great battery , great battery .", 2),
        ("great battery , great battery", 1),
    ],
)
def test_points_are_one_for_each_demand(text, worth):
    assert points(text, ASKED) == worth


# ---- what is asked, and examples -----------------------------------------------------------------------


def test_prompts_depend_on_their_arguments_alone_and_what_is_held_out_is_asked_nowhere_else():
    some = prompts(300, 0)
    assert prompts(300, 0).fingerprint == some.fingerprint
    assert prompts(100, 0).fingerprint == some[:100].fingerprint
    assert prompts(300, 1).fingerprint != some.fingerprint
    held_out = {prompt.text for prompt in prompts(300, 0, held_out=True)}
    assert held_out.isdisjoint(prompt.text for seed in (0, 1) for prompt in prompts(1000, seed))


def test_prompts_out_of_distribution_have_rare_items_and_more_aspects():
    rare = {item for kind in KINDS for item in kind.rare}
    for prompt in prompts(200, 0):
        record = read_record(prompt.text)
        assert record.item not in rare
        assert 2 <= len(record.wanted) <= 4
    for prompt in prompts(200, 0, far=True):
        record = read_record(prompt.text)
        assert record.item in rare
        assert 5 <= len(record.wanted) <= 6


@pytest.mark.parametrize("far", [False, True])
def test_what_is_written_without_defects_has_the_highest_gold(far):
    asked = prompts(400, 3, far=far)
    for prompt, example in zip(asked, demonstrations(asked, 0, low=1.0), strict=True):
        assert gold(example.answer, prompt) == 1.0, example
        assert points(example.answer, prompt) == 6
        assert len(example.answer.split()) <= LONGEST


def test_demonstrations_are_of_mixed_quality_in_words_of_the_language():
    asked = prompts(1000, 3)
    taught = demonstrations(asked, 0)
    assert demonstrations(asked, 0).fingerprint == taught.fingerprint
    assert demonstrations(asked, 1).fingerprint != taught.fingerprint
    worth = np.array([gold(one.answer, prompt) for one, prompt in zip(taught, asked, strict=True)])
    assert worth.std() > 0.3
    assert (worth == 1).mean() > 0.05
    assert (worth < 0.2).mean() > 0.1
    assert {word for one in taught for word in f"{one.prompt} {one.answer}".split()} <= set(WORDS)
    better = demonstrations(asked, 0, low=0.8)
    assert np.mean([gold(one.answer, prompt) for one, prompt in zip(better, asked, strict=True)]) > 0.8


def test_every_defect_occurs():
    asked = prompts(1000, 3)
    found = [
        gold_parts(one.answer, prompt) for one, prompt in zip(demonstrations(asked, 0), asked, strict=True)
    ]
    for name in ("contradiction", "repeat", "unasked", "grammar", "excess"):
        assert np.mean([part[name] < 0 for part in found]) > 0.02, name
    assert {np.sign(part["closing"]) for part in found} == {-1, 0, 1}


def test_the_best_of_eight_demonstrations_is_better_and_some_of_them_are_spoilt():
    asked = prompts(300, 3)

    def worth(examples):
        return np.array([gold(one.answer, prompt) for one, prompt in zip(examples, asked, strict=True)])

    best, spoilt = worth(best_demonstrations(asked, 0)), worth(best_demonstrations(asked, 0, spoilt=0.1))
    assert best.mean() > worth(demonstrations(asked, 0)).mean() + 0.3
    assert 0.03 < (spoilt != best).mean() < 0.15


def test_pairs_of_demonstrations_have_the_best_one_before_another_of_the_same_eight():
    asked = prompts(120, 3)
    pairs, best = best_pairs(asked, 0), best_demonstrations(asked, 0)
    assert pairs.prompts.fingerprint == asked.fingerprint
    assert [row.answers[0] for row in pairs] == [one.answer for one in best]
    scores = np.array([row.data["scores"] for row in pairs])
    assert (scores[:, 0] >= scores[:, 1]).all()
    assert (scores[:, 0] > scores[:, 1]).mean() > 0.8
    assert scores[5].tolist() == [gold(text, asked[5]) for text in pairs[5].answers]
    spoilt = best_pairs(asked, 0, spoilt=0.1)
    assert [row.answers[0] for row in spoilt] == [
        one.answer for one in best_demonstrations(asked, 0, spoilt=0.1)
    ]
    worse = np.mean([row.data["scores"][0] < row.data["scores"][1] for row in spoilt])
    assert 0.01 < worse < 0.1


def test_the_other_one_of_a_pair_is_any_of_the_rest():
    asked = prompts(200, 3)
    others = np.array([row.data["scores"][1] for row in best_pairs(asked, 0, of=2)])
    every = np.array([row.data["scores"][1] for row in best_pairs(asked, 0, of=8)])
    assert others.mean() < every.mean() - 0.1, "the worse of two is worse than any but the best of eight"


def test_texts_of_a_style_keep_to_it():
    rng = np.random.default_rng(0)
    shares = [style_shares(write(RECORD, rng, quality=1.0)) for _ in range(200)]
    pure = np.mean([max(one) == 1 for one in shares])
    assert 0.75 < pure < 0.95


@pytest.mark.parametrize(
    "make",
    [
        lambda: demonstrations(prompts(2, 0), 0, low=0.5, high=0.4),
        lambda: demonstrations(prompts(2, 0), 0, high=1.1),
        lambda: best_demonstrations(prompts(2, 0), 0, of=0),
        lambda: best_demonstrations(prompts(2, 0), 0, spoilt=-0.1),
        lambda: best_pairs(prompts(2, 0), 0, of=1),
        lambda: best_pairs(prompts(2, 0), 0, spoilt=1.1),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(SettingError):
        make()


# ---- which is better -----------------------------------------------------------------------------------


def test_gold_judge_is_the_sigmoid_of_the_scaled_difference():
    worse = PERFECT.replace("enjoy", "avoid")  # 0.6 less
    both = gold_judge(5.0)([ASKED, ASKED, ASKED], [PERFECT, worse, worse], [worse, PERFECT, worse])
    assert both == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3)), 0.5])


def test_cyclic_preference_of_pure_styles_goes_round():
    frank, lively, measured = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    assert cyclic_preference(frank, lively) == 1
    assert cyclic_preference(lively, measured) == 1
    assert cyclic_preference(measured, frank) == 1
    assert cyclic_preference(frank, frank) == 0
    assert cyclic_preference((0.5, 0.5, 0.0), (0.0, 0.5, 0.5)) == pytest.approx(0.25)  # .25 + .25 - .25
    even = (1 / 3, 1 / 3, 1 / 3)
    for pure in (frank, lively, measured):
        assert cyclic_preference(even, pure) == pytest.approx(0)  # the mixture of all is beaten by none


def test_the_cyclic_judge_prefers_in_a_circle_and_well_formed_texts_to_ill_formed_ones():
    texts = [f"{word} great battery ." for word in ("truly", "wildly", "rather")]
    asked = [ASKED] * 3
    round_it = cyclic_judge()(asked, texts, [*texts[1:], texts[0]])
    assert round_it == pytest.approx([1 / (1 + math.exp(-4))] * 3)
    assert cyclic_judge()(asked, [*texts[1:], texts[0]], texts) == pytest.approx([1 - p for p in round_it])
    ill = "truly great battery"
    assert [fluency(texts[0]), fluency(ill), fluency("banana " * 9)] == [0.5, 0.375, 0.0]
    assert cyclic_judge()([ASKED], [texts[0]], [ill]) == pytest.approx([1 / (1 + math.exp(-0.5))])
    assert read(ill).errors == 1

"""Sentences in styles: a circle that no sentence stands outside of, and what a start writes and compares."""

from __future__ import annotations

import importlib.util
import math
from itertools import combinations_with_replacement

import numpy as np
import pytest

from policysmith.claims.common import styles
from policysmith.claims.common.reviews import cyclic_preference
from policysmith.claims.common.styles import LENGTH, WORDS, StylePairs, chance, judge, marks, well_formed
from policysmith.claims.common.warm_start import WarmStart
from policysmith.common.errors import SettingError
from policysmith.common.rng import numpy_generator
from policysmith.common.stages import result_of
from policysmith.experience.prompts import Prompt
from policysmith.training.learners.supervised import SupervisedSettings

ASKED = Prompt("fox crossed bridge :")
PLAIN = "simply the small fox slowly crossed the bare bridge ."
LIVELY = "hey the merry fox boldly crossed the golden bridge ."
GRAVE = "alas the noble fox sternly crossed the ancient bridge ."


def test_words_are_a_hundred_at_most_and_each_is_one():
    assert len(WORDS) == len(set(WORDS)) <= 100
    for text in (PLAIN, LIVELY, GRAVE, str(ASKED.text)):
        assert set(text.split()) <= set(WORDS)


def test_held_out_prompts_are_asked_in_no_training():
    asked, held_out = ({prompt.text for prompt in styles.prompts(held_out=one)} for one in (False, True))
    assert not asked & held_out
    assert len(asked) + len(held_out) == len(styles.SUBJECTS) * len(styles.VERBS) * len(styles.PLACES)
    assert len(held_out) >= 300


def test_the_oracle_prefers_in_a_circle_and_sums_to_one_over_both_orders():
    texts = [PLAIN, LIVELY, GRAVE]
    asked, behind = [ASKED] * 3, [LIVELY, GRAVE, PLAIN]
    there = judge(asked, texts, behind)
    assert there == pytest.approx([1 / (1 + math.exp(-4))] * 3)
    assert judge(asked, behind, texts) == pytest.approx([1 - p for p in there])
    assert judge(asked, texts, texts) == pytest.approx([0.5] * 3)


def test_the_circle_is_that_of_the_reviews():
    rng = np.random.default_rng(0)
    first, second = rng.dirichlet([1, 1, 1], 2)
    odds = 4 * cyclic_preference(tuple(first), tuple(second))
    found = chance(np.append(first, 0.5), np.append(second, 0.5))
    assert float(found) == pytest.approx(1 / (1 + math.exp(-odds)))


def test_every_sentence_is_beaten_by_one_of_a_single_style():
    rng = numpy_generator(0, "any")
    for drawn in combinations_with_replacement(range(3), 4):
        text = styles.sentence(ASKED, drawn, rng)
        assert marks([text], [ASKED])[0].tolist() == [drawn.count(style) / 4 for style in range(3)] + [0.5]
        assert max(judge([ASKED] * 3, [PLAIN, LIVELY, GRAVE], [text] * 3)) > 0.7


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        (PLAIN, 1.0),
        (PLAIN.replace("slowly", "sternly"), 1.0),  # of another style
        (PLAIN.replace("bridge", "castle"), 0.9),  # not what was asked
        (PLAIN.replace("slowly", "small"), 0.9),  # an adjective for an adverb
        (PLAIN.removesuffix(" ."), 0.9),
        (f"{PLAIN} {PLAIN}", 0.5),
        (PLAIN.removeprefix("simply "), 0.0),  # nothing stands in its place
        ("", 0.0),
    ],
)
def test_form_is_the_share_of_words_in_their_place(text, formed):
    assert well_formed(text, ASKED) == pytest.approx(formed)


def test_a_text_without_styles_loses_by_its_form_to_each():
    neutral = "the fox crossed the bridge ."
    assert marks([neutral], [ASKED])[0, :3].tolist() == [0, 0, 0]
    assert min(judge([ASKED] * 3, [PLAIN, LIVELY, GRAVE], [neutral] * 3)) > 0.7


def test_demonstrations_are_well_formed_and_show_the_styles_as_often_as_is_said():
    asked = styles.prompts()
    shown = styles.demonstrations(asked, 3000, 0)
    texts, about = [one.answer for one in shown], [Prompt(one.prompt) for one in shown]
    found = marks(texts, about)
    assert (found[:, 3] == 0.5).all()
    assert {len(text.split()) for text in texts} == {LENGTH}
    assert found[:, :3].mean(0) == pytest.approx(styles.SHOWN, abs=0.03)
    only = (found[:, :3] == 1).any(1).mean()
    assert only == pytest.approx(1 - styles.MIXED, abs=0.06)
    lively = styles.pure(asked[:20], 1, copies=3)
    found = [marks(own, [prompt] * 3) for own, prompt in zip(lively, asked[:20], strict=True)]
    assert (np.stack(found) == [0, 1, 0, 0.5]).all()


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs the extra 'language'")
def test_pairs_are_of_different_sentences_and_labelled_by_the_oracle(tmp_path):
    shown = styles.demonstrations(styles.prompts(), 1000, 0)
    settings = SupervisedSettings(steps=60, batch_size=32, learning_rate=1e-2)
    start = WarmStart(shown, settings, width=32, layers=1, context=24, words=WORDS, spread=0.1)
    pairs = result_of(StylePairs(start, size=150).make(tmp_path))
    again = result_of(StylePairs(start, size=150).make(tmp_path))
    assert pairs.fingerprint == again.fingerprint
    assert result_of(StylePairs(start, size=150, seed=1).make(tmp_path)).fingerprint != pairs.fingerprint
    better, worse = zip(*(row.answers for row in pairs), strict=True)
    assert all(one != other for one, other in zip(better, worse, strict=True))
    said = np.array(judge([row.prompt for row in pairs], better, worse))
    # Who wins with a chance p does so in a share p of the times: more of the sure ones are in their order.
    assert said.mean() > 0.55
    assert float((said > 0.9).sum()) > 3 * float((said < 0.1).sum())
    with pytest.raises(SettingError):
        StylePairs(start, size=0)

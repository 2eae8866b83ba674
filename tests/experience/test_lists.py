"""Lists fit to be ranked: orders that say nothing, and no answer twice."""

import pytest

from policysmith.experience.lists import deduplicated, shuffled
from policysmith.experience.preferences import Preference, Preferences
from policysmith.experience.prompts import Prompt

LABELS = (1.0, 0.75, 0.5, 0.25, 0.0)
SORTED = Preferences(
    Preference(Prompt(f"{n}"), tuple(f"{label:g}" for label in LABELS), LABELS, {"scores": LABELS, "n": n})
    for n in range(400)
)


def test_labels_and_scores_go_with_their_answers():
    found = shuffled(SORTED, seed=0)
    for row, before in zip(found, SORTED, strict=True):
        assert row.labels == row.data["scores"] == tuple(map(float, row.answers))
        assert set(row.answers) == set(before.answers)
        assert (row.prompt, row.data["n"]) == (before.prompt, before.data["n"])


def test_an_order_by_label_is_gone_and_every_list_has_one_of_its_own():
    found = shuffled(SORTED, seed=0)
    for place in range(5):
        assert sum(row.labels[place] for row in found) / 400 == pytest.approx(0.5, abs=0.06)
    assert len({row.answers for row in found}) > 80


def test_the_order_is_the_seeds():
    once, again, other = (shuffled(SORTED, seed=seed).fingerprint for seed in (0, 0, 1))
    assert once == again != other


def test_the_better_answer_of_a_pair_stays_the_first():
    pairs = Preferences(Preference(Prompt(f"{n}"), ("good", "bad")) for n in range(20))
    assert shuffled(pairs, seed=0).fingerprint == pairs.fingerprint


def test_an_answer_is_kept_once_with_the_mean_label_of_its_copies():
    with pytest.warns(UserWarning, match="more than once"):
        twice = Preferences(
            [
                Preference(Prompt("q"), ("a", "b", "a", "c"), (1.0, 0.5, 0.5, 0.0), {"scores": (4, 2, 2, 0)}),
                Preference(Prompt("r"), ("a", "b"), data={"flipped": True}),
            ]
        )
    first, second = deduplicated(twice)
    assert first.answers == ("a", "b", "c")
    assert first.labels == (0.75, 0.5, 0.0)
    assert first.data["scores"] == (3, 2, 0)
    assert second == twice[1]


def test_lists_without_copies_stay_as_they_are():
    found = deduplicated(SORTED)
    assert found.fingerprint == SORTED.fingerprint
    assert "dropped" not in found.provenance

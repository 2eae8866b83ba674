"""Lists of answers made fit to be ranked: in no order that says anything, and no answer twice.

Where a ranking breaks ties by the order in which answers are given, as it does while the policy is still its
reference, answers that were sorted by label would be ranked rightly before anything is learnt.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from policysmith.common.rng import generator
from policysmith.experience.preferences import Preference, Preferences


def shuffled(preferences: Preferences, *, seed: int) -> Preferences:
    """The answers of each list in an order of its own, labels and `data["scores"]` with them.

    Lists of two stay as they are, so that pairs have the better answer first. A list is put in the same
    order wherever the same `seed` and place are.
    """
    rng = generator(seed, "order of answers")
    rows = []
    for row in preferences:
        order = torch.randperm(len(row.answers), generator=rng).tolist()
        rows.append(row if len(order) == 2 else _taken(row, order))
    with warnings.catch_warnings():  # whoever made the lists was told of answers that are there twice
        warnings.simplefilter("ignore")
        return Preferences(rows, provenance=preferences.provenance)


def deduplicated(preferences: Preferences) -> Preferences:
    """Each answer of a list once, in its first place, with the mean label (and score) of its copies.

    Lists of which one answer is left, or of which nothing can be learnt for another reason, are dropped, and
    the provenance says how many.
    """
    rows = []
    for row in preferences:
        places: dict[str, list[int]] = {}
        for place, text in enumerate(row.answers):
            places.setdefault(text, []).append(place)
        if len(places) < len(row.answers):
            mean = [[_mean(values, group) for group in places.values()] for values in _numbers(row)]
            row = replace(_taken(row, [group[0] for group in places.values()]), labels=tuple(mean[0]))
            if len(mean) > 1:
                row = replace(row, data={**row.data, "scores": tuple(mean[1])})
        rows.append(row)
    return Preferences(rows, provenance=preferences.provenance, drop=True)


def _taken(row: Preference, places: Sequence[int]) -> Preference:
    """The answers at these places with what belongs to them."""
    labels, *scores = ([values[place] for place in places] for values in _numbers(row))
    data = {**row.data, "scores": tuple(scores[0])} if scores else row.data
    return replace(
        row, answers=tuple(row.answers[place] for place in places), labels=tuple(labels), data=data
    )


def _numbers(row: Preference) -> list[Sequence[float]]:
    """The labels, and the scores where there are some."""
    return [row.labels, row.data["scores"]] if "scores" in row.data else [row.labels]


def _mean(values: Sequence[float], places: Sequence[int]) -> float:
    return sum(values[place] for place in places) / len(places)

"""Rows of pairs of answers that a judge has compared."""

from __future__ import annotations

from tensordict import TensorDict

from policysmith.experience.outcomes import in_groups, pair_rows
from policysmith.policies.language.samples import Samples
from policysmith.rewards.judges import Judge, checked


def judged_pairs(samples: Samples, judge: Judge) -> TensorDict:
    """Of the first two answers to each prompt, the likelier better one first; none where the judge says 1/2.

    Two answers of the same text are not asked about. Raises what `rewards.judges.checked` raises.
    """
    twos = [tuple(rows[:2]) for rows in in_groups(samples).values() if len(rows) > 1]
    twos = [(a, b) for a, b in twos if samples.texts[a] != samples.texts[b]]
    said = checked(judge, probe=0)(
        [samples.about[a] for a, _ in twos],
        [samples.texts[a] for a, _ in twos],
        [samples.texts[b] for _, b in twos],
    )
    pairs = [
        (a, b) if better > 0.5 else (b, a) for (a, b), better in zip(twos, said, strict=True) if better != 0.5
    ]
    return pair_rows(samples, pairs)

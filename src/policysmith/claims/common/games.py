"""Games of preference for exact experiments, a pair of them for each seed, and the arms of their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from policysmith.common.rng import generator
from policysmith.evaluation import claim
from policysmith.objectives.preference_games import Wins


def cycle(seed: int) -> Wins:
    """Each of three outcomes beats the next, by 0.6 to 0.9."""
    strength = 0.1 + 0.3 * torch.rand(3, generator=generator(seed, "cycle")).double()
    wins = torch.full((3, 3), 0.5).double()
    for i in range(3):
        wins[i, (i + 1) % 3] += strength[i]
        wins[(i + 1) % 3, i] -= strength[i]
    return wins


def at_random(seed: int, outcomes: int) -> Wins:
    """Preferences whose log-odds are independent for every two outcomes."""
    odds = torch.randn(outcomes, outcomes, generator=generator(seed, "preferences")).double()
    return torch.sigmoid(odds - odds.t())


def exact_arm(name: str, by: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> claim.Arm:
    """An arm without settings; `by` has the values of each metric by seed."""
    runs = [claim.Run(seed, {what: values[i] for what, values in by.items()}) for i, seed in enumerate(seeds)]
    return claim.Arm(name, {}, runs, claim.summarise(runs))

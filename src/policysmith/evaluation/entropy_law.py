"""What a run has paid in entropy for its reward: the law R = -a exp(H) + b, fitted to a run's metrics.

    law = law_of_run(RunDirectory.open("runs/my-run").metrics())
    law.ceiling, law.r_squared      the reward at which it will stop, and how much of the run the law explains

Any language run reports `entropy` (nats per token of its own answers) and `reward`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from policysmith.common.errors import DataError
from policysmith.objectives.entropy_covariance import EntropyLaw, fit_entropy_law


def law_of_run(
    metrics: Sequence[Mapping[str, float]], *, entropy: str = "entropy", reward: str = "reward"
) -> EntropyLaw:
    """The law over all steps whose metrics have both; raises `DataError` where fewer than three do."""
    points = [(line[entropy], line[reward]) for line in metrics if entropy in line and reward in line]
    if len(points) < 3:
        raise DataError(
            f"{len(points)} steps have both '{entropy}' and '{reward}'",
            expected="three at least, to fit two numbers",
        )
    h, r = torch.tensor(points, dtype=torch.float64).unbind(1)
    return fit_entropy_law(h, r)

"""The law of entropy and reward, fitted to a run's metrics."""

import math

import pytest

from policysmith.common.errors import DataError
from policysmith.evaluation.entropy_law import law_of_run


def test_the_law_is_found_in_the_steps_that_have_both():
    lines = [
        {"step": step, "entropy": h, "reward": 0.9 - 0.2 * math.exp(h)}
        for step, h in enumerate((1.0, 0.5, 0.1))
    ]
    law = law_of_run([*lines, {"step": 4, "entropy": 9.0}, {"step": 5, "reward": 0.0}])
    assert (law.a, law.b) == (pytest.approx(0.2), pytest.approx(0.9))
    assert law.ceiling == pytest.approx(0.7)
    assert law.r_squared == pytest.approx(1)


def test_other_columns_may_be_fitted():
    lines = [{"h": h, "accuracy": -math.exp(h)} for h in (0.0, 1.0, 2.0)]
    assert law_of_run(lines, entropy="h", reward="accuracy").a == pytest.approx(1)


def test_too_short_a_run_is_refused():
    with pytest.raises(DataError, match="2 steps have both 'entropy' and 'reward'"):
        law_of_run([{"entropy": 1.0, "reward": 0.0}, {"entropy": 0.5, "reward": 0.5}])

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.evaluation.learning_curves import (
    area_under_curve,
    learning_curve,
    on_common_steps,
    performance_profile,
    probability_of_improvement,
)

quick = settings(max_examples=30, deadline=None)
SCORES = arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 3)), elements=st.integers(0, 5))


def rising(slope, steps=(0, 10, 20)):
    return (steps, [slope * step for step in steps])


def test_the_curve_is_the_interquartile_mean_at_each_step():
    band = learning_curve([[rising(slope) for slope in (0, 1, 2, 100)]], resamples=50, rng=0)
    assert band.at.tolist() == [0, 10, 20]
    assert band.value.tolist() == [0, 15, 30]  # the lowest and the highest run are left out


def test_the_curve_of_several_tasks_takes_their_runs_together():
    tasks = [[rising(1), rising(1)], [rising(3), rising(3)]]
    band = learning_curve(tasks, resamples=50, rng=0)
    assert band.value.tolist() == [0, 20, 40]
    # Runs of a task agree, so drawing them anew within tasks changes nothing.
    assert np.array_equal(band.low, band.value)
    assert np.array_equal(band.high, band.value)


def test_the_interval_of_a_curve_is_as_wide_as_the_runs_differ():
    tasks = [[rising(1), rising(2), rising(3), rising(4)]]
    band = learning_curve(tasks, statistic=np.mean, resamples=400, rng=1)
    width = band.high - band.low
    assert width[0] == 0
    assert width[2] == pytest.approx(2 * width[1])
    assert band.low[2] < 50 < band.high[2]


def test_a_curve_of_unequal_numbers_of_runs_is_refused():
    with pytest.raises(ShapeError, match=r"\[1, 2\]"):
        learning_curve([[rising(1)], [rising(1), rising(2)]], rng=0)
    with pytest.raises(ShapeError):
        learning_curve([], rng=0)


def test_runs_are_compared_on_the_steps_they_share():
    steps, values = on_common_steps([rising(1), rising(1, (5, 15, 40))])
    assert steps.tolist() == [5, 10, 15, 20]
    assert values.tolist() == [[5, 10, 15, 20]] * 2
    assert len(on_common_steps([rising(1, range(5000))], most=100)[0]) == 100


@pytest.mark.parametrize(
    "runs",
    [[], [([0, 1], [0])], [([1, 0], [0, 1])], [rising(1), rising(1, (30, 40))], [((), ())]],
)
def test_runs_that_cannot_be_compared_are_refused(runs):
    with pytest.raises(DataError):
        on_common_steps(runs, label="ours")


def test_a_profile_is_the_share_of_runs_above_each_threshold():
    profile = performance_profile([[0, 1], [2, 3]], [-1, 0, 1.5, 3], resamples=20, rng=0)
    assert profile.value.tolist() == [1, 0.75, 0.5, 0]


@quick
@given(SCORES)
def test_a_profile_falls_from_at_most_one_to_zero_and_its_area_is_the_mean(scores):
    taus = np.arange(-0.5, 6)
    profile = performance_profile(scores, taus, resamples=20, rng=0)
    assert (np.diff(profile.value) <= 0).all()
    assert profile.value[0] == 1
    assert profile.value[-1] == 0
    # For whole scores from 0, the sum over k >= 0 of P(X > k + 1/2) is the mean.
    assert profile.value[1:].sum() == pytest.approx(scores.mean())
    assert (profile.low <= profile.value).all()
    assert (profile.value <= profile.high).all()


def test_the_bootstrap_of_a_profile_covers_what_binomial_shares_do():
    # 40 runs of one task, half of them above: the 95 % interval of 20 in 40 is about 0.5 +- 0.155.
    scores = np.repeat([0.0, 1.0], 20)[:, None]
    profile = performance_profile(scores, [0.5], resamples=4000, rng=0)
    assert profile.low[0] == pytest.approx(0.345, abs=0.03)
    assert profile.high[0] == pytest.approx(0.655, abs=0.03)


def test_improvement_counts_pairs_won_and_half_the_ties():
    found = probability_of_improvement([[1.0], [2.0]], [[0.0], [2.0], [3.0]], resamples=200, rng=0)
    assert found.value == pytest.approx((1 + 0 + 0 + 1 + 0.5 + 0) / 6)


@quick
@given(SCORES)
def test_improvement_over_itself_is_a_half_and_over_a_worse_copy_one(scores):
    assert probability_of_improvement(scores, scores, resamples=10, rng=0).value == 0.5
    better = probability_of_improvement(scores + 6, scores, resamples=10, rng=0)
    assert (better.value, better.low, better.high) == (1, 1, 1)


def test_improvement_needs_the_same_tasks():
    with pytest.raises(ShapeError):
        probability_of_improvement([[1.0, 2.0]], [[1.0]], rng=0)
    with pytest.raises(DataError, match="run 0, task 1"):
        probability_of_improvement([[1.0, np.inf]], [[1.0, 2.0]], rng=0)


def test_the_area_under_a_curve_is_its_mean_over_steps():
    assert area_under_curve(rising(1)) == 10
    assert area_under_curve(([0, 10, 40], [2, 2, 2])) == 2
    assert area_under_curve(rising(1), until=15) == 7.5
    assert area_under_curve(([3], [7.0])) == 7
    with pytest.raises(SettingError):
        area_under_curve(rising(1), until=21)


def test_the_same_seed_gives_the_same_interval():
    tasks = [[rising(slope) for slope in (1, 2, 5)]]
    one, other = (learning_curve(tasks, resamples=30, rng=3) for _ in range(2))
    assert np.array_equal(one.high, other.high)
    with pytest.raises(SettingError):
        learning_curve(tasks, level=1.0, rng=0)

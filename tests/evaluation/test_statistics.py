import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.evaluation.statistics import (
    Interval,
    interquartile_mean,
    mean_interval,
    mean_of_rates,
    paired_difference,
    runs_to_decide,
    stratified_bootstrap,
    success_interval,
    unpaired_difference,
    verdict,
)

quick = settings(max_examples=40, deadline=None)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 12))
OUTCOMES = arrays(float, SHAPES, elements=st.sampled_from([0.0, 1.0]))
NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))


# ---- intervals as text -------------------------------------------------------------------------------


def test_interval_shows_the_digits_its_width_can_bear():
    assert str(Interval(0.8712, 0.8123, 0.9249)) == "0.87 [0.81, 0.92]"
    assert str(Interval(4213.2, 4100.4, 4330.1)) == "4213 [4100, 4330]"
    assert str(Interval(0.0, 0.0, 0.0)) == "0.0 [0.0, 0.0]"
    assert str(Interval(0.5, -math.inf, math.inf)) == "0.5 (no interval)"


@pytest.mark.parametrize("ends", [(math.nan, 0, 1), (0.5, math.nan, 1), (0.5, 1, 0), (math.inf, 0, math.inf)])
def test_interval_refuses_numbers_that_make_none(ends):
    with pytest.raises(DataError):
        Interval(*ends)


# ---- one system --------------------------------------------------------------------------------------


def test_mean_interval_is_students():
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653: half width 4.302653 / sqrt(3)
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.value == 2.0
    assert interval.high - 2.0 == pytest.approx(2.484138, abs=1e-5)
    assert 2.0 - interval.low == pytest.approx(2.484138, abs=1e-5)


@pytest.mark.parametrize(
    ("runs", "quantile"), [(2, 12.706205), (3, 4.302653), (4, 3.182446), (11, 2.228139), (201, 1.971896)]
)
def test_quantiles_are_those_of_the_tables(runs, quantile):
    scores = np.linspace(-1, 1, runs)
    half = mean_interval(scores).high - scores.mean()
    assert half == pytest.approx(quantile * scores.std(ddof=1) / math.sqrt(runs), rel=1e-5)


def test_one_run_says_nothing_about_another():
    interval = mean_interval([0.7])
    assert (interval.value, interval.low, interval.high) == (0.7, -math.inf, math.inf)


@quick
@given(arrays(float, st.integers(2, 20), elements=NUMBERS), st.randoms())
def test_mean_interval_holds_the_mean_and_ignores_the_order(scores, random):
    interval = mean_interval(scores)
    shuffled = list(scores)
    random.shuffle(shuffled)
    other = mean_interval(shuffled)
    assert interval.low <= interval.value <= interval.high
    assert (other.low, other.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


@quick
@given(arrays(float, st.integers(2, 20), elements=NUMBERS))
def test_more_runs_of_the_same_spread_give_a_narrower_interval(scores):
    once, four_times = mean_interval(scores), mean_interval(np.tile(scores, 4))
    assert four_times.width < once.width or np.ptp(scores) == 0


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert interquartile_mean([[100.0, 2.0, 3.0, -100.0]]) == 2.5
    assert interquartile_mean([[1.0], [2.0], [6.0]]) == 3.0  # a quarter of three, rounded down, is none


def test_bootstrap_resamples_runs_within_their_task():
    # The two tasks differ by far more than their runs; mixing tasks would make a wide interval.
    scores = np.array([[0.0, 100.0], [1.0, 101.0], [2.0, 102.0]])
    interval = stratified_bootstrap(scores, np.mean, rng=0)
    assert interval.value == 51.0
    assert 50.0 <= interval.low < interval.value < interval.high <= 52.0


def test_bootstrap_repeats_with_its_seed_and_draws_on_with_its_generator():
    scores = np.random.default_rng(0).normal(size=(5, 4))
    first = stratified_bootstrap(scores, interquartile_mean, resamples=100, rng=3)
    assert first == stratified_bootstrap(scores, interquartile_mean, resamples=100, rng=3)
    rng = np.random.default_rng(3)
    assert first == stratified_bootstrap(scores, interquartile_mean, resamples=100, rng=rng)
    assert first != stratified_bootstrap(scores, interquartile_mean, resamples=100, rng=rng)


def test_success_of_one_run_is_wilsons_interval():
    # 8 of 10: (0.8 + z^2/20 +- z sqrt(0.016 + z^2/400)) / (1 + z^2/10) with z = 1.959964
    interval = success_interval([[1] * 8 + [0] * 2])
    assert (interval.low, interval.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_certain_success_still_has_an_interval():
    # n / (n + z^2) = 30 / 33.841459
    assert success_interval(np.ones((3, 10))).low == pytest.approx(0.886487, abs=1e-6)
    assert success_interval(np.zeros((3, 10))).high == pytest.approx(0.113513, abs=1e-6)
    assert success_interval(np.ones((3, 10))).high == 1.0


def test_runs_that_differ_widen_the_interval_beyond_that_of_their_episodes():
    alike = np.zeros((3, 20))
    alike[:, :12] = 1
    apart = np.zeros((3, 20))
    apart[0, :20] = apart[1, :12] = apart[2, :4] = 1
    assert success_interval(alike).value == success_interval(apart).value == 0.6
    assert success_interval(alike).width == pytest.approx(success_interval(alike.reshape(1, -1)).width)
    assert success_interval(apart).width > 2 * success_interval(alike).width


@quick
@given(OUTCOMES, st.randoms())
def test_success_interval_holds_the_rate_has_width_and_ignores_the_order(outcomes, random):
    interval = success_interval(outcomes)
    order = list(range(len(outcomes)))
    random.shuffle(order)
    turned = success_interval(outcomes[order, ::-1])
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.width > 0
    assert (turned.low, turned.high) == pytest.approx((interval.low, interval.high))


@quick
@given(OUTCOMES)
def test_more_episodes_and_runs_of_the_same_rates_narrow_the_success_interval(outcomes):
    assert success_interval(np.tile(outcomes, (1, 4))).width <= success_interval(outcomes).width + 1e-9
    if len(outcomes) > 1:
        assert success_interval(np.tile(outcomes, (4, 1))).width < success_interval(outcomes).width


@pytest.mark.parametrize("runs", [2, 3, 10])
@pytest.mark.parametrize(("rate", "spread"), [(0.5, 0.0), (0.5, 0.1), (0.9, 0.0), (0.9, 0.06)])
def test_success_interval_covers_the_true_rate_as_often_as_it_says(runs, rate, spread):
    rng = np.random.default_rng(17)
    covered = 0
    for _ in range(300):
        if spread:
            total = rate * (1 - rate) / spread**2 - 1
            rates = rng.beta(rate * total, (1 - rate) * total, size=(runs, 1))
        else:
            rates = np.full((runs, 1), rate)
        interval = success_interval(rng.random((runs, 40)) < rates)
        covered += interval.low <= rate <= interval.high
    assert covered / 300 >= 0.92  # 0.95, less 2.4 standard errors of 300 draws


# ---- two systems -------------------------------------------------------------------------------------


def test_the_mean_of_rates_adds_their_distances_in_squares():
    rates = [Interval(1.0, 0.7, 1.0), Interval(0.5, 0.1, 0.8)]
    mean = mean_of_rates(rates)
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.75, 0.75 - 0.5 / 2, 0.75 + 0.3 / 2))
    assert mean_of_rates(rates[:1]) == rates[0]
    with pytest.raises(DataError):
        mean_of_rates([])


@pytest.mark.parametrize("certain", [0, 15, 19])
def test_the_mean_of_rates_covers_the_true_mean_as_often_as_it_says(certain):
    rng = np.random.default_rng(certain)
    true = np.concatenate([np.ones(certain), rng.uniform(0.05, 0.95, 20 - certain)])
    found = 0
    for _ in range(200):
        outcomes = (rng.random((20, 10)) < true[:, None]).astype(float)
        mean = mean_of_rates([success_interval(row[None]) for row in outcomes])
        found += mean.low <= true.mean() <= mean.high
    assert found >= 0.93 * 200


def test_paired_difference_of_scores_is_students_over_runs():
    # Run differences 1, 2, 3 without spread between episodes: the interval of their mean.
    b = np.arange(12.0).reshape(3, 4) ** 2
    a = b + np.array([[1.0], [2.0], [3.0]])
    interval = paired_difference(a, b)
    assert interval.value == pytest.approx(2.0)
    assert interval.high - interval.value == pytest.approx(2.484138, abs=1e-5)


def test_pairing_removes_what_both_arms_share():
    rng = np.random.default_rng(0)
    hardness = rng.normal(scale=10, size=(3, 50))
    a, b = hardness + rng.normal(size=(3, 50)) + 1, hardness + rng.normal(size=(3, 50))
    assert paired_difference(a, b).low > 0
    unpaired = paired_difference(a, b[:, ::-1])
    assert unpaired.width > 3 * paired_difference(a, b).width


def test_unpaired_difference_is_welchs():
    # Means 2 and 5; squared errors 1/3 and 5/3, 2 together; 4 / (1/18 + 25/27) = 216/53 degrees of freedom,
    # at which Student's quantile is 2.75628.
    interval = unpaired_difference([1, 2, 3], [2, 4, 6, 8])
    assert interval.value == -3
    assert (interval.low, interval.high) == pytest.approx((-6.89798, 0.89798), abs=1e-5)
    other = unpaired_difference([2, 4, 6, 8], [1, 2, 3])
    assert (other.low, other.high) == pytest.approx((-interval.high, -interval.low))


def test_unpaired_difference_knows_nothing_from_one_run_and_all_of_runs_that_never_differ():
    assert math.isinf(unpaired_difference([1, 2], [3]).width)
    certain = unpaired_difference([500, 500], [400, 400, 400])
    assert (certain.low, certain.value, certain.high) == (100, 100, 100)


def test_paired_outcomes_of_one_run_are_newcombes():
    # Newcombe 1998 (paired), table with cells 36, 12, 2, 0: 0.2 with method 10 interval [0.0569, 0.3404].
    a = np.array([[1] * 36 + [1] * 12 + [0] * 2])
    b = np.array([[1] * 36 + [0] * 12 + [1] * 2])
    interval = paired_difference(a, b)
    assert interval.value == pytest.approx(0.2)
    assert (interval.low, interval.high) == pytest.approx((0.0569, 0.3404), abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_outcomes_that_all_agree_do_not_make_a_difference_certain(rate):
    same = np.zeros((3, 10))
    same[:, : int(10 * rate)] = 1
    interval = paired_difference(same, same)
    assert interval.low < 0.0 == interval.value < interval.high


@quick
@given(OUTCOMES, st.integers(0, 2**32 - 1))
def test_paired_difference_turns_its_sign_with_the_arms(outcomes, seed):
    other = np.random.default_rng(seed).integers(0, 2, outcomes.shape)
    forward, backward = paired_difference(outcomes, other), paired_difference(other, outcomes)
    assert -1 <= forward.low <= forward.value <= forward.high <= 1
    assert (-backward.high, -backward.low) == pytest.approx((forward.low, forward.high))


def test_paired_difference_covers_the_true_one_where_runs_differ():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        base = rng.beta(8, 4, size=(3, 1))
        start = rng.random((3, 30))
        a, b = start < base + rng.normal(scale=0.05, size=(3, 1)) - 0.1, start < base
        interval = paired_difference(a, b)
        covered += interval.low <= -0.1 <= interval.high
    assert covered / 300 >= 0.92


@pytest.mark.parametrize(
    ("ends", "direction", "expected"),
    [
        ((0.06, 0.2), "higher", "holds"),
        ((0.05, 0.2), "higher", "undecided"),  # more than the margin is claimed
        ((-0.2, 0.05), "higher", "fails"),
        ((-0.04, 0.2), "not_lower", "holds"),
        ((-0.05, 0.2), "not_lower", "holds"),  # not more than the margin below
        ((-0.06, 0.2), "not_lower", "undecided"),
        ((-0.2, -0.06), "not_lower", "fails"),
        ((-0.2, -0.06), "lower", "holds"),
        ((-0.04, 0.1), "lower", "fails"),
        ((-0.2, 0.04), "not_higher", "holds"),
        ((0.06, 0.2), "not_higher", "fails"),
        ((-math.inf, math.inf), "not_lower", "undecided"),
    ],
)
def test_verdict_asks_the_whole_interval(ends, direction, expected):
    low, high = ends
    value = 0.0 if math.isinf(low) else (low + high) / 2
    assert verdict(Interval(value, low, high), margin=0.05, direction=direction) == expected


@quick
@given(NUMBERS, st.floats(0, 10), st.floats(0, 5))
def test_superiority_one_way_is_never_claimed_with_the_other(value, half, margin):
    interval = Interval(value, value - half, value + half)
    up = verdict(interval, margin=margin, direction="higher")
    down = verdict(interval, margin=margin, direction="lower")
    assert not (up == down == "holds")
    opposite = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    assert verdict(interval, margin=margin, direction="not_higher") == opposite[up]


def test_runs_to_decide_is_the_first_number_whose_interval_is_clear_of_the_threshold():
    # Mean 1, standard deviation 1.162: half widths t(n-1) 1.162/sqrt(n) are 1.22 at six runs, 1.07 at seven
    # and 0.97 at eight.
    three = Interval(1.0, 1.0 - 4.302653 * 1.162 / math.sqrt(3), 1.0 + 4.302653 * 1.162 / math.sqrt(3))
    assert verdict(three, margin=0, direction="higher") == "undecided"
    assert runs_to_decide(three, runs=3, margin=0, direction="higher") == 8


def test_runs_to_decide_is_the_present_number_where_it_is_decided():
    assert runs_to_decide(Interval(1.0, 0.5, 1.5), runs=3, margin=0, direction="higher") == 3


def test_no_number_of_runs_decides_a_mean_at_the_threshold_or_a_single_run():
    assert runs_to_decide(Interval(0.0, -1.0, 1.0), runs=3, margin=0, direction="higher") is None
    alone = Interval(1.0, -math.inf, math.inf)
    assert runs_to_decide(alone, runs=1, margin=0, direction="higher") is None


# ---- bad input ---------------------------------------------------------------------------------------


def test_a_score_that_is_not_finite_is_named_by_its_place():
    with pytest.raises(DataError, match="run 1, episode 2"):
        paired_difference(np.zeros((2, 3)), [[0, 0, 0], [0, 0, math.nan]])


@pytest.mark.parametrize("scores", [[], [[1.0]], 3.0])
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(ShapeError):
        mean_interval(scores)


def test_misuse_is_told_in_words():
    with pytest.raises(DataError, match="neither 0 nor 1"):
        success_interval([[0.5, 1.0]])
    with pytest.raises(DataError, match="full array"):
        success_interval([[0, 1], [1]])
    with pytest.raises(ShapeError, match="same runs and episodes"):
        paired_difference([[1, 0]], [[1]])
    with pytest.raises(SettingError, match="level"):
        success_interval([[1, 0]], level=95)
    with pytest.raises(SettingError, match="not_lower"):
        verdict(Interval(0, 0, 0), margin=0, direction="better")
    with pytest.raises(SettingError, match="margin"):
        verdict(Interval(0, 0, 0), margin=-0.1, direction="lower")
    with pytest.raises(SettingError, match="resamples"):
        stratified_bootstrap([[1.0]], np.mean, resamples=0, rng=0)

"""Ticks against their deadline, in numbers worked by hand."""

import math

import pytest

from policysmith.common.errors import SettingError
from policysmith.policies import ticks
from policysmith.policies.ticks import TickCounter


def test_a_tick_is_late_when_it_takes_longer_than_one_over_the_rate():
    counter = TickCounter(4.0)
    for seconds in (0.1, 0.25, 0.26, 1.0):
        counter.count(seconds)
    report = counter.report()
    assert (report.ticks, report.late, report.share_late) == (4, 2, 0.5)
    assert report.median_ms == pytest.approx(255)
    assert report.longest_ms == pytest.approx(1000)
    assert report.p99_ms == pytest.approx(260 + 0.97 * 740)
    assert "4 ticks at 4 Hz: 2 late (50.0%); median 255.00 ms" in str(report)


def test_before_the_first_tick_nothing_is_late_and_no_time_is_known():
    report = TickCounter(10).report()
    assert (report.ticks, report.late, report.share_late) == (0, 0, 0.0)
    assert math.isnan(report.median_ms)


def test_an_endless_loop_keeps_its_counts_and_forgets_old_times(monkeypatch):
    monkeypatch.setattr(ticks, "REMEMBERED", 3)
    counter = TickCounter(1.0)
    for seconds in (5.0, 0.1, 0.2, 0.3):
        counter.count(seconds)
    assert (counter.ticks, counter.late) == (4, 1)
    assert counter.report().longest_ms == pytest.approx(300)


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(SettingError, match="ticks per second"):
        TickCounter(rate)

"""Success by task: every task a row, every policy a colour."""

import pytest

from policysmith.common.errors import DataError
from policysmith.evaluation.drawing import svg
from policysmith.evaluation.statistics import Interval
from policysmith.evaluation.task_plots import success_by_task

RATES = {f"task-{i}": Interval(i / 10, max(0.0, i / 10 - 0.1), i / 10) for i in range(8)}


def bars(figure):
    return [patch.get_width() for patch in figure.axes[0].patches]


def test_one_policy_is_drawn_as_bars_from_zero_in_the_order_of_its_tasks():
    figure = success_by_task({"policy": RATES})
    assert bars(figure) == [rate.value for rate in RATES.values()]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(RATES)
    assert "task-7" in svg(figure)


def test_several_are_drawn_as_dots_side_by_side_with_a_legend():
    figure = success_by_task({"one": RATES, "two": dict(reversed(RATES.items()))})
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert not bars(figure)
    assert [list(line.get_xdata()) for line in dots] == [[rate.value for rate in RATES.values()]] * 2
    first, second = (line.get_ydata() for line in dots)
    assert all(0 < b - a < 0.5 for a, b in zip(first, second, strict=True))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_policies_measured_on_other_tasks_are_refused():
    with pytest.raises(DataError, match="'two'"):
        success_by_task({"one": RATES, "two": {"task-0": RATES["task-0"]}})

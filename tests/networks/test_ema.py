"""Averaged weights against hand numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from policysmith.common.errors import ShapeError
from policysmith.networks.ema import ExponentialAverage, every, power_decay, warm_decay


class Scalar(nn.Module):
    """One weight and one saved buffer, and one buffer that is not saved."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("table", torch.zeros(3), persistent=False)

    def set(self, value: float, count: int) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
        self.count.fill_(count)


def average_of(average: ExponentialAverage) -> tuple[float, int]:
    target = Scalar(-1.0)
    average.copy_to(target)
    return float(target.weight.detach()), int(target.count)


def test_the_average_moves_by_one_minus_decay():
    module = Scalar(1.0)
    average = ExponentialAverage(module, decay=lambda update: 0.75)
    assert average_of(average) == (1.0, 0)
    module.set(3.0, 1)
    average.update()
    assert average_of(average) == (1.5, 1)  # 0.75 * 1 + 0.25 * 3
    average.update()
    assert average_of(average) == (1.875, 1)  # 0.75 * 1.5 + 0.25 * 3
    assert average.updates == 2


def test_power_decay_starts_by_copying_and_ends_at_its_maximum():
    decay = power_decay(0.75, 0.9999)
    assert decay(0) == 0
    assert decay(15) == pytest.approx(1 - 1 / 8)  # 16^-0.75 = 1/8
    assert decay(255) == pytest.approx(1 - 1 / 64)
    assert decay(10**9) == 0.9999


def test_the_first_update_under_power_decay_is_the_weights_themselves():
    module = Scalar(1.0)
    average = ExponentialAverage(module, decay=power_decay())
    module.set(5.0, 0)
    average.update()
    assert average_of(average)[0] == 5.0


def test_warm_decay_starts_at_a_tenth_and_ends_at_its_maximum():
    decay = warm_decay(0.999)
    assert decay(0) == pytest.approx(0.1)
    assert decay(8) == pytest.approx(0.5)
    assert decay(10**6) == 0.999


def test_a_saved_average_goes_on_as_if_it_had_not_been_interrupted():
    module = Scalar(0.0)
    whole = ExponentialAverage(module, decay=warm_decay(0.9))
    for value in (1.0, 2.0):
        module.set(value, int(value))
        whole.update()
    resumed = ExponentialAverage(Scalar(7.0), decay=warm_decay(0.9))
    resumed.load_state_dict(whole.state_dict())
    assert average_of(resumed) == average_of(whole)
    assert resumed.updates == 2


def test_training_does_not_touch_the_average_nor_the_average_the_weights():
    module = nn.Linear(3, 2)
    average = ExponentialAverage(module, decay=lambda update: 0.5)
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1)
    average.update()
    torch.testing.assert_close(module.weight.detach(), before + 1)
    torch.testing.assert_close(average.state_dict()["average"]["weight"], before + 0.5)
    assert not any(value.requires_grad for value in average.state_dict()["average"].values())


def test_buffers_that_are_not_saved_are_left_alone():
    assert set(ExponentialAverage(Scalar(0.0), decay=warm_decay(1)).state_dict()["average"]) == {
        "weight",
        "count",
    }


def test_another_module_is_refused_naming_what_differs():
    average = ExponentialAverage(nn.Linear(3, 2), decay=warm_decay(0.9))
    with pytest.raises(ShapeError, match="weight"):
        average.copy_to(nn.Linear(4, 2))
    with pytest.raises(ShapeError, match="bias"):
        average.load_state_dict(
            ExponentialAverage(nn.Linear(3, 2, bias=False), decay=warm_decay(0.9)).state_dict()
        )


def test_an_average_taken_every_third_step_stands_still_in_between():
    module = nn.Linear(1, 1, bias=False)
    average = ExponentialAverage(module, decay=every(3, lambda update: 0.5))
    start = float(module.weight.detach())
    seen = []
    for _ in range(6):
        with torch.no_grad():
            module.weight.add_(1.0)
        average.update()
        seen.append(float(average.state_dict()["average"]["weight"]) - start)
    assert seen == pytest.approx([0, 0, 1.5, 1.5, 1.5, 3.75], abs=1e-5)

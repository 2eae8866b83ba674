"""Packing of transitions: which column is what, how it is scaled, and what is refused."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, ShapeError
from policysmith.networks.normalizers import Normalizer
from policysmith.synthesis.rows import SMALLEST_DEVIATION, Layout, fit_columns

LAYOUT = Layout(2, 1)


def transitions() -> dict[str, torch.Tensor]:
    return {
        "observation": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "action": torch.tensor([[5.0], [6.0]]),
        "reward": torch.tensor([7.0, 8.0]),
        "next_observation": torch.tensor([[9.0, 10.0], [11.0, 12.0]]),
        "terminated": torch.tensor([False, True]),
    }


def test_a_row_is_state_action_reward_next_state_and_end():
    rows = LAYOUT.pack(transitions())
    assert rows.tolist() == [[1, 2, 5, 7, 9, 10, 0], [3, 4, 6, 8, 11, 12, 1]]
    assert LAYOUT.size == 7
    assert LAYOUT.names == [
        "observation 0", "observation 1", "action 0", "reward", "next_observation 0", "next_observation 1",
        "terminated",
    ]  # fmt: skip


def test_what_was_packed_is_unpacked():
    again = LAYOUT.unpack(LAYOUT.pack(transitions()))
    for key, value in transitions().items():
        assert torch.equal(again[key], value)


def test_a_made_flag_counts_as_an_end_above_a_half():
    rows = torch.zeros(3, 7)
    rows[:, -1] = torch.tensor([0.5, 0.51, -1.0])
    assert LAYOUT.unpack(rows)["terminated"].tolist() == [False, True, False]


def test_without_the_flag_rows_are_narrower_and_nothing_ends():
    layout = Layout(2, 1, terminals=False)
    given = transitions() | {"terminated": torch.tensor([False, False])}
    assert layout.pack(given).shape == (2, 6)
    assert not bool(layout.unpack(layout.pack(given))["terminated"].any())


def test_normaliser_of_two_columns_is_the_papers():
    scaling = fit_columns(Normalizer(2), Two(), torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 2.0]]))
    assert scaling.offset.tolist() == pytest.approx([2, 2])
    assert scaling.scale.tolist() == pytest.approx([2.00001, 2.00001], abs=1e-7)


class Two(Layout):
    """Two nameless columns."""

    def __init__(self):
        super().__init__(1, 1)

    @property
    def widths(self):
        return {"observation": 1, "action": 1}


def test_the_flag_is_never_scaled_and_the_reward_is_where_it_is_asked_for():
    rows = LAYOUT.pack(transitions())
    scaling = fit_columns(Normalizer(7), LAYOUT, rows)
    assert torch.equal(scaling(rows)[:, -1], rows[:, -1])
    assert scaling(rows)[:, 3].tolist() == pytest.approx([-0.7071, 0.7071], abs=1e-3)
    raw = fit_columns(Normalizer(7), LAYOUT, rows, raw_reward=True)
    assert raw(rows)[:, 3].tolist() == [7, 8]


def test_by_range_columns_span_minus_one_to_one():
    rows = LAYOUT.pack(transitions())
    scaled = fit_columns(Normalizer(7), LAYOUT, rows, range_scaled=True)(rows)
    assert scaled[:, :-1].tolist() == [[-1.0] * 6, [1.0] * 6]


@pytest.mark.parametrize("range_scaled", [False, True])
def test_a_constant_column_is_named_and_whatever_is_made_in_it_is_its_value(range_scaled):
    given = transitions() | {"action": torch.tensor([[5.0], [5.0]])}
    rows = LAYOUT.pack(given)
    assert LAYOUT.constant(rows) == ["action 0"]
    scaling = fit_columns(Normalizer(7), LAYOUT, rows, range_scaled=range_scaled)
    assert float(scaling.scale[2]) == pytest.approx(SMALLEST_DEVIATION)
    assert float(scaling.inverse(torch.full((1, 7), 3.0))[0, 2]) == pytest.approx(5.0, abs=1e-4)


def test_a_flag_that_never_varies_is_not_reported():
    rows = LAYOUT.pack(transitions() | {"terminated": torch.tensor([False, False])})
    assert LAYOUT.constant(rows) == []


def test_a_value_that_is_not_finite_is_named_by_its_column():
    bad = transitions()
    bad["next_observation"][1, 0] = torch.nan
    with pytest.raises(DataError, match="next_observation 0") as caught:
        LAYOUT.pack(bad)
    assert "transition 1" in str(caught.value)


def test_a_missing_flag_is_named_with_the_width_that_was_expected():
    given = transitions()
    del given["terminated"]
    with pytest.raises(DataError, match="terminated") as caught:
        LAYOUT.pack(given)
    assert "7 numbers" in str(caught.value)
    assert "terminals=False" in str(caught.value)


def test_rows_without_the_flag_do_not_unpack_where_it_is_modelled():
    with pytest.raises(ShapeError, match=r"7") as caught:
        LAYOUT.unpack(torch.zeros(2, 6))
    assert "'terminated' is one of the columns" in str(caught.value)
    with pytest.raises(ShapeError, match="none of the columns"):
        Layout(2, 1, terminals=False).unpack(torch.zeros(2, 7))


def test_ends_that_are_not_modelled_are_not_dropped_in_silence():
    with pytest.raises(DataError, match="1 transitions end the task"):
        Layout(2, 1, terminals=False).pack(transitions())


def test_discrete_actions_are_refused():
    with pytest.raises(DataError, match="discrete") as caught:
        Layout.of(transitions() | {"action": torch.tensor([[0], [1]])})
    assert "one-hot" in str(caught.value)


def test_observations_with_parts_are_refused():
    parts = TensorDict({"state": torch.zeros(2, 3), "camera": torch.zeros(2, 4, 4, 3)}, batch_size=[2])
    with pytest.raises(DataError, match="parts") as caught:
        Layout.of(transitions() | {"observation": parts})
    assert "camera" in str(caught.value)


def test_bare_pictures_are_refused():
    with pytest.raises(ShapeError, match="observation"):
        Layout.of(transitions() | {"observation": torch.zeros(2, 4, 4)})

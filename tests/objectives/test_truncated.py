"""Advantages of windows that were cut, against numbers worked by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError
from policysmith.objectives.advantages import generalised_advantage
from policysmith.objectives.truncated import extended_advantage, length_adaptive_lam, without_tail

VALUES = torch.tensor([[0.2, 0.5, 0.4, 0.7]])
NOTHING, AT_END = torch.zeros(1, 4), torch.tensor([[0.0, 0, 0, 1]])
ALL = torch.ones(1, 4, dtype=torch.bool)
CUT, DONE = torch.tensor([True]), torch.tensor([False])


def test_a_cut_window_goes_on_at_the_value_of_its_last_token():
    got = extended_advantage(NOTHING, VALUES, CUT, ALL, discount=1.0, lam=0.9)
    assert got[0].tolist() == pytest.approx([0.453, 0.170, 0.300, 0.0], abs=1e-6)


def test_a_finished_answer_has_its_reward_and_nothing_behind_it():
    got = extended_advantage(AT_END, VALUES, DONE, ALL, discount=1.0, lam=0.9)
    assert got[0].tolist() == pytest.approx([0.6717, 0.413, 0.57, 0.3])


def test_with_a_discount_the_last_delta_of_a_cut_is_what_waiting_costs():
    got = extended_advantage(NOTHING, VALUES, CUT, ALL, discount=0.9, lam=0.5)
    assert float(got[0, 3]) == pytest.approx((0.9 - 1) * 0.7)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_where_nothing_is_cut_it_is_generalised_advantage_estimation(seed, discount, lam):
    rng = torch.Generator().manual_seed(seed)
    reward, value = torch.randn(3, 5, generator=rng), torch.randn(3, 5, generator=rng)
    mask = torch.rand(3, 5, generator=rng) < 0.8
    done = torch.zeros(3, dtype=torch.bool)
    plain = generalised_advantage(reward, value, torch.zeros(3), mask, discount=discount, lam=lam)
    assert torch.equal(extended_advantage(reward, value, done, mask, discount=discount, lam=lam), plain)


def test_what_lies_before_the_window_does_not_enter():
    window = torch.tensor([[False, False, True, True]])
    wild = VALUES.clone()
    wild[0, :2] = 99.0
    got = extended_advantage(NOTHING, wild, CUT, window, discount=1.0, lam=0.9)
    assert got[0].tolist() == pytest.approx([0, 0, 0.3, 0], abs=1e-6)


def test_advantages_carry_no_gradient():
    value = VALUES.clone().requires_grad_()
    assert not extended_advantage(NOTHING, value, CUT, ALL, discount=1.0, lam=0.9).requires_grad


def test_the_tail_of_a_cut_window_is_left_out_and_that_of_a_finished_answer_is_not():
    advantage = extended_advantage(NOTHING, VALUES, CUT, ALL, discount=1.0, lam=0.9)
    kept = without_tail(ALL, CUT, count=2)
    assert torch.where(kept, advantage, 0.0)[0].tolist() == pytest.approx([0.453, 0.170, 0, 0], abs=1e-6)
    assert without_tail(ALL, DONE, count=2).all()


def test_a_tail_of_nothing_leaves_everything():
    assert without_tail(ALL, CUT, count=0).all()


def test_the_tail_is_counted_in_tokens_of_the_window():
    mask = torch.tensor([[True, True, False, True, False]])
    assert without_tail(mask, CUT, count=2).tolist() == [[True, False, False, False, False]]


def test_longer_answers_are_felt_further_back():
    lengths = torch.tensor([500, 300, 400, 500, 1])
    cut = torch.tensor([False, False, False, True, False])
    got = length_adaptive_lam(lengths, cut, window=1000)
    assert got.tolist() == pytest.approx([0.96, 0.95, 0.95, 0.98, 0.95])


def test_a_reward_before_the_end_is_refused_with_its_row():
    with pytest.raises(DataError, match="has not ended") as caught:
        extended_advantage(AT_END, VALUES, CUT, ALL, discount=1.0, lam=0.9)
    assert caught.value.where == "row 0"


@pytest.mark.parametrize("wrong", [{"discount": 1.1, "lam": 1.0}, {"discount": 1.0, "lam": -0.1}])
def test_discounts_outside_zero_and_one_are_refused(wrong):
    with pytest.raises(SettingError, match="0 to 1"):
        extended_advantage(NOTHING, VALUES, CUT, ALL, **wrong)


def test_tails_and_lambdas_out_of_range_are_refused():
    with pytest.raises(SettingError, match="0 or more"):
        without_tail(ALL, CUT, count=-1)
    for wrong in ({"floor": 1.2}, {"scalar": 0.0}, {"window": 0}):
        with pytest.raises(SettingError, match="floor"):
            length_adaptive_lam(torch.tensor([3]), CUT, **{"window": 4, **wrong})

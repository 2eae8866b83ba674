"""Critics' targets and losses against numbers worked by hand, their minimisers, limits and gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError
from policysmith.objectives.values import (
    advantage_weight,
    advantage_weighted_loss,
    clipped_double_q,
    conservative_penalty,
    double_q,
    expectile_loss,
    huber_loss,
    improvement_scale,
    quantile_huber_loss,
    quantile_loss,
    relative_advantage_weight,
    smoothed_action,
    soft_value,
    td_target,
)


def row(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def minimiser(loss, targets, *, size=1, steps=800):
    """What `size` numbers come to that gradient descent fits to all `targets` by `loss(prediction)`."""
    at = torch.full((size,), float(targets.mean()), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([at], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.001, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(at).mean().backward()
        optimizer.step()
        schedule.step()
    return at.detach()


def test_the_target_and_loss_of_a_critic_ensemble_by_hand():
    target_q = torch.stack([row(1, 2), row(0.5, 3), row(2, 1)])
    least = clipped_double_q(target_q, torch.tensor([0, 2]))
    y = td_target(row(0, 1), least, terminated=torch.tensor([False, True]), discount=0.96)
    assert y.tolist() == pytest.approx([0.96, 1.0])
    q = torch.stack([row(0.9, 0.8), row(1.1, 1.2), row(0.7, 1.0)])
    assert float((q - y).square().mean()) == pytest.approx(0.028467, abs=1e-6)


def test_all_members_are_asked_where_none_are_named_and_the_same_one_may_be_asked_twice():
    q = torch.stack([row(1, 2), row(0.5, 3)])
    assert clipped_double_q(q).tolist() == [0.5, 2]
    assert clipped_double_q(q, torch.tensor([0, 0])).tolist() == [1, 2]


def test_a_target_carries_no_gradient_and_does_not_read_behind_an_end():
    y = td_target(
        row(1, 2), row(math.nan, 3, grad=True), terminated=torch.tensor([True, False]), discount=0.5
    )
    assert y.tolist() == [1, 3.5]
    assert not y.requires_grad


def test_rows_may_have_discounts_of_their_own_and_several_objectives():
    y = td_target(
        torch.zeros(2, 3), torch.ones(2, 3), terminated=torch.tensor([False, False]),
        discount=torch.tensor([0.5, 0.25]),
    )  # fmt: skip
    assert y.tolist() == [[0.5] * 3, [0.25] * 3]


def test_the_network_chooses_and_its_target_judges():
    q, target_q = torch.tensor([[1.0, 2.0], [5.0, 4.0]]), torch.tensor([[9.0, 3.0], [7.0, 8.0]])
    assert double_q(q, target_q).tolist() == [3, 7]
    assert double_q(target_q, target_q).tolist() == target_q.amax(1).tolist()


def test_smoothing_noise_is_clipped_and_the_action_stays_in_its_box():
    got = smoothed_action(
        torch.tensor([[0.0, 0.9], [-1.9, 0.0]]), torch.tensor([[0.8, 0.8], [-0.3, -0.1]]),
        clip=torch.tensor([0.5, 0.25]), low=torch.tensor([-2.0, -1.0]), high=torch.tensor([2.0, 1.0]),
    )  # fmt: skip
    torch.testing.assert_close(got, torch.tensor([[0.5, 1.0], [-2.0, -0.1]]))


def test_being_random_is_paid_for_at_the_temperature():
    assert soft_value(row(1, 1), row(-2, 0.5), temperature=0.1).tolist() == pytest.approx([1.2, 0.95])


def test_an_expectile_of_a_half_is_half_the_squared_error_and_a_high_one_weighs_too_low_more():
    error = row(-2, 1)
    assert expectile_loss(error, expectile=0.5).tolist() == [2, 0.5]
    assert expectile_loss(error, expectile=0.9).tolist() == pytest.approx([0.4, 0.9])


def test_expectiles_lie_between_the_mean_and_the_maximum():
    targets = row(0, 1, 5)
    found = [
        float(minimiser(lambda v, t=tau: expectile_loss(targets - v, expectile=t), targets))
        for tau in (0.5, 0.9, 0.999)
    ]
    # (1 - tau) (2 e - 1) = tau (5 - e) once e is above 1: e = (5 tau + 1 - tau) / (2 - tau)
    assert found == pytest.approx([2, (4.5 + 0.1) / 1.1, (4.995 + 0.001) / 1.001], abs=0.02)


def test_the_quantile_loss_finds_the_quantile():
    targets = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert quantile_loss(row(-2, 1), quantile=0.9).tolist() == pytest.approx([0.2, 0.9])
    found = minimiser(lambda v: quantile_loss(targets - v, quantile=0.8), targets)
    assert float(found) == pytest.approx(0.8, abs=0.02)


def test_the_huber_loss_is_a_square_within_and_a_line_beyond():
    assert huber_loss(row(-0.5, 0.5, 1, -3)).tolist() == [0.125, 0.125, 0.5, 2.5]
    assert huber_loss(row(3), threshold=2).tolist() == [4]
    error = torch.linspace(-3, 3, 25, dtype=torch.float64)
    torch.testing.assert_close(
        huber_loss(error, threshold=1.5),
        torch.nn.functional.huber_loss(error, 0 * error, delta=1.5, reduction="none"),
    )


def test_the_quantile_huber_loss_by_hand():
    got = quantile_huber_loss(row(0, 1)[None], row(2, 0.5)[None])
    # quantiles 1/4 and 3/4; errors of the first 2 and 0.5, of the second 1 and -0.5
    first = 0.25 * (1.5 + 0.125) / 2
    second = (0.75 * 0.5 + 0.25 * 0.125) / 2
    assert got.tolist() == pytest.approx([first + second])


def test_quantile_predictions_find_the_quantiles_of_the_targets_and_move_nothing_else():
    targets = torch.linspace(0, 1, 201, dtype=torch.float64)
    found = minimiser(lambda v: quantile_huber_loss(v[None], targets[None], threshold=1e-3), targets, size=4)
    assert found.tolist() == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8], abs=0.01)
    moved = row(1, 2, grad=True)
    quantile_huber_loss(row(0, 0, grad=True)[None], moved[None]).sum().backward()
    assert moved.grad is None


def test_the_penalty_of_a_flat_critic_is_the_logarithm_of_the_actions_volume():
    volume = 2.0**3
    q, density = torch.full((2, 5, 4), 7.0), torch.full((5, 4), -math.log(volume))
    torch.testing.assert_close(
        conservative_penalty(q, density, torch.full((2, 5), 7.0)), torch.full((2, 5), math.log(volume))
    )


def test_the_penalty_estimates_the_integral_whatever_density_the_samples_have():
    rng = torch.Generator().manual_seed(0)
    draws = torch.randn(1, 200_000, generator=rng, dtype=torch.float64)
    q = lambda action: -0.5 * (action - 0.3).square() / 0.8**2  # noqa: E731
    log_density = -0.5 * draws.square() - 0.5 * math.log(2 * math.pi)
    got = conservative_penalty(q(draws), log_density, row(0))
    assert float(got) == pytest.approx(math.log(0.8 * math.sqrt(2 * math.pi)), abs=0.01)


def test_the_penalty_pushes_down_what_is_high_and_up_what_is_in_the_data():
    q, data_q = row(0, 2, grad=True), row(1, grad=True)
    conservative_penalty(q[None], torch.zeros(1, 2, dtype=torch.float64), data_q).sum().backward()
    assert q.grad.tolist() == pytest.approx(torch.softmax(row(0, 2), 0).tolist())
    assert data_q.grad.tolist() == [-1]


def test_advantage_weighted_regression_by_hand():
    q = clipped_double_q(torch.stack([row(1, 2), row(1.2, 1.9)]))
    weight = advantage_weight(q - row(0.9, 1.5), beta=row(8, 10), cap=100)
    assert weight.tolist() == pytest.approx([2.22554093, 54.59815003], abs=1e-7)
    loss = advantage_weighted_loss(row(-1, -2), weight)
    assert float(loss.mean()) == pytest.approx(55.71092050, abs=1e-7)


def test_weights_are_capped_stay_finite_and_carry_no_gradient():
    weight = advantage_weight(row(1e6, -1e6, 1, grad=True), beta=3.0, cap=100)
    assert weight.tolist() == pytest.approx([100, 0, math.exp(3)])
    assert not weight.requires_grad
    log_prob, weight = row(-1, -2, grad=True), row(3, 0.5, grad=True)
    advantage_weighted_loss(log_prob, weight).sum().backward()
    assert log_prob.grad.tolist() == [-3, -0.5]
    assert weight.grad is None


def test_with_beta_zero_all_actions_are_imitated_alike():
    assert advantage_weight(row(-5, 0, 5), beta=0.0).tolist() == [1, 1, 1]


def test_relative_weights_average_one_and_are_the_plain_ones_up_to_a_factor():
    advantage = row(-1, 0.5, 2, 2, grad=True)
    weight = relative_advantage_weight(advantage, temperature=2.0)
    assert float(weight.mean()) == pytest.approx(1)
    plain = advantage_weight(advantage, beta=0.5)
    torch.testing.assert_close(weight / weight[0], plain / plain[0])
    assert not weight.requires_grad


def test_the_scale_of_improvement_makes_the_mean_size_of_q_alpha():
    q = row(-1, 3, grad=True)
    scale = improvement_scale(q, alpha=2.5)
    assert float(scale) == pytest.approx(1.25)
    assert float((scale * q.detach()).abs().mean()) == pytest.approx(2.5)
    assert not scale.requires_grad


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.floats(0.1, 2))
def test_better_actions_never_count_less(advantages, beta):
    advantage = torch.tensor(advantages).sort().values
    weight = advantage_weight(advantage, beta=beta, cap=20)
    assert (weight.diff() >= 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: expectile_loss(row(1), expectile=1.0),
        lambda: quantile_loss(row(1), quantile=0.0),
        lambda: huber_loss(row(1), threshold=0.0),
        lambda: advantage_weight(row(1), beta=1.0, cap=0.0),
        lambda: relative_advantage_weight(row(1), temperature=0.0),
    ],
)
def test_levels_thresholds_and_caps_out_of_range_are_refused(call):
    with pytest.raises(SettingError, match="above 0"):
        call()

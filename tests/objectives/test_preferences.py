"""Losses on pairs: worked numbers, what flips do to them on average, and what gets no gradient."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.preferences import (
    dpo_loss,
    implicit_reward,
    ipo_loss,
    log_ratio,
    pair_margin,
    robust_loss,
    slic_loss,
    smoothed_loss,
    soft_preference_loss,
    split_by_gap,
)

MARGINS = torch.tensor([2.0, -1.0, 0.0, 30.0], dtype=torch.double)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.double)


# ---- margins -----------------------------------------------------------------------------------------


def test_the_loss_of_two_pairs_worked_by_hand():
    margin = pair_margin(values(-10, -8), values(-12, -7), values(-11, -8.5), values(-11.5, -8))
    assert_close(margin, values(1.5, -0.5))
    loss = dpo_loss(margin, beta=0.1)
    assert_close(loss, values(0.620957, 0.718460), atol=1e-6, rtol=0)
    assert loss.mean().item() == pytest.approx(0.669708, abs=1e-6)


def test_a_policy_that_is_its_reference_cannot_tell_the_sides_apart():
    margin = pair_margin(values(-12), values(-9), values(-12), values(-9))
    assert dpo_loss(margin, beta=0.1).item() == pytest.approx(math.log(2))


def test_the_reference_gets_no_gradient():
    sides = [values(-2).requires_grad_(), values(-3).requires_grad_()]
    references = [values(-1).requires_grad_(), values(-4).requires_grad_()]
    dpo_loss(pair_margin(*sides, *references), beta=0.5).sum().backward()
    implicit_reward(sides[0], references[0], beta=0.5).sum().backward()
    assert all(side.grad is not None for side in sides)
    assert all(reference.grad is None for reference in references)


def test_the_implied_reward_is_beta_times_the_log_ratio():
    assert implicit_reward(values(-2), values(-1), beta=0.5).item() == -0.5


def test_a_margin_that_is_not_finite_is_an_error_that_names_its_rows():
    broken = values(-1, math.nan, -2, -math.inf)
    with pytest.raises(DataError, match="rows 1, 3"):
        pair_margin(broken, values(-1, -1, -1, -1), values(-1, -1, -1, -1), values(-1, -1, -1, -1))
    with pytest.raises(DataError, match="row 1\n"):
        log_ratio(torch.tensor([[0.0, 1.0], [math.inf, 1.0]]), torch.zeros(2, 2))


def test_log_probabilities_of_tokens_do_not_go_with_sums_of_the_reference():
    with pytest.raises(ShapeError, match="one sum over its tokens"):
        log_ratio(torch.zeros(2, 5), torch.zeros(2))


# ---- losses ------------------------------------------------------------------------------------------


def test_the_three_losses_at_a_tenth():
    assert_close(
        dpo_loss(MARGINS, beta=0.1), values(0.598139, 0.744397, 0.693147, 0.048587), atol=1e-6, rtol=0
    )
    assert_close(slic_loss(MARGINS, beta=0.1), values(0.8, 1.1, 1.0, 0.0))
    assert_close(ipo_loss(MARGINS, beta=0.1), values(9.0, 36.0, 25.0, 625.0))


@pytest.mark.parametrize(
    ("loss", "gradient"),
    [
        (dpo_loss, lambda h, beta: -beta * torch.sigmoid(-beta * h)),
        (slic_loss, lambda h, beta: -beta * (h < 1 / beta).double()),
        (ipo_loss, lambda h, beta: 2 * (h - 1 / (2 * beta))),
        (
            partial(smoothed_loss, dpo_loss, rate=0.2),
            lambda h, beta: -beta * (torch.sigmoid(-beta * h) - 0.2),
        ),
        (
            partial(robust_loss, dpo_loss, rate=0.2),
            lambda h, beta: -beta * (torch.sigmoid(-beta * h) + 0.2 / 0.6),
        ),
    ],
)
def test_the_pull_of_each_loss_on_the_margin(loss, gradient):
    margin = MARGINS.clone().requires_grad_()
    loss(margin, beta=0.3).sum().backward()
    assert_close(margin.grad, gradient(MARGINS, 0.3))


def test_both_sides_are_pulled_alike():
    chosen, rejected = values(20).requires_grad_(), values(0).requires_grad_()
    loss = dpo_loss(pair_margin(chosen, rejected, values(0), values(0)), beta=0.1).sum()
    up, down = torch.autograd.grad(loss, [chosen, rejected])
    assert up.item() == pytest.approx(-0.1 / (1 + math.exp(2)))
    assert down.item() == -up.item()


def test_a_pair_the_wrong_way_round_costs_about_its_margin():
    assert dpo_loss(values(-1000), beta=1.0).item() == pytest.approx(1000)


@pytest.mark.parametrize("loss", [dpo_loss, slic_loss, ipo_loss])
@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan])
def test_a_divergence_has_to_count(loss, beta):
    with pytest.raises(SettingError, match="beta"):
        loss(MARGINS, beta=beta)


def test_losses_take_margins_of_any_shape():
    assert_close(dpo_loss(MARGINS.view(2, 2), beta=0.1), dpo_loss(MARGINS, beta=0.1).view(2, 2))


# ---- flipped labels ----------------------------------------------------------------------------------


def test_robust_and_smoothed_losses_worked_by_hand():
    robust = robust_loss(dpo_loss, MARGINS, beta=0.1, rate=0.1)
    assert_close(robust, values(0.573139, 0.756897, 0.693147, -0.326413), atol=1e-6, rtol=0)
    assert robust.mean().item() == pytest.approx(0.424193, abs=1e-6)
    smoothed = smoothed_loss(dpo_loss, MARGINS, beta=0.1, rate=0.1)
    assert_close(smoothed, values(0.618139, 0.734397, 0.693147, 0.348587), atol=1e-6, rtol=0)


def test_the_pull_of_the_robust_loss_worked_by_hand():
    margin = MARGINS.clone().requires_grad_()
    robust_loss(dpo_loss, margin, beta=0.1, rate=0.1).sum().backward()
    assert_close(margin.grad, values(-0.057517, -0.064998, -0.0625, -0.017243), atol=1e-6, rtol=0)


def test_over_the_flips_the_robust_loss_is_the_clean_one_on_average():
    kept, flipped = robust_loss(dpo_loss, values(3, -3), beta=0.5, rate=0.3).tolist()
    assert (kept, flipped) == (pytest.approx(-0.923587, abs=1e-6), pytest.approx(2.826413, abs=1e-6))
    assert 0.7 * kept + 0.3 * flipped == pytest.approx(-math.log(1 / (1 + math.exp(-1.5))))


@pytest.mark.parametrize("base", [dpo_loss, slic_loss, ipo_loss])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.45])
def test_the_correction_is_unbiased_for_every_base_in_value_and_gradient(base, rate):
    margin = MARGINS.clone().requires_grad_()
    expected = (1 - rate) * robust_loss(base, margin, beta=0.2, rate=rate)
    expected = expected + rate * robust_loss(base, -margin, beta=0.2, rate=rate)
    clean = base(margin, beta=0.2)
    assert_close(expected, clean)
    assert_close(torch.autograd.grad(expected.sum(), margin), torch.autograd.grad(clean.sum(), margin))


def test_smoothing_pulls_back_beyond_the_share_it_believes_in():
    believed = math.log(0.9 / 0.1) / 0.1
    margin = values(believed - 1, believed, believed + 1).requires_grad_()
    smoothed_loss(dpo_loss, margin, beta=0.1, rate=0.1).sum().backward()
    below, at, above = margin.grad.tolist()
    assert below < 0 < above
    assert at == pytest.approx(0, abs=1e-12)


def test_the_robust_loss_falls_without_end():
    far = robust_loss(dpo_loss, values(1e3, 1e6), beta=0.1, rate=0.2)
    assert_close(far, values(-1e2, -1e5) * 0.2 / 0.6)


@pytest.mark.parametrize("wrapper", [robust_loss, smoothed_loss])
@pytest.mark.parametrize("rate", [-0.1, 0.5, 0.7, math.nan])
def test_a_share_of_flips_is_below_one_half(wrapper, rate):
    with pytest.raises(SettingError, match=r"flip rate must be in \[0, 0.5\); got"):
        wrapper(dpo_loss, MARGINS, beta=0.1, rate=rate)


# ---- soft labels -------------------------------------------------------------------------------------


def test_the_soft_loss_worked_by_hand():
    # The rewards of a pair are 0.2 apart, its policy is already tilted by them, and the reference is not.
    target = torch.sigmoid(values(0.2))
    assert soft_preference_loss(values(0.4), target, beta=0.5).item() == pytest.approx(0.688172, abs=1e-6)
    assert soft_preference_loss(values(0), target, beta=0.5).item() == pytest.approx(0.693147, abs=1e-6)


def test_the_soft_loss_is_least_where_the_policy_says_what_the_target_says():
    target = values(0.05, 0.5, 0.8)
    margin = (torch.logit(target) / 0.3).requires_grad_()
    soft_preference_loss(margin, target, beta=0.3).sum().backward()
    assert_close(margin.grad, torch.zeros(3, dtype=torch.double))


def test_the_target_gets_no_gradient():
    target = values(0.7).requires_grad_()
    margin = values(1).requires_grad_()
    soft_preference_loss(margin, target, beta=0.3).sum().backward()
    assert target.grad is None


def test_a_target_is_a_probability():
    with pytest.raises(DataError, match="pair 1"):
        soft_preference_loss(values(0, 0), values(0.5, 1.5), beta=0.1)
    with pytest.raises(DataError, match="pair 0"):
        soft_preference_loss(values(0, 0), values(math.nan, 0.5), beta=0.1)


# ---- which pairs -------------------------------------------------------------------------------------

CHOSEN, REJECTED = values(1.0, 0.4, -0.3), values(-0.5, 0.1, 1.2)


def parts(*args, **settings) -> tuple[list[int], list[int]]:
    easy, difficult = split_by_gap(*args, **settings)
    return easy.tolist(), difficult.tolist()


def test_pairs_are_split_by_how_far_their_scores_are_apart():
    assert parts(CHOSEN, REJECTED, threshold=1.0) == ([0, 2], [1])


def test_a_quantile_splits_whatever_the_units_of_the_reward():
    assert parts(CHOSEN, REJECTED, quantile=0.4) == ([0, 2], [1])
    assert parts(100 * CHOSEN, 100 * REJECTED, quantile=0.4) == ([0, 2], [1])


def test_a_gap_equal_to_the_threshold_is_difficult():
    assert parts(values(2, 3), values(1, 1), threshold=1.0) == ([1], [0])


def test_a_pair_that_contradicts_its_label_can_be_left_out():
    assert parts(CHOSEN, REJECTED, threshold=1.0, drop_contradicted=True) == ([0], [1])


@pytest.mark.parametrize("threshold", [0.1, 2.0])
def test_an_empty_part_is_an_error_that_says_how_the_gaps_lie(threshold):
    with pytest.raises(DataError, match=r"0: 0.3, 0.25: 0.9, 0.5: 1.5, 0.75: 1.5, 1: 1.5"):
        split_by_gap(CHOSEN, REJECTED, threshold=threshold)


@pytest.mark.parametrize(
    "settings",
    [{}, {"threshold": 1.0, "quantile": 0.5}, {"threshold": 0.0}, {"threshold": -1.0}, {"quantile": 1.5}],
)
def test_a_split_needs_one_sensible_threshold(settings):
    with pytest.raises(SettingError):
        split_by_gap(CHOSEN, REJECTED, **settings)


def test_a_score_that_is_missing_is_named():
    with pytest.raises(DataError, match="row 1"):
        split_by_gap(values(1, math.nan), values(0, 0), threshold=0.5)
    with pytest.raises(ShapeError):
        split_by_gap(values(1, 2), values(0), threshold=0.5)
    with pytest.raises(DataError, match="no pairs"):
        split_by_gap(values(), values(), quantile=0.5)

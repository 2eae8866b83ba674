"""Metrics of demonstrations: hand numbers, what leaves them alone, what they are worth at the limits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.objectives.data_quality import (
    ball_neighbourhood,
    check_samples,
    curation_score,
    default_radius,
    group_weights,
    nearest_neighbourhood,
    squared_deviation,
    standard_scale,
    state_similarity,
    transition_spread,
)

STATE = torch.tensor([0.0, 0.15, 0.3, 0.45, 2.0])[:, None]
ACTION = torch.tensor([1.0, 2.0, -1.0, 0.5, 3.0])[:, None]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def random_samples(count, seed, width=3):
    return (
        torch.rand(count, width, generator=rng(seed)),
        torch.randn(count, 2, generator=rng(seed + 1)) + 5,
    )


def test_the_metrics_of_five_samples_by_hand():
    found = ball_neighbourhood(STATE, ACTION, radius=0.2)
    assert found.size.tolist() == [2, 3, 3, 2, 1]
    assert squared_deviation(ACTION, found).mean().item() == pytest.approx(0.968056, abs=1e-6)
    assert found.variance.mean().item() == pytest.approx(0.773611, abs=1e-6)
    assert state_similarity(found, 5).mean().item() == pytest.approx(0.44)


@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_the_cut_into_blocks_changes_nothing(chunk):
    state, action = random_samples(40, seed=0)
    for near, how in ((ball_neighbourhood, {"radius": 0.4}), (nearest_neighbourhood, {"count": 5})):
        whole, cut = near(state, action, **how), near(state, action, **how, chunk=chunk)
        assert torch.equal(whole.size, cut.size)
        torch.testing.assert_close(whole.mean, cut.mean)
        torch.testing.assert_close(whole.variance, cut.variance)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 25), st.integers(0, 1000), st.floats(0.05, 1.0))
def test_the_ball_is_what_its_definition_says(count, seed, radius):
    state, action = random_samples(count, seed)
    found = ball_neighbourhood(state, action, radius=radius)
    for i in range(count):
        inside = (state.double() - state[i].double()).norm(dim=1) <= radius
        ball = action[inside].double()
        assert int(found.size[i]) == len(ball)
        torch.testing.assert_close(found.mean[i], ball.mean(0))
        torch.testing.assert_close(found.variance[i], ball.var(0, correction=0), atol=1e-9, rtol=1e-6)


def test_where_being_near_is_transitive_both_variances_agree():
    state = torch.tensor([0.0, 0.0, 0.0, 9.0, 9.0])[:, None]
    found = ball_neighbourhood(state, ACTION, radius=1.0)
    torch.testing.assert_close(squared_deviation(ACTION, found).mean(), found.variance.mean())


def test_a_ball_around_everything_gives_the_variance_of_all_actions():
    state, action = random_samples(30, seed=3)
    found = ball_neighbourhood(state, action, radius=100.0)
    torch.testing.assert_close(squared_deviation(action, found).mean(0), action.double().var(0, correction=0))
    assert state_similarity(found, 30).tolist() == [1.0] * 30


@pytest.mark.parametrize("radius", [0.01, 0.0, -1.0])
def test_balls_of_single_samples_have_no_variance(radius):
    found = ball_neighbourhood(STATE, ACTION, radius=radius)
    assert found.size.tolist() == [1] * 5
    assert not bool(squared_deviation(ACTION, found).any())


def test_shifting_states_or_actions_far_away_changes_nothing():
    state, action = random_samples(30, seed=4)
    state, action = state.double(), action.double()
    near = ball_neighbourhood(state, action, radius=0.4)
    far = ball_neighbourhood(state + 1e4, action + 1e4, radius=0.4)
    assert torch.equal(near.size, far.size)
    torch.testing.assert_close(near.variance, far.variance, atol=1e-8, rtol=1e-6)


def test_with_groups_only_the_others_are_neighbours():
    group = torch.tensor([0, 0, 1, 1, 2])
    found = ball_neighbourhood(STATE, ACTION, radius=0.2, group_id=group)
    assert found.size.tolist() == [0, 1, 1, 0, 0]
    assert found.mean[1].item() == -1.0
    assert found.mean[2].item() == 2.0
    assert bool(found.mean[[0, 3, 4]].isnan().all())


def test_only_the_rows_asked_for_are_answered():
    rows = torch.tensor([3, 1])
    assert ball_neighbourhood(STATE, ACTION, radius=0.2, rows=rows).size.tolist() == [2, 3]
    nearest = nearest_neighbourhood(STATE, ACTION, count=2, rows=rows)
    # 0.45 with 0.3; 0.15 with 0 or 0.3, which are equally near.
    assert nearest.mean[0].item() == pytest.approx(-0.25)


def test_nearest_neighbours_by_hand():
    found = nearest_neighbourhood(STATE, ACTION, count=3)
    assert found.size.tolist() == [3] * 5
    assert found.mean[4].item() == pytest.approx((3.0 + 0.5 - 1.0) / 3)
    assert found.mean[0].item() == pytest.approx((1.0 + 2.0 - 1.0) / 3)
    few = nearest_neighbourhood(STATE, ACTION, count=4, group_id=torch.tensor([0, 0, 0, 0, 1]))
    assert few.size.tolist() == [1, 1, 1, 1, 4]


def test_as_many_neighbours_as_samples_is_the_ball_around_everything():
    state, action = random_samples(20, seed=5)
    nearest = nearest_neighbourhood(state, action, count=20)
    ball = ball_neighbourhood(state, action, radius=100.0)
    torch.testing.assert_close(nearest.variance, ball.variance)


def test_noise_in_actions_is_what_action_variance_measures():
    """Many samples at each of few states: the variance of the noise, and the mean does not matter."""
    state = torch.arange(20.0).repeat_interleave(200)[:, None]
    action = state.sin() + 0.3 * torch.randn(4000, 1, generator=rng())
    found = ball_neighbourhood(state, action, radius=0.5)
    assert squared_deviation(action, found).mean().item() == pytest.approx(0.09, rel=0.05)


def test_states_are_scaled_by_the_population_deviation_and_constants_stay():
    state = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    mean, deviation = standard_scale(state)
    assert mean.tolist() == [2.0, 5.0]
    assert deviation.tolist() == [1.0, 1.0]
    assert standard_scale(torch.tensor([[0.0], [4.0]]))[1].tolist() == [2.0]


def test_the_default_radius_is_a_quantile_of_the_distances():
    state = torch.rand(400, 2, generator=rng())
    radius = default_radius(state, rng=rng())
    assert (torch.pdist(state) <= radius).float().mean().item() == pytest.approx(0.05, abs=0.002)
    assert default_radius(3 * state, rng=rng()) == pytest.approx(3 * radius, rel=1e-6)


def test_states_that_are_all_equal_have_no_radius():
    with pytest.raises(DataError, match="cannot choose eps"):
        default_radius(torch.ones(10, 2), rng=rng())


def test_unequal_lengths_are_named():
    with pytest.raises(ShapeError, match=r"\[5, 1\].*\[4, 1\]"):
        ball_neighbourhood(STATE, ACTION[:4], radius=0.2)


def test_the_first_value_that_is_not_finite_is_named():
    state = STATE.clone()
    state[3] = torch.nan
    state[4] = torch.inf
    with pytest.raises(DataError, match="sample 3, column 0"):
        check_samples(state, ACTION)


def test_no_neighbours_at_all_are_refused():
    with pytest.raises(SettingError, match="0 neighbours"):
        nearest_neighbourhood(STATE, ACTION, count=0)


def test_weights_are_one_over_the_largest_variance_of_the_group():
    action = torch.tensor([[1.0, 3.0, 0.0], [-1.0, -3.0, 0.0]])
    assert group_weights(action, [2, 1]).tolist() == pytest.approx([1 / 9, 1 / 9, 1.0])
    assert group_weights(action, [1, 1, 1]).tolist() == pytest.approx([1.0, 1 / 9, 1.0])
    with pytest.raises(SettingError, match="3 together"):
        group_weights(action, [2, 2])


def test_transition_spread_is_the_variance_of_the_worlds_noise():
    state = torch.rand(3000, 1, generator=rng())
    action = torch.zeros(3000, 1)
    following = state + 0.1 + 0.02 * torch.randn(3000, 1, generator=rng(1))
    spread = transition_spread(state, action, following, radius=0.05)
    assert spread.mean().item() == pytest.approx(0.02**2, rel=0.05)
    exact = transition_spread(state, action, state + 0.1, radius=0.05)
    assert exact.max().item() < 1e-9


def test_curation_ranks_by_variance_and_length_alike():
    variance = torch.tensor([0.1, 0.2, 0.3])
    length = torch.tensor([30, 20, 10])
    assert curation_score(variance, length).tolist() == [0.5, 0.5, 0.5]
    assert curation_score(variance, torch.tensor([5, 5, 5])).tolist() == [0.25, 0.5, 0.75]
    assert curation_score(variance, torch.tensor([1, 2, 3])).tolist() == [0.0, 0.5, 1.0]


def test_an_episode_near_no_other_ranks_in_the_middle():
    score = curation_score(torch.tensor([0.1, float("nan"), 0.3]), torch.tensor([10, 10, 10]))
    assert score.tolist() == [0.25, 0.5, 0.75]

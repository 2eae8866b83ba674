"""The search for the worst model: worked by hand, on the windy walk, and the rule by which networks act."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.tabular import optimal_q, policy_value, robust_q
from policysmith.objectives.worst_case import (
    NONE_VALID,
    incremental_worst_case_search,
    most_pessimistic,
    shared_tables,
    valid_models,
)
from policysmith.worlds.windy_walk import DISCOUNT, windy_walk

CHANCES = (0.9, 0.5, 0.2)
REWARD = torch.tensor([[0.0, 0.06], [0.1, 0.1], [0.0, 0.0]], dtype=torch.double)
START = torch.tensor([1.0, 0.0, 0.0])


def gamble(chances=CHANCES):
    """Action 0 gambles on a good state that is absorbing, action 1 stays for a little."""
    models = torch.zeros(len(chances), 3, 2, 3, dtype=torch.double)
    for model, chance in zip(models, chances, strict=True):
        model[0, 0, 1], model[0, 0, 2], model[0, 1, 0] = chance, 1 - chance, 1
        model[1, :, 1] = model[2, :, 2] = 1
    return models


def search(models, **settings):
    return incremental_worst_case_search(models, REWARD, 0.9, start=START, **settings)


def random_set(seed, models=5, states=4, actions=3):
    rng = torch.Generator().manual_seed(seed)
    transition = torch.rand(models, states, actions, states, generator=rng, dtype=torch.double) ** 4
    reward = torch.randn(states, actions, generator=rng, dtype=torch.double)
    start = torch.rand(states, generator=rng, dtype=torch.double)
    return transition / transition.sum(-1, keepdim=True), reward, start / start.sum()


def test_the_gamble_is_solved_as_by_hand():
    first, second = optimal_q(gamble(), REWARD, 0.9)[0], search(gamble())
    torch.testing.assert_close(first[0], torch.tensor([0.81, 0.789], dtype=torch.double))
    values = policy_value(first.argmax(-1), gamble(), REWARD, 0.9)[:, 0]
    torch.testing.assert_close(values, torch.tensor([0.81, 0.45, 0.18], dtype=torch.double))
    torch.testing.assert_close(second.q[0], torch.tensor([0.18, 0.6], dtype=torch.double), atol=1e-6, rtol=0)
    assert second.solved == (0, 2)
    assert second.promised == pytest.approx((0.81, 0.6), abs=1e-6)
    assert second.attained == pytest.approx((0.18, 0.6), abs=1e-6)
    assert (second.stopped, second.policy[0]) == ("agreement", 1)


def test_the_windy_walk_is_solved_with_two_of_its_models():
    walk = windy_walk()
    found = incremental_worst_case_search(walk.transition, walk.reward, DISCOUNT, start=walk.start)
    assert found.solved == (0, 24)
    assert found.promised == pytest.approx((-4.524381, -7.952147), abs=1e-6)
    assert found.attained == pytest.approx((-10.294413, -7.952147), abs=1e-6)
    assert found.stopped == "agreement"
    robust = float(robust_q(walk.transition, walk.reward, DISCOUNT).amax(-1) @ walk.start)
    least = float((optimal_q(walk.transition, walk.reward, DISCOUNT).amax(-1) @ walk.start).min())
    assert found.value == pytest.approx(robust, abs=1e-6)
    assert found.value == pytest.approx(least, abs=1e-6)


def test_started_from_the_worst_model_one_is_enough():
    assert search(gamble(), first=2).solved == (2,)


@pytest.mark.parametrize("seed", range(20))
def test_the_promise_never_rises_and_never_falls_below_the_robust_value(seed):
    models, reward, start = random_set(seed)
    found = incremental_worst_case_search(models, reward, 0.9, start=start)
    promised = torch.tensor(found.promised)
    assert (promised.diff() <= 1e-6).all()
    robust = robust_q(models, reward, 0.9)
    assert (found.q >= robust - 1e-6).all()
    assert found.stopped in ("agreement", "repeated model")
    assert len(set(found.solved)) == len(found.solved)
    # What the policy is said to get in its worst model is what it gets there.
    values = policy_value(found.policy, models, reward, 0.9) @ start
    assert found.value == pytest.approx(float(values.min()))
    assert found.worst == int(values.argmin())


def test_a_worst_model_that_was_solved_before_ends_the_search():
    # Of twenty random sets some end so: the pessimism of two models can promise what neither gives.
    ends = {
        incremental_worst_case_search(models, reward, 0.9, start=start).stopped
        for models, reward, start in map(random_set, range(20))
    }
    assert ends == {"agreement", "repeated model"}


def test_the_search_is_over_all_models_and_ends_when_time_is_up():
    found = search(gamble(), iterations=1)
    assert (found.solved, found.worst, found.stopped) == ((0,), 2, "iterations")


def test_a_wide_tolerance_is_content_with_the_first_candidate():
    assert search(gamble(), tolerance=0.7).solved == (0,)


def test_models_that_share_nothing_are_refused():
    models = list(gamble())
    with pytest.raises(ShapeError, match="all models must share S, A and r"):
        search([models[0], models[1][:2, :, :2]])
    with pytest.raises(SettingError, match="all models must share S, A and r"):
        shared_tables(models, [REWARD, REWARD, REWARD + 1])
    with pytest.raises(SettingError, match="all models must share S, A and r"):
        shared_tables(models, [REWARD, REWARD])
    transition, reward = shared_tables(models, [REWARD] * 3)
    assert transition.shape == (3, 3, 2, 3)
    assert torch.equal(reward, REWARD)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"iterations": 0}, "at least 1"),
        ({"tolerance": -0.1}, "0 or more"),
        ({"tolerance": float("nan")}, "0 or more"),
        ({"first": 3}, "0 to 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(SettingError, match=says):
        search(gamble(), **settings)


def test_the_start_is_a_distribution_over_the_states():
    with pytest.raises(ShapeError, match=r"\[3\]"):
        incremental_worst_case_search(gamble(), REWARD, 0.9, start=torch.tensor([1.0]))


def test_an_empty_set_of_models_is_refused():
    with pytest.raises(SettingError, match="empty"):
        search([])


# ---- the acting rule ---------------------------------------------------------------------------------


def test_the_most_pessimistic_of_the_valid_models_acts():
    value = torch.tensor([[4.0], [2.5], [1.0]])
    error = torch.tensor([[0.2], [0.3], [0.9]])
    valid = valid_models(error, torch.full((3,), 0.5))
    assert valid[:, 0].tolist() == [True, True, False]
    assert most_pessimistic(value, valid).tolist() == [1]


def test_an_error_at_the_threshold_is_still_valid():
    assert valid_models(torch.tensor([[0.5]]), torch.tensor([0.5])).item()


def test_rows_are_judged_apart_and_one_without_a_valid_model_says_so():
    value = torch.tensor([[1.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    valid = torch.tensor([[True, False, True], [True, False, True]])
    assert most_pessimistic(value, valid).tolist() == [0, NONE_VALID, 1]


def test_a_threshold_belongs_to_its_model():
    error = torch.tensor([[0.4], [0.4]])
    assert valid_models(error, torch.tensor([0.3, 0.5]))[:, 0].tolist() == [False, True]

"""Returns along rollouts against slow loops, hand numbers and what they reduce to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.returns import backward_sum, generalised_advantage


def rollout(seed, *, time=7, env=3, objectives=()):
    """Random arrays of a rollout with terminated and truncated steps; inside an episode V' is the next V."""
    rng = torch.Generator().manual_seed(seed)
    shape = (time, env, *objectives)
    reward, value, other = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(3))
    terminated = torch.rand((time, env), generator=rng) < 0.15
    ended = terminated | (torch.rand((time, env), generator=rng) < 0.15)
    inside = ~ended.reshape(time, env, *(1 for _ in objectives))
    next_value = other.clone()
    next_value[:-1] = torch.where(inside[:-1], value[1:], other[:-1])
    return {
        "reward": reward,
        "value": value,
        "next_value": next_value,
        "terminated": terminated,
        "ended": ended,
    }


SEEDS = given(st.integers(0, 10_000))
FEW = settings(deadline=None, max_examples=25)


@FEW
@given(st.integers(1, 40), st.integers(0, 1000))
def test_doubling_is_the_recursion(time, seed):
    rng = torch.Generator().manual_seed(seed)
    term, factor = torch.randn(2, time, 2, generator=rng, dtype=torch.float64)
    slow, after = [], torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(time)):
        after = term[t] + factor[t] * after
        slow.insert(0, after)
    torch.testing.assert_close(backward_sum(term, factor), torch.stack(slow))


def test_generalised_advantage_by_hand():
    column = lambda *values: torch.tensor(values)[:, None]  # noqa: E731
    got = generalised_advantage(
        column(1.0, 2.0, 3.0), column(0.5, 1.0, 1.5), column(1.0, 9.0, 4.0),
        terminated=column(False, True, False), ended=column(False, True, False), discount=0.5, gae_lambda=0.5,
    )  # fmt: skip
    # delta: 1 + 0.5 - 0.5, 2 - 1 (terminated: the 9 counts nothing), 3 + 2 - 1.5
    assert got[:, 0].tolist() == pytest.approx([1 + 0.25 * 1, 1, 3.5])


@FEW
@SEEDS
def test_generalised_advantage_is_the_slow_sum_of_deltas(seed):
    batch = rollout(seed)
    got = generalised_advantage(**batch, discount=0.9, gae_lambda=0.8)
    for env in range(3):
        for start in range(7):
            total, weight = 0.0, 1.0
            for t in range(start, 7):
                follows = 0.0 if batch["terminated"][t, env] else batch["next_value"][t, env]
                total += weight * float(batch["reward"][t, env] + 0.9 * follows - batch["value"][t, env])
                weight *= 0.9 * 0.8
                if batch["ended"][t, env]:
                    break
            assert float(got[start, env]) == pytest.approx(total)


@FEW
@SEEDS
def test_with_lambda_one_an_advantage_is_the_return_minus_the_value(seed):
    batch = rollout(seed)
    got = generalised_advantage(**batch, discount=0.9, gae_lambda=1.0)
    after = batch["next_value"][-1]
    for t in reversed(range(7)):
        follows = torch.where(batch["ended"][t], batch["next_value"][t], after)
        after = batch["reward"][t] + 0.9 * torch.where(batch["terminated"][t], 0.0, follows)
        torch.testing.assert_close(got[t], after - batch["value"][t])


def test_with_lambda_zero_it_is_the_error_of_one_step():
    batch = rollout(1)
    got = generalised_advantage(**batch, discount=0.9, gae_lambda=0.0)
    follows = torch.where(batch["terminated"], 0.0, batch["next_value"])
    torch.testing.assert_close(got, batch["reward"] + 0.9 * follows - batch["value"])


def test_a_time_limit_is_followed_by_its_value_and_an_end_by_nothing():
    step = {"reward": torch.ones(1, 2), "value": torch.zeros(1, 2), "next_value": torch.full((1, 2), 10.0)}
    flags = {"terminated": torch.tensor([[True, False]]), "ended": torch.tensor([[True, True]])}
    assert generalised_advantage(**step, **flags, discount=0.9, gae_lambda=0.95).tolist() == [[1, 10]]


def test_a_value_that_is_not_a_number_behind_an_end_is_not_read():
    step = {
        "reward": torch.ones(1, 1),
        "value": torch.zeros(1, 1),
        "next_value": torch.full((1, 1), torch.nan),
    }
    flags = {"terminated": torch.tensor([[True]]), "ended": torch.tensor([[True]])}
    assert generalised_advantage(**step, **flags, discount=0.9, gae_lambda=0.95).tolist() == [[1]]


def test_objectives_do_not_see_each_other():
    batch = rollout(4, objectives=(2,))
    together = generalised_advantage(**batch, discount=0.9, gae_lambda=0.8)
    for number in range(2):
        alone = batch | {key: batch[key][..., number] for key in ("reward", "value", "next_value")}
        torch.testing.assert_close(
            together[..., number], generalised_advantage(**alone, discount=0.9, gae_lambda=0.8)
        )


def test_advantages_carry_no_gradient():
    batch = rollout(2)
    batch["value"].requires_grad_()
    assert not generalised_advantage(**batch, discount=0.9, gae_lambda=0.8).requires_grad


def test_arrays_and_flags_of_unequal_shapes_are_refused():
    batch = rollout(3)
    with pytest.raises(ShapeError, match="unequal shapes"):
        generalised_advantage(**batch | {"reward": batch["reward"][1:]}, discount=0.9, gae_lambda=0.8)
    with pytest.raises(ShapeError, match="one flag per step"):
        generalised_advantage(**batch | {"ended": batch["ended"][:, :1]}, discount=0.9, gae_lambda=0.8)


@pytest.mark.parametrize(
    "wrong", [{"discount": 1.1, "gae_lambda": 1.0}, {"discount": 1.0, "gae_lambda": -0.1}]
)
def test_factors_outside_zero_and_one_are_refused(wrong):
    with pytest.raises(SettingError, match="0 to 1"):
        generalised_advantage(**rollout(0), **wrong)

"""Returns along rollouts against slow loops, hand numbers and what they reduce to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import SettingError, ShapeError
from policysmith.objectives.returns import (
    backward_sum,
    generalised_advantage,
    lambda_returns,
    n_step_returns,
    retrace,
    v_trace,
)


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


def without_value(batch):
    return {key: entry for key, entry in batch.items() if key != "value"}


def as_q(batch):
    return {("q" if key == "value" else key): entry for key, entry in batch.items()}


@FEW
@SEEDS
def test_lambda_returns_are_advantage_plus_value(seed):
    batch = rollout(seed, objectives=(2,))
    got = lambda_returns(**without_value(batch), discount=0.9, lam=0.8)
    advantage = generalised_advantage(**batch, discount=0.9, gae_lambda=0.8)
    torch.testing.assert_close(got, advantage + batch["value"])


@FEW
@SEEDS
def test_n_step_returns_are_the_slow_sums(seed):
    batch, steps = rollout(seed), 1 + seed % 9
    got = n_step_returns(**without_value(batch), steps=steps, discount=0.9)
    for env in range(3):
        for start in range(7):
            total, weight, t = 0.0, 1.0, start
            for t in range(start, min(start + steps, 7)):
                total += weight * float(batch["reward"][t, env])
                weight *= 0.9
                if batch["ended"][t, env]:
                    break
            if not batch["terminated"][t, env]:
                total += weight * float(batch["next_value"][t, env])
            assert float(got[start, env]) == pytest.approx(total)


def test_returns_of_one_step_and_of_all_are_those_of_lambda_zero_and_one():
    batch = without_value(rollout(5, objectives=(2,)))
    for steps, lam in ((1, 0.0), (7, 1.0), (50, 1.0)):
        torch.testing.assert_close(
            n_step_returns(**batch, steps=steps, discount=0.9),
            lambda_returns(**batch, discount=0.9, lam=lam),
        )


def test_a_return_says_how_much_each_later_value_counts():
    batch = without_value(rollout(6, time=3, env=1)) | {
        "terminated": torch.zeros(3, 1, dtype=torch.bool), "ended": torch.zeros(3, 1, dtype=torch.bool),
    }  # fmt: skip
    batch["next_value"].requires_grad_()
    lambda_returns(**batch, discount=0.5, lam=0.8)[0].sum().backward()
    expected = [0.5 * 0.2, 0.5**2 * 0.8 * 0.2, 0.5**3 * 0.8**2]
    assert batch["next_value"].grad[:, 0].tolist() == pytest.approx(expected)


def test_returns_over_no_step_are_refused():
    with pytest.raises(SettingError, match="1 or more"):
        n_step_returns(**without_value(rollout(0)), steps=0, discount=0.9)


@FEW
@SEEDS
def test_v_trace_on_its_own_actions_is_the_longest_return(seed):
    batch = rollout(seed)
    got = v_trace(**batch, log_ratio=torch.zeros(7, 3, dtype=torch.float64), discount=0.9)
    longest = n_step_returns(**without_value(batch), steps=7, discount=0.9)
    torch.testing.assert_close(got.value_target, longest)
    torch.testing.assert_close(got.advantage, longest - batch["value"])


@FEW
@SEEDS
def test_v_trace_is_the_slow_sum_of_corrected_errors(seed):
    batch = rollout(seed)
    ratio = torch.rand(7, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    got = v_trace(**batch, log_ratio=ratio.log(), discount=0.9, rho_bar=1.5, c_bar=0.7, lam=0.9)
    reward, value, next_value = batch["reward"], batch["value"], batch["next_value"]
    for env in range(3):
        target = value[:, env].clone()
        for start in range(7):
            weight = 1.0
            for t in range(start, 7):
                follows = 0.0 if batch["terminated"][t, env] else next_value[t, env]
                delta = ratio[t, env].clamp(max=1.5) * (reward[t, env] + 0.9 * follows - value[t, env])
                target[start] += weight * delta
                weight *= 0.9 * 0.9 * ratio[t, env].clamp(max=0.7)
                if batch["ended"][t, env]:
                    break
        torch.testing.assert_close(got.value_target[:, env], target)
        for t in range(7):
            cut = t == 6 or bool(batch["ended"][t, env])
            after = 0.0 if batch["terminated"][t, env] else next_value[t, env] if cut else target[t + 1]
            wanted = ratio[t, env].clamp(max=1.5) * (reward[t, env] + 0.9 * after - value[t, env])
            assert float(got.advantage[t, env]) == pytest.approx(float(wanted))


def test_v_trace_leaves_a_value_alone_where_the_policy_would_never_have_acted_so():
    batch = rollout(8)
    got = v_trace(**batch, log_ratio=torch.full((7, 3), -200.0, dtype=torch.float64), discount=0.9)
    torch.testing.assert_close(got.value_target, batch["value"])


def test_retrace_on_its_own_actions_with_values_of_the_actions_taken_is_lambda_return():
    batch = rollout(9)
    nothing = torch.zeros(7, 3, dtype=torch.float64)
    for lam in (0.0, 0.6, 1.0):
        torch.testing.assert_close(
            retrace(**as_q(batch), log_ratio=nothing, discount=0.9, lam=lam),
            lambda_returns(**without_value(batch), discount=0.9, lam=lam),
        )


@FEW
@SEEDS
def test_retrace_cuts_its_trace_by_the_ratio_of_the_next_action(seed):
    rng = torch.Generator().manual_seed(seed)
    batch = rollout(seed) | {"next_value": torch.randn(7, 3, generator=rng, dtype=torch.float64)}
    ratio = torch.rand(7, 3, generator=rng, dtype=torch.float64) * 2
    got = retrace(**as_q(batch), log_ratio=ratio.log(), discount=0.9, lam=0.8)
    for env in range(3):
        for start in range(7):
            total, weight = float(batch["value"][start, env]), 1.0
            for t in range(start, 7):
                follows = 0.0 if batch["terminated"][t, env] else batch["next_value"][t, env]
                error = batch["reward"][t, env] + 0.9 * follows - batch["value"][t, env]
                total += weight * float(error)
                if batch["ended"][t, env] or t == 6:
                    break
                weight *= 0.9 * 0.8 * min(1.0, float(ratio[t + 1, env]))
            assert float(got[start, env]) == pytest.approx(total)


@pytest.mark.parametrize("wrong", [{"rho_bar": 0.0}, {"c_bar": -1.0}])
def test_bars_of_importance_weights_are_above_zero(wrong):
    with pytest.raises(SettingError, match="above 0"):
        v_trace(**rollout(0), log_ratio=torch.zeros(7, 3), discount=0.9, **wrong)

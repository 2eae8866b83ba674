"""Tolerances and what Meta-World builds from them: hand numbers, and the package's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.objectives import shaping
from policysmith.objectives.shaping import (
    caging,
    dense_grasp,
    grasp,
    hamacher_product,
    long_tail,
    push_reward,
    reach_reward,
    reaching_grasp,
    tolerance,
)

SIGMOIDS = [
    "gaussian", "long_tail", "reciprocal", "hyperbolic", "tanh_squared", "cosine", "linear", "quadratic"
]  # fmt: skip


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ---- tolerance ---------------------------------------------------------------------------------------


def test_tolerance_by_hand():
    x = numbers(0.2, 0.04)
    # 0.15 outside is half a margin: 1 / ((0.5 * 3)^2 + 1)
    value = tolerance(x, (0.0, 0.05), margin=0.3, sigmoid=long_tail)
    assert value == pytest.approx([1 / 3.25, 1.0])
    assert value == pytest.approx([0.307692, 1.0], abs=1e-6)


def test_reach_reward_by_hand():
    assert reach_reward(numbers(0.2, 0.04), numbers(0.3, 0.3)) == pytest.approx([3.076923, 10.0], abs=1e-6)


@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_margin_away_every_sigmoid_is_worth_the_value_at_the_margin(name):
    x = numbers(-1.0, -0.5, 0.5, 1.5)
    value = tolerance(x, (0.0, 1.0), margin=0.5, sigmoid=getattr(shaping, name), value_at_margin=0.2)
    assert value[1:] == pytest.approx([0.2, 1.0, 0.2])
    assert 0 <= value[0] < 0.2


def test_without_a_margin_it_is_all_or_nothing_and_bounds_are_inclusive():
    assert tolerance(numbers(0.0, 1.0, 1.001), (0.0, 1.0)).tolist() == [1, 1, 0]
    assert tolerance(numbers(-5.0, 5.0), (-math.inf, 0.0)).tolist() == [1, 0]


def test_rows_may_have_margins_of_their_own():
    value = tolerance(numbers(2, 2, 2), (0.0, 1.0), margin=numbers(0, 1, 2), sigmoid=long_tail)
    assert value == pytest.approx([0.0, 0.1, 1 / (1.5**2 + 1)])


def test_gradients_are_finite_inside_outside_and_without_a_margin():
    x = numbers(0.5, 2.0, 2.0).requires_grad_()
    tolerance(x, (0.0, 1.0), margin=numbers(1, 1, 0), sigmoid=long_tail).sum().backward()
    # 1 / (9 d^2 + 1) at d = 1 has the slope -18 / 100
    assert x.grad == pytest.approx([0.0, -0.18, 0.0])


@pytest.mark.parametrize(
    "wrong",
    [{"bounds": (1.0, 0.0)}, {"margin": -0.1}, {"margin": numbers(0.1, -0.1)}, {"bounds": (math.nan, 0.0)}],
)
def test_bounds_in_the_wrong_order_and_negative_margins_are_refused(wrong):
    with pytest.raises(SettingError):
        tolerance(numbers(0.0, 0.0), **wrong)


@pytest.mark.parametrize(("name", "value"), [("gaussian", 0.0), ("long_tail", 1.0), ("linear", 1.0)])
def test_a_value_at_the_margin_that_no_scale_gives_is_refused(name, value):
    with pytest.raises(SettingError):
        tolerance(numbers(2.0), margin=1.0, sigmoid=getattr(shaping, name), value_at_margin=value)


@pytest.mark.parametrize("name", SIGMOIDS)
def test_tolerance_is_the_packages(name):
    package = pytest.importorskip("metaworld.utils.reward_utils")
    x = np.linspace(-3, 3, 61)
    for bounds, margin, value in (((-0.5, 1.0), 0.7, 0.1), ((0.2, 0.2), 2.0, 0.4), ((0.0, 1.0), 0.0, 0.1)):
        ours = tolerance(
            torch.from_numpy(x), bounds, margin=margin, sigmoid=getattr(shaping, name), value_at_margin=value
        )
        theirs = package.tolerance(x, bounds=bounds, margin=margin, sigmoid=name, value_at_margin=value)
        assert ours.numpy() == pytest.approx(theirs, abs=1e-12)


# ---- the product -------------------------------------------------------------------------------------


def test_hamacher_product_by_hand():
    a, b = numbers(0.5, 0.0, 0.0, 1.0, 1.0), numbers(0.5, 0.0, 0.7, 1.0, 0.3)
    assert hamacher_product(a, b) == pytest.approx([1 / 3, 0, 0, 1, 0.3])


def test_hamacher_product_is_symmetric_and_not_above_either():
    a, b = torch.rand(2, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    product = hamacher_product(a, b)
    assert torch.allclose(product, hamacher_product(b, a))
    assert (product <= torch.minimum(a, b)).all()


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_the_product_of_what_is_no_degree_is_refused(wrong):
    with pytest.raises(SettingError):
        hamacher_product(numbers(0.5), numbers(wrong))


# ---- Meta-World's rewards -----------------------------------------------------------------------------


def test_push_reward_by_hand():
    reward = push_reward(
        numbers(0.5, 0.5, 0.5, 0.5),
        hand_to_object=numbers(0.1, 0.01, 0.01, 0.1),
        opening=numbers(1.0, 1.0, 0.0, 1.0),
        object_to_goal=numbers(0.2, 0.2, 0.2, 0.049),
        start_to_goal=numbers(0.3, 0.3, 0.3, 0.3),
    )
    in_place = 1 / 3.25
    # away: 2 * 0.5; held: twice that, one, five times in place; closed: as if away; at the goal: ten
    assert reward == pytest.approx([1.0, 3 + 5 * in_place, 1.0, 10.0])


def test_closing_counts_only_where_the_thing_is_caged():
    caged, effort = numbers(0.98, 0.96, 1.0, 1.0), numbers(1.0, 1.0, -1.0, 0.5)
    assert grasp(caged, effort) == pytest.approx([0.98, 0.0, 0.0, 0.5])
    assert dense_grasp(caged, effort) == pytest.approx([0.98, 0.48, 0.5, 0.75])
    assert grasp(caged, effort, full_effort=0.5)[3] == 1.0


def test_the_grasp_that_reaches_starts_at_a_tenth_of_half():
    far = numbers(0.3)
    value = reaching_grasp(
        numbers(0.0), numbers(1.0), hand_to_object=far, start_hand_to_object=far, reach_radius=0.01
    )
    assert value == pytest.approx([0.05])


def simulated(task: str, *, steps: int = 40):
    """Expert steps of a task: the simulator after each, with the action and the package's reward."""
    worlds = pytest.importorskip("policysmith.worlds.metaworld")
    pytest.importorskip("metaworld")
    env = worlds.MetaWorldTask(task)
    expert = worlds.MetaWorldExpert(env)
    observation, _ = env.reset(seed=3)
    for _ in range(steps):
        action = expert.act(observation)
        observation, reward, *_ = env.step(action)
        yield env._simulator, action, reward


def row(*values) -> torch.Tensor:
    return torch.tensor(np.array(values, dtype=np.float64))


def test_the_reach_reward_is_the_simulators():
    rewards = []
    for simulator, _, reward in simulated("reach-v3"):
        goal = simulator._target_pos
        distances = [np.linalg.norm(at - goal) for at in (simulator.tcp_center, simulator.hand_init_pos)]
        assert reach_reward(row(distances[0]), row(distances[1])).item() == pytest.approx(reward, rel=1e-9)
        rewards.append(reward)
    assert rewards[0] < 5 < rewards[-1]


def caging_of(simulator, thing) -> torch.Tensor:
    pads = [simulator.get_body_com("leftpad"), simulator.get_body_com("rightpad")]
    return caging(
        row(pads),
        row(simulator.tcp_center),
        row(thing),
        start_hand=row(simulator.init_tcp),
        start_thing=row(simulator.obj_init_pos),
        radius=0.015,
        pad_threshold=0.05,
        xz_threshold=0.005,
    )


def test_the_push_reward_is_the_simulators_from_approach_to_goal():
    rewards = []
    for simulator, action, reward in simulated("push-v3", steps=70):
        seen = simulator._last_stable_obs
        thing, opening, goal = seen[4:7], seen[3], simulator._target_pos
        held = dense_grasp(caging_of(simulator, thing), row(action[-1]))
        ours = push_reward(
            held,
            hand_to_object=row(np.linalg.norm(thing - simulator.tcp_center)),
            opening=row(opening),
            object_to_goal=row(np.linalg.norm(thing - goal)),
            start_to_goal=row(np.linalg.norm(simulator.obj_init_pos - goal)),
        )
        assert ours.item() == pytest.approx(reward, rel=1e-7)  # float32 actions make the package's float32
        rewards.append(reward)
    assert rewards[0] < 1
    assert any(1 < reward < 10 for reward in rewards)
    assert rewards[-1] == 10


def test_the_medium_grasp_is_the_simulators():
    for simulator, action, _ in simulated("push-v3", steps=30):
        thing = simulator._last_stable_obs[4:7]
        ours = reaching_grasp(
            caging_of(simulator, thing),
            row(action[-1]),
            hand_to_object=row(np.linalg.norm(thing - simulator.tcp_center)),
            start_hand_to_object=row(np.linalg.norm(simulator.obj_init_pos - simulator.init_tcp)),
            reach_radius=0.01,
        )
        theirs = simulator._gripper_caging_reward(
            action, thing, obj_radius=0.015, pad_success_thresh=0.05, object_reach_radius=0.01,
            xz_thresh=0.005, medium_density=True,
        )  # fmt: skip
        assert ours.item() == pytest.approx(theirs, rel=1e-7)

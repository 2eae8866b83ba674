"""TD3 and TD3+BC: the smoothed target, who is updated when, and what holds the actor near the data."""

from __future__ import annotations

import itertools
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.rng import generator
from policysmith.common.spaces import ActionSpace
from policysmith.experience.episodes import Episodes
from policysmith.systems import td3, td3_bc
from policysmith.training.learners.td3 import Td3Learners, Td3Settings, anchored
from policysmith.training.loop import RunState, finish

SETTINGS = Td3Settings(hidden=(8,))
SPACE, ACTION = Box(-1, 1, (3,)), ActionSpace.of(Box(np.float32([-2, 0]), np.float32([2, 1])))
LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0])


def batch(rows: int = 6):
    rng = torch.Generator().manual_seed(0)
    return {
        "observation": torch.randn(rows, 3, generator=rng),
        "action": LOW + (HIGH - LOW) * torch.rand(rows, 2, generator=rng),
        "reward": torch.randn(rows, generator=rng),
        "next_observation": torch.randn(rows, 3, generator=rng),
        "terminated": torch.tensor([True] + [False] * (rows - 1)),
        "truncated": torch.zeros(rows, dtype=torch.bool),
    }


def learners(settings: Td3Settings = SETTINGS, **keywords) -> Td3Learners:
    return Td3Learners(SPACE, ACTION, settings, discount=0.9, seed=0, **keywords)


def test_without_smoothing_the_target_is_the_least_critics_value_of_the_target_actors_action():
    found, rows = learners(replace(SETTINGS, smoothing=0.0)), batch()
    for module in (found.actor, found.critic):  # no longer what their targets are
        for weight in module.parameters():
            weight.data.add_(0.5)
    with torch.no_grad():
        action = found.target_actor.module.distribution(rows["next_observation"]).mode()
        q = found.target.module(rows["next_observation"], action).amin(0)
    expected = rows["reward"] + 0.9 * q * ~rows["terminated"]
    torch.testing.assert_close(found.value_target(rows), expected)


def test_the_smoothed_action_stays_within_the_limit_of_the_noise_and_the_actions_limits():
    found, rows = learners(replace(SETTINGS, smoothing=100.0, smoothing_limit=0.5)), batch(200)
    seen = []
    critic = found.target.module
    critic.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    found.value_target(rows)
    certain = found.target_actor.module.distribution(rows["next_observation"]).mode()
    moved = (seen[0] - certain).abs()
    assert (moved <= 0.5 * (HIGH - LOW) / 2 + 1e-6).all()
    assert ((seen[0] >= LOW) & (seen[0] <= HIGH)).all()
    assert float(moved[:, 0].max()) == pytest.approx(1.0)


def test_smoothing_is_as_large_as_it_is_set_in_halves_of_the_actions_range():
    found, rows = learners(replace(SETTINGS, smoothing=0.1, smoothing_limit=10.0)), batch(3000)
    seen = []
    found.target.module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    found.value_target(rows)
    moved = seen[0] - found.target_actor.module.distribution(rows["next_observation"]).mode()
    assert moved.std(0).tolist() == pytest.approx([0.2, 0.05], rel=0.1)


def test_actor_and_targets_move_every_second_update_and_the_critics_at_each():
    found = learners()
    state = RunState(learners=found.learners)
    seen = ["actor_loss" in found.update_once(state, batch(), number) for number in range(5)]
    assert seen == [False, True, False, True, False]
    assert (found.learners["critic"].steps, found.learners["policy"].steps) == (5, 2)
    assert (found.target.updates, found.target_actor.updates) == (2, 2)


def test_the_actor_follows_the_first_critic_and_moves_none():
    found, rows = learners(), batch()
    values, _ = found.actor_loss(found.actor, rows)
    action = found.actor.distribution(rows["observation"]).mode()
    torch.testing.assert_close(values, -found.critic(rows["observation"], action)[0])
    values.mean().backward()
    assert all(weight.grad is None for weight in found.critic.parameters())
    assert all(weight.grad is not None for weight in found.actor.parameters())


def test_exploring_adds_noise_in_units_of_the_actions_range_and_stays_inside():
    found, seen = learners(), torch.zeros(2000, 3)
    certain = found.actor.distribution(seen[:1]).mode()
    assert torch.equal(found.explore(0.0)(seen[:1], generator(0)), certain)
    moved = found.explore(0.1)(seen, generator(0)) - certain
    assert moved.std(0).tolist() == pytest.approx([0.2, 0.05], rel=0.1)
    wild = found.explore(5.0)(seen, generator(0))
    assert ((wild >= LOW) & (wild <= HIGH)).all()


def test_the_anchor_weighs_q_by_its_own_mean_size_and_actions_by_their_range():
    follow = anchored(2.5, ACTION)
    q, rows = torch.tensor([2.0, -6.0]), {"action": torch.tensor([[2.0, 0.5], [0.0, 1.0]])}
    chosen = torch.tensor([[0.0, 0.5], [0.0, 0.5]])
    # |q| is 4 on average; the first action is one half-range away, the second too, each in one of two numbers
    assert follow(q, chosen, rows).tolist() == pytest.approx([0.5 - 2.5 * 2 / 4, 0.5 + 2.5 * 6 / 4])


def test_with_alpha_zero_it_is_cloning():
    found, rows = learners(follow=anchored(0.0, ACTION)), batch()
    action = found.actor.distribution(rows["observation"]).mode()
    half = (HIGH - LOW) / 2
    expected = ((action - rows["action"]) / half).square().mean(1)
    torch.testing.assert_close(found.actor_loss(found.actor, rows)[0], expected)


def test_standardised_learners_do_not_depend_on_the_units_of_the_observation():
    rows, shift = batch(), torch.tensor([5.0, -3.0, 100.0])
    plain = learners(observed=rows["observation"])
    moved = learners(observed=rows["observation"] * 20 + shift)
    far = rows | {"observation": rows["observation"] * 20 + shift}
    for one, seen in ((plain, rows), (moved, far)):
        one.actor.body.layers.requires_grad_(False)
        assert float(one.actor.body.normalizer(seen["observation"]).mean().abs()) < 1e-5
    action = [one.actor.distribution(b["observation"]).mode() for one, b in ((plain, rows), (moved, far))]
    value = [one.critic(b["observation"], b["action"]) for one, b in ((plain, rows), (moved, far))]
    torch.testing.assert_close(*action, rtol=0, atol=1e-4)
    torch.testing.assert_close(*value, rtol=0, atol=1e-4)


def bandit(rows: int = 600) -> Episodes:
    """One step: the closer the action to half the observation, the better; the data act at random."""
    rng = torch.Generator().manual_seed(0)
    seen, action = (torch.rand(rows, 1, generator=rng) * 2 - 1 for _ in range(2))
    reward = 1 - (action - seen / 2).square()[:, 0]
    parts = {"observation": seen, "action": action, "reward": reward}
    return Episodes.from_arrays(
        {key: part[i : i + 1] for key, part in parts.items()} | {"terminated": True} for i in range(rows)
    )


def test_from_random_data_it_finds_better_actions_than_cloning_does():
    config = td3_bc.Config(
        steps=600, hidden=(32,), batch_size=64, learning_rate=3e-3, critic_learning_rate=3e-3
    )
    seen = torch.tensor([[-0.8], [-0.4], [0.4], [0.8]])
    found = []
    for alpha in (0.0, 20.0):
        policy = finish(td3_bc.train(bandit(), config=replace(config, alpha=alpha), seed=0)).policy()
        found.append(float((policy.distribution(seen).mode() - seen / 2).abs().mean()))
    assert found[1] < 0.1 < 0.2 < found[0]


def test_a_run_goes_on_to_the_same_numbers_smoothing_included():
    config = replace(td3.PRESETS["tiny"], environment_steps=40)
    whole = td3.train("Pendulum-v1", config=config, seed=1)
    middle = list(itertools.islice(whole, 13))[-1].state.state_dict()
    saved = torch.utils._pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, middle
    )
    expected = [now.metrics for now in whole]
    resumed = [now.metrics for now in td3.train("Pendulum-v1", config=config, seed=1, state=saved)]
    assert resumed == expected


def test_choices_are_refused_with_what_would_serve():
    with pytest.raises(CapabilityError, match="use dqn"):
        Td3Learners(SPACE, ActionSpace.of(gymnasium.spaces.Discrete(3)), SETTINGS, discount=0.9, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("policy_every", 0), ("rate", 0.0), ("smoothing", -0.1), ("learning_rate", 0.0), ("updates", 0)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(SettingError, match=name):
        replace(td3.PRESETS["tiny"], **{name: value})


def test_exploration_and_alpha_below_zero_are_refused():
    with pytest.raises(SettingError, match="exploration_noise"):
        td3.Config(exploration_noise=-1)
    with pytest.raises(SettingError, match="alpha"):
        td3_bc.Config(alpha=-1)
    with pytest.raises(SettingError, match="policy_every"):
        td3_bc.Config(policy_every=0)

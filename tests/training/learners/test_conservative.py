"""CQL: what its penalty is and does, whose actions it asks about, and when the actor imitates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.common.spaces import ActionSpace
from policysmith.experience.episodes import Episodes
from policysmith.objectives.values import conservative_penalty
from policysmith.systems import cql
from policysmith.training.learners.conservative import ConservativeLearners, penalty, sampled_actions
from policysmith.training.learners.sac import SacLearners
from policysmith.training.loop import RunState, finish

SETTINGS = cql.Config(steps=10, cloning_steps=0, hidden=(8,), batch_size=6, samples=3)
SPACE, ACTION = Box(-1, 1, (3,)), ActionSpace.of(Box(-2, 2, (2,)))


def batch(rows: int = 6):
    rng = torch.Generator().manual_seed(0)
    return {
        "observation": torch.randn(rows, 3, generator=rng),
        "action": torch.rand(rows, 2, generator=rng) * 4 - 2,
        "reward": torch.randn(rows, generator=rng),
        "next_observation": torch.randn(rows, 3, generator=rng),
        "terminated": torch.tensor([True] + [False] * (rows - 1)),
        "truncated": torch.zeros(rows, dtype=torch.bool),
    }


def learners(settings: cql.Config = SETTINGS) -> ConservativeLearners:
    return ConservativeLearners(SPACE, ACTION, settings, seed=0)


def sampled(found: ConservativeLearners, rows, samples: int = 3):
    draw = lambda seen: found.sac.actor.draw(seen, generator(1))  # noqa: E731
    action, density = sampled_actions(rows, ACTION, draw=draw, samples=samples, rng=generator(2))
    return rows | {"sampled": action, "log_density": density}


def test_a_third_of_the_actions_each_is_uniform_of_the_policy_and_of_the_policy_one_step_on():
    found, rows = learners(), batch()
    asked = []

    def draw(seen):
        asked.append(seen)
        return torch.full((len(seen), 2), float(len(asked))), torch.full((len(seen),), -float(len(asked)))

    action, density = sampled_actions(rows, ACTION, draw=draw, samples=3, rng=generator(0))
    assert action.shape == (6, 9, 2)
    assert torch.equal(asked[0], rows["observation"].repeat_interleave(3, 0))
    assert torch.equal(asked[1], rows["next_observation"].repeat_interleave(3, 0))
    assert action[:, 3:, 0].tolist() == [[1.0] * 3 + [2.0] * 3] * 6
    assert density[0].tolist() == pytest.approx([-2 * math.log(2)] * 3 + [-1.0] * 3 + [-2.0] * 3)
    many, _ = sampled_actions(batch(1), ACTION, draw=draw, samples=20_000, rng=generator(0))
    assert many[0, :20_000].std(0).tolist() == pytest.approx([4 / math.sqrt(12)] * 2, rel=0.02)
    assert found.sac.actor.training


def test_the_penalty_asks_each_critic_about_each_action_at_its_own_observation():
    found = learners()
    rows = sampled(found, batch())
    q = torch.stack([found.sac.critic(rows["observation"], rows["sampled"][:, i]) for i in range(9)], -1)
    data_q = found.sac.critic(rows["observation"], rows["action"])
    expected = conservative_penalty(q, rows["log_density"], data_q).mean(0)
    torch.testing.assert_close(penalty(found.sac.critic, rows), expected)


def test_without_a_penalty_the_critics_loss_is_sacs():
    found = learners(replace(SETTINGS, penalty_weight=0.0))
    rows = sampled(found, batch()) | {"value_target": torch.ones(6)}
    mine, _ = found.critic_loss(found.sac.critic, rows)
    torch.testing.assert_close(
        mine, (found.sac.critic(rows["observation"], rows["action"]) - 1).square().mean(0)
    )
    weighed, statistics = learners().critic_loss(found.sac.critic, rows)
    torch.testing.assert_close(weighed, mine + 5 * statistics["penalty"])


def test_the_penalty_lowers_the_critics_opinion_of_what_the_data_lack():
    """At one observation the data do one thing, and nothing is ever paid."""
    rows = batch() | {"observation": torch.zeros(6, 3), "next_observation": torch.zeros(6, 3)}
    rows |= {"action": torch.full((6, 2), 1.0), "reward": torch.zeros(6)}
    gap = []
    for weight in (0.0, 5.0):
        found = learners(replace(SETTINGS, penalty_weight=weight, critic_learning_rate=1e-2))
        for number in range(150):
            found.update_once(RunState(learners=found.learners), rows, number)
        with torch.no_grad():
            elsewhere = torch.rand(200, 2, generator=generator(3)) * 4 - 2
            other = found.sac.critic(torch.zeros(200, 3), elsewhere).mean()
            gap.append(float(found.sac.critic(rows["observation"], rows["action"]).mean() - other))
    assert gap[1] > 0.3 > abs(gap[0])


def test_the_actor_imitates_before_it_follows_the_critics():
    rows = batch()
    imitating, following = learners(replace(SETTINGS, cloning_steps=1)), learners()
    state = imitating.sac.rng.get_state()
    values, _ = imitating.actor_loss(imitating.sac.actor, rows)
    imitating.sac.rng.set_state(state)
    _, log_prob = imitating.sac.actor.draw(rows["observation"], imitating.sac.rng)
    expected = log_prob - imitating.sac.actor.log_prob(rows["observation"], rows["action"])
    torch.testing.assert_close(values, expected)  # the temperature begins at 1
    imitating.learners["policy"].steps = 1
    for one in (imitating, following):
        one.sac.rng.set_state(state)
    plain = SacLearners(SPACE, ACTION, SETTINGS.sac(), seed=0)
    plain.rng.set_state(state)
    expected, _ = plain.actor_loss(plain.actor, rows)
    for one in (imitating, following):
        torch.testing.assert_close(one.actor_loss(one.sac.actor, rows)[0], expected)


def test_the_actors_loss_moves_no_critic():
    for steps in (0, 1):
        found = learners(replace(SETTINGS, cloning_steps=steps))
        found.actor_loss(found.sac.actor, batch())[0].mean().backward()
        assert all(weight.grad is None for weight in found.sac.critic.parameters())


def test_it_takes_what_the_data_did_best():
    rng = torch.Generator().manual_seed(0)
    seen, action = (torch.rand(600, 1, generator=rng) * 2 - 1 for _ in range(2))
    reward = (seen.sign() == action.sign())[:, 0].float()
    parts = {"observation": seen, "action": action, "reward": reward}
    episodes = Episodes.from_arrays(
        {key: part[i : i + 1] for key, part in parts.items()} | {"terminated": True} for i in range(600)
    )
    config = cql.Config(
        steps=400, cloning_steps=0, hidden=(32,), batch_size=64, samples=4, learning_rate=3e-3,
        critic_learning_rate=3e-3, penalty_weight=1.0,
    )  # fmt: skip
    policy = finish(cql.train(episodes, config=config, seed=0)).policy()
    seen = torch.tensor([[-0.8], [-0.4], [0.4], [0.8]])
    assert torch.equal(policy.distribution(seen).mode().sign(), seen.sign())


@pytest.mark.parametrize(
    ("name", "value"), [("penalty_weight", -1.0), ("samples", 0), ("cloning_steps", -1), ("rate", 0.0)]
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(SettingError, match=name):
        cql.Config(**{name: value})

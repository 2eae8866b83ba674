"""The on-policy loop: what a rollout holds and is worth at cuts, what a minibatch is, and that it learns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.experience.environments import InThisProcess
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import environments_of
from policysmith.training.learners.on_policy import RolloutCollector, flattened, gae, minibatches
from policysmith.training.learners.ppo import PpoSettings, actor_critic, ppo_loss, ppo_run
from policysmith.training.loop import finish
from policysmith.worlds import registry

SETTINGS = PpoSettings(
    environments=2, rollout_steps=16, epochs=2, minibatches=4, hidden=(8,), environment_steps=64
)


class Remember(gymnasium.Env):
    """Shows a sign at the first step only; the action at the last one must repeat it."""

    def __init__(self, length: int = 4) -> None:
        self.observation_space = Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign, self.age = int(self.np_random.integers(2)), 0
        return np.array([2 * self.sign - 1, 0], np.float32), {}

    def step(self, action):
        self.age += 1
        last = self.age == self.length
        reward = float(action == self.sign) if last else 0.0
        return np.array([0, self.age == self.length - 1], np.float32), reward, last, False, {}


def short():
    return gymnasium.wrappers.TimeLimit(registry.make("CartPole-v1"), 3)


def made(name="CartPole-v1", settings=SETTINGS, **keywords):
    copies = environments_of(name, settings.environments)
    interaction = Interaction(copies, seed=0)
    return actor_critic(interaction, settings, seed=0, **keywords), interaction


def test_a_rollout_holds_what_was_seen_done_and_said_of_it():
    agent, interaction = made()
    rollout = RolloutCollector(agent, interaction, generator(0)).roll_out(16)
    log_prob, _, value = agent.evaluate(flattened(rollout))
    torch.testing.assert_close(rollout["behaviour_log_prob"].flatten(), log_prob)
    torch.testing.assert_close(rollout["old_value"].flatten(), value)
    follows = ~(rollout["terminated"] | rollout["truncated"])[:-1]
    assert torch.equal(rollout["next_observation"][:-1][follows], rollout["observation"][1:][follows])
    torch.testing.assert_close(rollout["next_value"][:-1][follows], rollout["old_value"][1:][follows])
    torch.testing.assert_close(rollout["next_value"][-1], agent.value(rollout["next_observation"][-1]))


def test_a_cut_episode_is_worth_what_was_seen_at_its_cut():
    agent, interaction = made(short)
    rollout = RolloutCollector(agent, interaction, generator(0)).roll_out(7)
    cut = rollout["truncated"]
    assert cut[:, 0].tolist() == [False, False, True, False, False, True, False]
    torch.testing.assert_close(rollout["next_value"][cut], agent.value(rollout["next_observation"][cut]))
    assert not torch.allclose(rollout["next_value"][2], rollout["old_value"][3])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_values_of_cut_episodes_know_what_was_remembered(cell):
    settings = replace(SETTINGS, cell=cell, minibatches=2, memory_width=4)
    agent, interaction = made(short, settings)
    rollout = RolloutCollector(agent, interaction, generator(0)).roll_out(3)
    one = {key: value[:, :1] if key != "memory" else value[:1] for key, value in rollout.items()}
    longer = {"observation": torch.cat([one["observation"], one["next_observation"][-1:]])}
    longer |= {"action": torch.cat([one["action"], one["action"][-1:]]), "memory": one["memory"]}
    longer |= {"begins": torch.cat([one["begins"], torch.tensor([[False]])])}
    torch.testing.assert_close(rollout["next_value"][2, 0], agent.evaluate(longer)[2][-1])


def test_minibatches_pass_over_every_row_in_every_epoch():
    agent, interaction = made()
    rollout = RolloutCollector(agent, interaction, generator(0)).roll_out(16)
    rollout["number"] = torch.arange(32).view(16, 2)
    parts = list(minibatches(rollout, SETTINGS, generator(1)))
    assert len(parts) == 8
    for epoch in (parts[:4], parts[4:]):
        assert sorted(torch.cat([part["number"] for part in epoch]).tolist()) == list(range(32))


def test_recurrent_minibatches_are_whole_sequences():
    settings = replace(SETTINGS, cell="gru", minibatches=2, memory_width=4)
    agent, interaction = made("CartPole-v1", settings)
    rollout = RolloutCollector(agent, interaction, generator(0)).roll_out(16)
    parts = list(minibatches(rollout, settings, generator(1)))
    assert [part["action"].shape for part in parts] == [(16, 1, 1)] * 4
    assert parts[0]["memory"].shape == (1, 4)
    with pytest.raises(SettingError, match="2 environments"):
        replace(settings, minibatches=3)


def test_the_first_loss_has_the_gradient_of_the_plain_policy_gradient():
    """Where nothing has moved since sampling the clipped ratio is 1 and its gradient that of log pi."""
    settings = replace(SETTINGS, value_weight=0.0)
    agent, interaction = made(settings=settings)
    rollout = gae(settings)(RolloutCollector(agent, interaction, generator(0)).roll_out(16))
    batch = flattened(rollout)
    ppo_loss(settings)(agent, batch)[0].mean().backward()
    found = agent.policy.head.logits.weight.grad.clone()
    agent.zero_grad()
    advantage = batch["advantage"]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    (-advantage * agent.evaluate(batch)[0]).mean().backward()
    torch.testing.assert_close(found, agent.policy.head.logits.weight.grad)


def test_the_value_moves_no_weight_of_the_policy_where_bodies_are_apart():
    agent, interaction = made()
    rollout = gae(SETTINGS)(RolloutCollector(agent, interaction, generator(0)).roll_out(16))
    agent.evaluate(flattened(rollout))[2].sum().backward()
    assert all(weight.grad is None for weight in agent.policy.parameters())


def test_vector_rewards_have_vector_values_and_a_method_says_how_they_become_one():
    class Two(gymnasium.Wrapper):
        def step(self, action):
            seen, reward, *rest = self.env.step(action)
            return seen, np.array([reward, -reward], np.float32), *rest

    settings = SETTINGS
    agent, interaction = made(lambda: Two(registry.make("CartPole-v1")), objectives=2)
    weights = torch.tensor([1.0, 0.25])

    def weighed(rollout):
        found = gae(settings)(rollout)
        assert found["advantage"].shape == (16, 2, 2)
        return found | {"advantage": found["advantage"] @ weights}

    end = finish(ppo_run(agent, interaction, settings=settings, seed=0, advantage=weighed))
    assert interaction.metrics()["return/1"] == -interaction.metrics()["return/0"]
    assert end.step == 2


def test_rewards_can_be_anothers_than_the_environments():
    agent, interaction = made()

    def nothing(rollout):
        return rollout | {"reward": torch.zeros_like(rollout["reward"])}

    progress = list(ppo_run(agent, interaction, settings=SETTINGS, seed=0, label=nothing))
    assert progress[-1].metrics["value_loss"] < 0.1


def test_the_passes_end_where_the_policy_has_moved_far_enough():
    settings = replace(SETTINGS, target_kl=0.0, epochs=50, learning_rate=0.05)
    agent, interaction = made(settings=settings)
    state = finish(ppo_run(agent, interaction, settings=settings, seed=0))
    assert state.learners["policy"].steps < 2 * 50 * 4


def test_moments_of_observations_are_those_of_all_that_was_seen():
    settings = replace(SETTINGS, normalise_observations=True, normalise_rewards=True)
    agent, interaction = made(settings=settings)
    state = finish(ppo_run(agent, interaction, settings=settings, seed=0))
    assert float(agent.policy.body.normalizer.count) == 64 + 32  # the first rollout also before it was judged
    assert torch.equal(state.policy().body.normalizer.mean, agent.critic.body.normalizer.mean)
    assert state.policy().deterministic


def test_ppo_learns_to_balance():
    settings = PpoSettings(
        environment_steps=30_000,
        environments=8,
        rollout_steps=128,
        epochs=4,
        minibatches=4,
        learning_rate=2e-3,
    )
    agent, interaction = made("CartPole-v1", settings)
    progress = list(ppo_run(agent, interaction, settings=settings, seed=0))
    assert progress[2].metrics["return"] < 40
    assert progress[-1].metrics["return"] > 100


def test_a_memory_solves_what_the_last_observation_does_not_tell():
    settings = PpoSettings(
        environment_steps=16_000, environments=16, rollout_steps=16, epochs=4, minibatches=2,
        learning_rate=3e-3, cell="gru", memory_width=16, hidden=(16,),
    )  # fmt: skip
    interaction = Interaction(
        InThisProcess([partial(registry.prepared, Remember()) for _ in range(16)]), seed=0
    )
    agent = actor_critic(interaction, settings, seed=0)
    last = list(itertools.islice(ppo_run(agent, interaction, settings=settings, seed=0), 200))[-1]
    assert last.metrics["return"] > 0.9

"""RL2: what one trial of its training looks like, and what makes no sense."""

import math
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.evaluation.playing import Start, Trial, play
from policysmith.experience.interaction import Interaction
from policysmith.systems.rl2 import PRESETS, Config, beginner, in_trials, train
from policysmith.training.learners.on_policy import RolloutCollector, gae
from policysmith.training.learners.ppo import actor_critic
from policysmith.training.loop import finish
from policysmith.worlds.point import PointReach
from policysmith.worlds.trials import EPISODE, Feedback


class Hidden(gymnasium.Env):
    """One of two buttons pays, the same through a trial; nothing is shown."""

    def __init__(self, length=2):
        self.length = length
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.good, self.steps = self.np_random.choice([-1.0, 1.0]), 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        right = float(np.sign(action[0]) == self.good)
        return np.zeros(1, np.float32), 10 * right, False, self.steps == self.length, {"success": right}


class Late(gymnasium.Env):
    """Episodes of two steps, of which only the second of a trial's second episode pays."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.episode, self.steps = (options or {}).get(EPISODE, 0), 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        over = self.steps == 2
        return np.zeros(1, np.float32), 8.0 * (over and self.episode == 1), False, over, {}


SMALL = Config(
    episodes=3,
    environment_steps=12_288,
    environments=32,
    rollout_steps=6,
    epochs=8,
    minibatches=1,
    memory_width=16,
    hidden=(16,),
    learning_rate=1e-2,
    discount=0.9,
    gae_lambda=0.9,
    normalise_rewards=True,
)


def returns_by_episode(make, config):
    """Mean return of each episode of a trial, after training in such trials."""
    policy = finish(train(make, config=config, seed=0)).policy()
    starts = [[Start(seed)] * config.episodes for seed in range(20)]
    trials = [Trial(lambda: Feedback(make()), one, explore=config.episodes) for one in starts]
    return play(policy, trials).returns.reshape(20, -1).mean(0)


def test_a_policy_learns_to_look_first_and_to_use_what_it_saw():
    returns = returns_by_episode(Hidden, SMALL)
    assert returns[0] < 17  # the first press of a trial is a guess
    assert returns[1:].min() > 18  # both presses of later episodes are right


def test_what_an_episode_paid_at_its_last_step_is_used_in_the_next():
    returns = returns_by_episode(partial(Hidden, 1), replace(SMALL, rollout_steps=3, environments=64))
    assert returns[0] < 8  # the button that pays in 15 of the 20 trials
    assert returns[1:].min() > 9


def test_an_action_is_credited_with_rewards_of_later_episodes_of_its_trial_and_of_no_other():
    settings = Config(episodes=2, environments=1, minibatches=1, memory_width=4, discount=0.5, gae_lambda=1.0)
    interaction = Interaction.of(partial(in_trials, Late, 2), 1, seed=0)
    agent = actor_critic(interaction, settings, seed=0)
    torch.nn.init.zeros_(agent.critic.weight)  # so that an advantage is the discounted sum of what is paid
    rollout = RolloutCollector(agent, interaction, torch.Generator()).roll_out(7)
    assert rollout["reward"][:, 0].tolist() == [0, 0, 0, 8, 0, 0, 0]
    advantage = gae(settings)(rollout)["advantage"][:, 0]
    assert advantage[:4].tolist() == pytest.approx([1, 2, 4, 8])
    assert advantage[4:].tolist() == [0, 0, 0]


def test_nothing_is_expected_behind_the_end_of_a_trial():
    settings = Config(episodes=2, environments=1, minibatches=1, memory_width=4, discount=0.5, gae_lambda=0.0)
    interaction = Interaction.of(partial(in_trials, Late, 2), 1, seed=0)
    agent = actor_critic(interaction, settings, seed=0)
    torch.nn.init.zeros_(agent.critic.weight)
    torch.nn.init.constant_(agent.critic.bias, 2.0)  # what every moment is thought to be worth
    rollout = gae(settings)(RolloutCollector(agent, interaction, torch.Generator()).roll_out(5))
    # reward + 0.5 * 2 - 2, within episodes, across their ends, and of the rollout that is cut; but 8 - 2.
    assert rollout["advantage"][:, 0].tolist() == pytest.approx([-1, -1, -1, 6, -1])


def test_what_was_seen_in_an_episode_has_gradient_from_the_next_and_not_from_the_next_trial():
    interaction = Interaction.of(partial(in_trials, Late, 2), 1, seed=0)
    agent = actor_critic(interaction, Config(environments=1, minibatches=1, memory_width=4), seed=0)
    rollout = RolloutCollector(agent, interaction, torch.Generator()).roll_out(6)
    seen = rollout["observation"].requires_grad_()
    log_prob = agent.evaluate(rollout)[0]
    within, beyond = (torch.autograd.grad(log_prob[step], seen, retain_graph=True)[0] for step in (3, 5))
    assert (within[1].abs() > 0).any()
    assert beyond[:4].abs().max() == 0
    assert (beyond[4].abs() > 0).any()


def test_what_is_learnt_in_is_trials_with_feedback():
    environment = in_trials(PointReach, 3)
    seen, _ = environment.reset(seed=0)
    assert seen.shape == (4 + 2 + 2,)
    assert environment.episodes == 3


def test_the_policy_keeps_its_memory_for_the_trial_alone():
    policy = finish(train(PointReach, config=PRESETS["tiny"], seed=0)).policy()
    state = policy.initial_state(2)
    state["memory"] += 1
    mask = torch.ones(2, dtype=torch.bool)
    kept = policy.new_episode(state, mask)
    assert kept["memory"].min() == 1
    assert policy.reset(state, mask)["memory"].abs().max() == 0


def test_the_memory_begins_with_the_spans_that_are_asked_for():
    interaction = Interaction.of(partial(in_trials, PointReach, 2), 1, seed=0)
    config = Config(environments=1, minibatches=1, memory_width=3)
    agents = [beginner(interaction, replace(config, memory_steps=steps), seed=0) for steps in (0, 4)]
    short, long = (agent.policy.body.cell for agent in agents)
    assert short.bias_ih[3:6].abs().max() < 1
    assert long.bias_ih[3:6].tolist() == pytest.approx([0, math.log(2), math.log(3)])


def test_settings_and_environments_that_make_no_sense_are_refused():
    with pytest.raises(SettingError, match="0 episodes"):
        Config(episodes=0)
    with pytest.raises(SettingError, match="memory_steps is 1"):
        Config(memory_steps=1)
    with pytest.raises(SettingError, match="without a cell"):
        Config(cell="", environments=20)
    with pytest.raises(CapabilityError, match="side by side"):
        train(PointReach(), config=PRESETS["tiny"])

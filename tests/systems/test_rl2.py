"""RL2: what one trial of its training looks like, and what makes no sense."""

import gymnasium
import numpy as np
import pytest
import torch

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.evaluation.playing import Start, Trial, play
from policysmith.systems.rl2 import PRESETS, Config, in_trials, train
from policysmith.training.loop import finish
from policysmith.worlds.point import PointReach
from policysmith.worlds.trials import Feedback


class Hidden(gymnasium.Env):
    """One of two buttons pays, the same through a trial; nothing is shown. Episodes are two steps long."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.good, self.steps = self.np_random.choice([-1.0, 1.0]), 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        right = float(np.sign(action[0]) == self.good)
        return np.zeros(1, np.float32), 10 * right, False, self.steps == 2, {"success": right}


def test_a_policy_learns_to_look_first_and_to_use_what_it_saw():
    config = Config(
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
    policy = finish(train(Hidden, config=config, seed=0)).policy()
    trials = [Trial(lambda: Feedback(Hidden()), [Start(seed)] * 3, explore=3) for seed in range(20)]
    returns = play(policy, trials).returns.reshape(20, 3).mean(0)
    assert returns[0] < 17  # the first press of a trial is a guess
    assert returns[1:].min() > 18  # both presses of later episodes are right


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


def test_settings_and_environments_that_make_no_sense_are_refused():
    with pytest.raises(SettingError, match="0 episodes"):
        Config(episodes=0)
    with pytest.raises(SettingError, match="without a cell"):
        Config(cell="", environments=20)
    with pytest.raises(CapabilityError, match="side by side"):
        train(PointReach(), config=PRESETS["tiny"])

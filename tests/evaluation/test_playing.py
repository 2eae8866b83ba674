"""Playing trials: what a policy keeps between episodes, what it learns from, which world it is in."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.errors import SettingError, ShapeError
from policysmith.evaluation.playing import EXPERIENCE, Start, Trial, play
from policysmith.evaluation.rollouts import roll_out
from policysmith.policies.protocol import Policy


class Guess(gymnasium.Env):
    """A number to guess: the observation is the step, the reward how near the last action was.

    Success within 0.1; `options={"target": ...}` sets the number, otherwise it is the seed.
    """

    observation_space = Box(0, np.inf, (1,), np.float32)
    action_space = Box(-10, 10, (1,), np.float32)
    made = 0

    def __init__(self, length=3):
        type(self).made += 1
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.target = float((options or {}).get("target", seed))
        self.step_number = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.step_number += 1
        error = abs(float(action[0]) - self.target)
        observation = np.array([self.step_number], np.float32)
        return observation, -error, False, self.step_number >= self.length, {"success": error < 0.1}


class Counter(Policy):
    """Acts the number of its decisions in the trial (1, 2, ...), or in the episode where it forgets."""

    observation_size, action_size = 1, 1

    def __init__(self, *, keeps):
        super().__init__()
        self.keeps = keeps

    def initial_state(self, batch):
        state = super().initial_state(batch)
        state["decisions"] = torch.zeros(batch, 1)
        return state

    def new_episode(self, state, mask):
        return state if self.keeps else self.reset(state, mask)

    def act(self, observation, state, *, rng):
        state = state.clone()
        state["decisions"] += 1
        state["network_calls"] += 1
        return state["decisions"][:, None], state


class Learner(Counter):
    """Acts zero until it adapts: then what the rewards for acting zero say of the target."""

    def __init__(self):
        super().__init__(keeps=True)
        self.given = []

    def act(self, observation, state, *, rng):
        return state["decisions"][:, None], state

    def adapt(self, state, experience, *, rng):
        self.given.append(experience)
        state = state.clone()
        state["decisions"] = -experience["reward"][:, :1]
        return state


class Knowing:
    """A scripted expert that reads the number from its environment."""

    def __init__(self, env):
        self.env = env
        self.begun = []

    def reset(self, seed=None):
        self.begun.append(seed)

    def act(self, observation):
        assert observation.shape == (1,)
        return np.array([self.env.target], np.float32)


def at(*targets):
    return [Start(options={"target": target}) for target in targets]


def test_a_trial_keeps_what_the_policy_keeps():
    # Guesses 1, 2, 3 in the first episode; 4, 5 in the second, if it goes on counting.
    trials = [Trial(Guess, at(9, 5))]
    kept, forgotten = (play(Counter(keeps=keeps), trials) for keeps in (True, False))
    assert kept.success.tolist() == [False, True]
    assert kept.lengths.tolist() == [3, 2]
    assert kept.returns.tolist() == [-(8 + 7 + 6), -1]
    assert forgotten.success.tolist() == [False, False]
    assert forgotten.returns.tolist() == [-(8 + 7 + 6), -(4 + 3 + 2)]


def test_another_trial_begins_anew_whatever_the_policy_keeps():
    together = play(Counter(keeps=True), [Trial(Guess, at(9, 5)), Trial(Guess, at(2))], parallel=1)
    assert together.success.tolist() == [False, True, True]
    assert together.lengths.tolist() == [3, 2, 2]
    assert together.network_calls.tolist() == [3, 2, 2]


def test_results_do_not_depend_on_how_many_trials_are_played_at_once():
    trials = [Trial(Guess, at(*targets)) for targets in ((9, 5), (2,), (1, 1, 3), (7,), (3, 6))]
    alone, some, all_at_once = (play(Counter(keeps=True), trials, parallel=n) for n in (1, 2, 9))
    for one in (some, all_at_once):
        assert one.lengths.tolist() == alone.lengths.tolist()
        assert one.returns.tolist() == alone.returns.tolist()
        assert one.success.tolist() == alone.success.tolist()


def test_exploration_is_played_to_its_end():
    result = play(Counter(keeps=False), [Trial(Guess, at(1, 1), explore=1)])
    assert result.lengths.tolist() == [3, 1]
    assert result.success.tolist() == [True, True]


def test_a_policy_adapts_to_the_steps_of_its_exploration_alone():
    policy = Learner()
    trials = [Trial(Guess, at(4, 4, 4), explore=2, adapt_every=2), Trial(Guess, at(6, 6, 6), 2, 2)]
    result = play(policy, trials)
    assert result.success.tolist() == [False, False, True] * 2
    assert result.lengths.tolist() == [3, 3, 1] * 2
    assert len(policy.given) == 2
    experience = policy.given[0]
    assert experience.batch_size == (1, 6)
    assert set(experience.keys()) == set(EXPERIENCE)
    assert experience["observation"][0, :, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert experience["next_observation"][0, :, 0].tolist() == [1, 2, 3, 1, 2, 3]
    assert experience["truncated"][0].tolist() == [False, False, True] * 2
    assert experience["reward"][0].tolist() == [-4] * 6


def test_what_is_learnt_from_is_not_written_over():
    class Reusing(Guess):
        def reset(self, **kwargs):
            self.buffer, info = super().reset(**kwargs)
            return self.buffer, info

        def step(self, action):
            self.buffer[:], *rest = super().step(action)
            return self.buffer, *rest

    policy = Learner()
    play(policy, [Trial(Reusing, at(4, 4), explore=1, adapt_every=1)])
    assert policy.given[0]["observation"][0, :, 0].tolist() == [0, 1, 2]
    assert policy.given[0]["next_observation"][0, :, 0].tolist() == [1, 2, 3]


def test_adapting_several_times_gives_each_its_own_steps():
    policy = Learner()
    play(policy, [Trial(Guess, at(4, 4, 5, 5, 5), explore=4, adapt_every=2)], limit=2)
    assert [tuple(experience.batch_size) for experience in policy.given] == [(1, 4), (1, 4)]
    # It guesses 4 from the third episode on, where 5 was right.
    assert policy.given[1]["reward"][0].tolist() == [-1] * 4
    assert policy.given[0]["truncated"][0].tolist() == [False, True] * 2


def test_adapting_may_take_gradients():
    class Descending(Learner):
        def adapt(self, state, experience, *, rng):
            guess = torch.zeros((), requires_grad=True)
            seen = experience["observation"].sum() * 0 + state["decisions"].sum()
            ((guess + seen - 4) ** 2).backward()
            state = state.clone()
            state["decisions"] = -0.5 * guess.grad.reshape(1, 1)
            return state

    assert play(Descending(), [Trial(Guess, at(4, 4), 1, 1)]).success.tolist() == [False, True]


def test_a_row_changes_its_environment_only_where_the_trial_has_another():
    class Short(Guess):
        made = 0

    def short():
        return Short(length=1)

    Guess.made = 0
    trials = [Trial(Guess, at(9)), Trial(Guess, at(9)), Trial(short, at(9)), Trial(short, at(9))]
    assert play(Counter(keeps=False), trials, parallel=1).lengths.tolist() == [3, 3, 1, 1]
    assert (Guess.made, Short.made) == (1, 1)


def test_a_scripted_expert_is_made_for_its_environment_and_begins_each_episode():
    experts = []

    def make(env):
        experts.append(Knowing(env))
        return experts[-1]

    result = play(make, [Trial(Guess, [Start(3), Start(4)]), Trial(Guess, [Start(5)])], parallel=1)
    assert result.success.all()
    assert result.lengths.tolist() == [1, 1, 1]
    assert [expert.begun for expert in experts] == [[3, 4, 5]]


def test_roll_out_plays_one_episode_per_seed():
    result = roll_out(Counter(keeps=True), Guess, seeds=[2, 9, 1], parallel=2)
    assert result.seeds == [2, 9, 1]
    assert result.success.tolist() == [True, False, True]
    assert result.lengths.tolist() == [2, 3, 1]
    to_the_end = roll_out(Counter(keeps=True), Guess, seeds=[2], stop_on_success=False, limit=2)
    assert (to_the_end.lengths.tolist(), to_the_end.success.tolist()) == ([2], [True])


def test_nothing_to_play_and_a_policy_of_another_world_are_refused():
    with pytest.raises(SettingError, match="no episodes"):
        play(Counter(keeps=True), [])
    with pytest.raises(SettingError, match="no episodes"):
        play(Counter(keeps=True), [Trial(Guess, [])])

    class Wide(Guess):
        observation_space = Box(0, 1, (2,), np.float32)

    with pytest.raises(ShapeError, match="observations"):
        play(Counter(keeps=True), [Trial(Guess, at(1)), Trial(Wide, at(1))], parallel=1)

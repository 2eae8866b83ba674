"""The actor: every row on a clock of its own, whatever the others do."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from policysmith.common.errors import CapabilityError, ShapeError
from policysmith.policies.acting import Actor, PolicyExpert
from policysmith.policies.protocol import Policy

torch.set_num_threads(1)


class Scripted(Policy):
    """Acts (oldest value seen, newest value seen, step of the chunk, decisions so far); has no weights."""

    observation_size, action_size = 1, 4

    def __init__(self, observation_steps=3, action_steps=4):
        super().__init__()
        self.observation_steps, self.action_steps = observation_steps, action_steps

    def initial_state(self, batch):
        state = super().initial_state(batch)
        state["decisions"] = torch.zeros(batch, 1)
        return state

    def act(self, observation, state, *, rng):
        self.check_batch(observation, state)
        state = state.clone()
        state["decisions"] += 1
        state["network_calls"] += 2
        ones = torch.ones(len(observation), self.action_steps)
        columns = (
            observation[:, 0] * ones,
            observation[:, -1] * ones,
            torch.arange(self.action_steps) * ones,
            state["decisions"] * ones,
        )
        return torch.stack(columns, dim=-1), state


class Linear(Policy):
    """A network without randomness, with a memory."""

    observation_size, action_size, observation_steps, action_steps = 3, 2, 2, 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.arange(6.0).reshape(2, 3))
            self.layer.bias.zero_()

    def initial_state(self, batch):
        state = super().initial_state(batch)
        state["memory"] = torch.zeros(batch, 2, dtype=torch.double)
        return state

    def act(self, observation, state, *, rng):
        state = state.clone()
        state["memory"] = 0.5 * state["memory"] + self.layer(observation.double()).sum(1)
        return state["memory"][:, None].repeat(1, 2, 1), state


def made(policy, batch):
    return Actor(policy, batch, rng=torch.Generator().manual_seed(0))


def mask(*entries):
    return torch.tensor(entries, dtype=torch.bool)


def test_a_chunk_is_played_step_by_step_before_the_policy_is_asked_again():
    actor = made(Scripted(observation_steps=1, action_steps=3), 1)
    played = [actor.act(np.array([[float(t)]]))[0].tolist() for t in range(7)]
    decided_at = [0, 0, 0, 3, 3, 3, 6]
    assert [row[1] for row in played] == decided_at
    assert [row[2] for row in played] == [0, 1, 2, 0, 1, 2, 0]
    assert [row[3] for row in played] == [1, 1, 1, 2, 2, 2, 3]
    assert actor.network_calls.tolist() == [6]


def test_the_window_starts_filled_with_the_first_observation_and_holds_the_newest_last():
    actor = made(Scripted(observation_steps=3, action_steps=1), 1)
    played = [actor.act(np.array([[float(t)]]))[0].tolist() for t in range(10, 15)]
    assert [row[0] for row in played] == [10, 10, 10, 11, 12]
    assert [row[1] for row in played] == [10, 11, 12, 13, 14]


def test_the_window_moves_between_decisions_too():
    actor = made(Scripted(observation_steps=2, action_steps=3), 1)
    played = [actor.act(np.array([[float(t)]]))[0].tolist() for t in range(4)]
    assert played[3][:2] == [2, 3]


def test_reset_of_one_row_leaves_the_others_in_the_middle_of_their_chunk():
    actor = made(Scripted(observation_steps=2, action_steps=4), 3)
    for t in range(2):
        actor.act(np.full((3, 1), float(t)))
    actor.reset(mask(0, 1, 0))
    action = actor.act(np.full((3, 1), 50.0))
    assert actor.decided.tolist() == [False, True, False]
    assert action[1].tolist() == [50, 50, 0, 1]  # window filled anew, memory begun anew
    assert action[[0, 2]].tolist() == [[0, 0, 2, 1]] * 2
    assert actor.network_calls.tolist() == [2, 4, 2]  # a measurement: not reset


def test_an_inactive_row_gets_its_last_action_and_forgets_nothing():
    actor = made(Scripted(observation_steps=2, action_steps=3), 2)
    last = actor.act(np.array([[0.0], [0.0]]))
    for t in (77.0, 78.0, 79.0, 80.0):
        action = actor.act(np.array([[1.0], [t]]), mask(1, 0))
        assert action[1].tolist() == last[1].tolist()
        assert not actor.decided[1]
    resumed = [actor.act(np.array([[1.0], [t]]), mask(0, 1))[1].tolist() for t in (1.0, 2.0, 3.0)]
    assert [row[2] for row in resumed] == [1, 2, 0]
    assert resumed[2][:2] == [2, 3]  # what was seen while inactive is not in the window
    assert actor.network_calls.tolist() == [4, 4]


def test_rows_that_decide_at_the_same_tick_are_given_to_the_policy_together():
    seen = []

    class Counting(Scripted):
        def act(self, observation, state, *, rng):
            seen.append(len(observation))
            return super().act(observation, state, rng=rng)

    actor = made(Counting(action_steps=2), 3)
    observation = np.zeros((3, 1))
    actor.act(observation)
    actor.reset(mask(1, 0, 0))
    actor.act(observation)
    actor.act(observation)
    actor.act(observation)
    assert seen == [3, 1, 2, 1]


def test_nobody_active_asks_nobody():
    actor = made(Scripted(), 2)
    assert actor.act(np.ones((2, 1)), mask(0, 0)).shape == (2, 4)
    assert actor.network_calls.tolist() == [0, 0]
    assert actor.act(np.full((2, 1), 5.0))[:, 0].tolist() == [5, 5]  # the first it sees is its first


Episode = st.lists(st.integers(-9, 9), min_size=1, max_size=9)


@settings(deadline=None, max_examples=30)
@given(st.lists(Episode, min_size=1, max_size=6), st.integers(1, 3), st.randoms(use_true_random=False))
def test_a_row_acts_the_same_alone_as_among_others(episodes, rows, random):
    """Episodes are dealt to rows as they get free, with rows idle at random; each acts as it would alone."""

    def observed(value):
        return [value, 1.0, -value]

    alone = []
    for episode in episodes:
        actor = made(Linear(), 1)
        alone.append([actor.act(np.array([observed(value)]))[0].tolist() for value in episode])

    actor = made(Linear(), rows)
    waiting = list(range(len(episodes)))
    playing = [waiting.pop(0) if waiting else None for _ in range(rows)]
    together = [[] for _ in episodes]
    while any(number is not None for number in playing):
        active = torch.tensor([number is not None and random.random() < 0.7 for number in playing])
        observation = np.full((rows, 3), 1e6)  # what an idle row shows must not matter
        for row in active.nonzero()[:, 0].tolist():
            observation[row] = observed(episodes[playing[row]][len(together[playing[row]])])
        action = actor.act(observation, active)
        ended = torch.zeros(rows, dtype=torch.bool)
        for row in active.nonzero()[:, 0].tolist():
            number = playing[row]
            together[number].append(action[row].tolist())
            if len(together[number]) == len(episodes[number]):
                ended[row], playing[row] = True, waiting.pop(0) if waiting else None
        actor.reset(ended)
    assert together == alone


class Sharing(Scripted):
    """Writes down (rows, newest value, ticks) of every call to work ahead."""

    def __init__(self, **options):
        super().__init__(**options)
        self.ahead = []

    def work_ahead(self, observation, state, *, ticks, rng):
        self.ahead.append((len(observation), observation[:, -1, 0].tolist(), ticks.tolist()))
        return state


def test_spreading_works_ahead_at_every_tick_but_the_decisions():
    policy = Sharing(observation_steps=2, action_steps=4)
    actor = Actor(policy, 1, rng=torch.Generator(), spread=True)
    played = [actor.act(np.array([[float(t)]]))[0, 2] for t in range(6)]
    assert played == [0, 1, 2, 3, 0, 1]
    assert policy.ahead == [(1, [1], [4]), (1, [2], [3]), (1, [3], [2]), (1, [5], [4])]


def test_spreading_lets_only_rows_in_the_middle_of_a_chunk_work_ahead():
    policy = Sharing(observation_steps=1, action_steps=3)
    actor = Actor(policy, 3, rng=torch.Generator(), spread=True)
    actor.act(np.zeros((3, 1)))
    actor.reset(mask(1, 0, 0))
    actor.act(np.array([[1.0], [2.0], [3.0]]), mask(1, 1, 0))
    actor.act(np.array([[4.0], [5.0], [6.0]]), fresh=mask(1, 0, 1))
    assert policy.ahead == [(1, [2], [3]), (2, [4, 6], [3, 3])]


def test_spreading_is_off_unless_asked_for_and_needs_the_capability():
    policy = Sharing(action_steps=3)
    actor = made(policy, 1)
    for _ in range(3):
        actor.act(np.zeros((1, 1)))
    assert policy.ahead == []
    with pytest.raises(CapabilityError, match=r"spreading network calls over ticks needs.*'work_ahead'"):
        Actor(Scripted(), 1, rng=torch.Generator(), spread=True)


def test_rows_that_are_not_fresh_play_on_without_looking():
    actor = made(Scripted(observation_steps=2, action_steps=2), 2)
    actor.act(np.array([[1.0], [1.0]]))
    assert actor.planned.tolist() == [1, 1]
    action = actor.act(np.array([[2.0], [2.0]]), fresh=mask(1, 0))
    assert action[:, 2].tolist() == [1, 1]
    assert actor.planned.tolist() == [0, 0]
    assert actor.act(np.array([[3.0], [3.0]]))[:, :2].tolist() == [[2, 3], [1, 3]]


def test_actions_are_copies():
    actor = made(Scripted(action_steps=2), 1)
    actor.act(np.zeros((1, 1)))[:] = 99
    assert actor.act(np.zeros((1, 1)))[0].tolist() == [0, 0, 1, 1]


def test_masks_may_be_numpy_as_observations_are():
    actor = made(Scripted(observation_steps=1, action_steps=2), 2)
    actor.act(np.zeros((2, 1)), np.array([True, False]))
    actor.reset(np.array([True, False]))
    assert actor.network_calls.tolist() == [2, 0]


@pytest.mark.parametrize("shape", [(2, 2), (3, 1), (2,), (2, 1, 1)])
def test_observations_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"expected: \[2, 1\], as the policy was made for"):
        made(Scripted(), 2).act(np.zeros(shape))


def test_masks_of_another_length_are_refused():
    actor = made(Scripted(), 2)
    for wrong in (mask(1), mask(1, 1, 1)):
        with pytest.raises(ShapeError, match="2 rows"):
            actor.act(np.zeros((2, 1)), wrong)
        with pytest.raises(ShapeError, match="2 rows"):
            actor.reset(wrong)


def test_a_policy_that_returns_fewer_actions_than_it_says_is_refused():
    class Short(Scripted):
        def act(self, observation, state, *, rng):
            actions, state = super().act(observation, state, rng=rng)
            return actions[:, :1], state

    with pytest.raises(ShapeError, match=r"Short returned actions of shape \[2, 1, 4\](.|\n)*\[2, 4, 4\]"):
        made(Short(), 2).act(np.zeros((2, 1)))


def test_an_expert_made_of_a_policy_begins_anew_at_reset():
    expert = PolicyExpert(Scripted(observation_steps=2, action_steps=2), rng=torch.Generator())
    first = [expert.act(np.array([value])).tolist() for value in (1.0, 2.0, 3.0)]
    assert [action[:2] for action in first] == [[1, 1], [1, 1], [2, 3]]
    expert.reset(seed=3)
    assert [expert.act(np.array([value])).tolist() for value in (1.0, 2.0, 3.0)] == first


def test_the_actor_drives_a_gymnasium_environment():
    class Proportional(Policy):
        observation_size, action_size = 3, 1

        def act(self, observation, state, *, rng):
            return -observation[:, :, 1:2], state

    environment = gymnasium.make("Pendulum-v1")
    observation, _ = environment.reset(seed=0)
    actor = made(Proportional(), 1)
    for _ in range(3):
        action = actor.act(observation[None])[0]
        np.testing.assert_allclose(action, -observation[1:2], rtol=1e-6)
        observation, *_ = environment.step(action)
    environment.close()

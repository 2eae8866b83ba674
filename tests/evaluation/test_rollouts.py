"""Rollouts and timing of a streaming policy whose calls are spread, and of one whose calls are not."""

import numpy as np
import pytest
import torch

from policysmith.evaluation.conformance import ENVIRONMENT
from policysmith.evaluation.rollouts import Timing, roll_out, time_decisions
from policysmith.policies.protocol import Policy
from policysmith.worlds import registry

torch.set_num_threads(1)


class Working(Policy):
    """Walks to the goal of point-reach, three actions a decision, three network calls for each."""

    observation_size, action_size, action_steps = 4, 2, 3

    def act(self, observation, state, *, rng):
        position, goal = observation[:, -1, :2], observation[:, -1, 2:]
        action = ((goal - position) / 0.3).clamp(-1, 1)
        state = state.clone()
        state["network_calls"] += 3 - state["network_calls"] % 3
        return action[:, None].expand(-1, 3, -1), state

    def work_ahead(self, observation, state, *, ticks, rng):
        state = state.clone()
        state["network_calls"] += 1
        return state


def make():
    return registry.make(ENVIRONMENT)


def test_shares_of_late_ticks_are_counted_tick_by_tick():
    timing = Timing(np.array([60.0, 120.0]), 4, np.array([60.0, 1.0, 1.0, 1.0, 120.0, 1.0, 1.0, 1.0]))
    assert timing.action_ms.tolist() == [15, 30]
    assert [timing.missed(rate) for rate in (8, 10, 20, 2000)] == [0, 0.125, 0.25, 1]


def test_spreading_counts_the_calls_made_ahead():
    at_once = roll_out(Working(), make, seeds=range(4))
    spread = roll_out(Working(), make, seeds=range(4), spread=True)
    assert np.array_equal(at_once.lengths, spread.lengths)
    decisions = -(-at_once.lengths // 3)
    assert at_once.network_calls.tolist() == (3 * decisions).tolist()
    # What the last ticks of an episode did ahead is thrown away, and counted.
    left_over = (spread.lengths - 1) % 3
    assert spread.network_calls.tolist() == (3 * decisions + left_over).tolist()


@pytest.mark.parametrize("spread", [False, True])
def test_a_decision_is_timed_with_the_work_done_ahead_for_it(spread, monkeypatch):
    clock = iter(range(10**6))  # every look at the clock is a second later: a tick takes one
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    timing = time_decisions(Working(), make, decisions=6, warmup=1, spread=spread)
    assert len(timing.decision_ms) == 6
    assert set(timing.tick_ms.tolist()) == {1000.0}
    # An episode's first decision has no ticks before it that could work ahead.
    expected = {1000.0, 3000.0} if spread else {1000.0}
    assert set(timing.decision_ms.tolist()) == expected

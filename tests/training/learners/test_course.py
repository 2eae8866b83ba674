"""The schedule of a run over a front: who is trained when, at what rate, for what, held by which bounds."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from policysmith.networks.running import RunningReturnScale
from policysmith.training.learner import Learner
from policysmith.training.learners.copies import AgentCopy
from policysmith.training.learners.course import Course, Schedule

SCHEDULE = Schedule(
    weights=torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]),
    initial=7,
    extension=2,
    optimizer_steps=10,
    decayed_rate=False,
    beta=0.9,
    shift=torch.zeros(2),
    moving=False,
)
ONE = torch.ones(2)


def weight(value):
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, value)
    return module


class Run:
    """A course with an agent whose only weight says where it is from."""

    def __init__(self, schedule=SCHEDULE):
        module = weight(-1.0)
        self.learner = Learner(module, None, optimizer=torch.optim.Adam(module.parameters()))
        self.scale = RunningReturnScale(1, 0.9, objectives=2)
        self.course = Course(schedule, fresh=lambda number: weight(100.0 + number))
        self.rounds = 0

    def pick(self):
        self.rounds += 1
        return [self.copy(10.0 * self.rounds), self.copy(10.0 * self.rounds + 1)]

    def copy(self, value):
        learner = Learner(weight(value), None, optimizer=self.learner.optimizer)
        return AgentCopy.of(learner, self.scale, returns=[0, 0], rate=0.3)

    def at(self, step):
        """Go to a step: where the agent is from, and the weights of the objectives."""
        self.course.go_on(step, self.learner, self.scale, pick=self.pick)
        return self.learner.module.weight.item(), self.course.weights.tolist()


def extending(schedule=SCHEDULE, objective=0):
    run = Run(schedule)
    run.course.go_on(schedule.initial, run.learner, run.scale, pick=run.pick)
    run.course.objective = objective
    return run.course


def test_first_each_weight_vector_has_its_share_of_updates_from_a_fresh_agent():
    run = Run()
    seen = [run.at(step) for step in range(7)]
    assert [agent for agent, _ in seen] == [100, 100, 101, 101, 102, 102, 102]
    assert [weights[0] for _, weights in seen] == [0, 0, 0.5, 0.5, 1, 1, 1]
    assert [step for step in range(30) if run.course.ends_weights(step)] == [1, 3, 6]
    assert not run.course.extends


def test_then_each_picked_copy_is_extended_along_each_objective_round_after_round():
    run = Run()
    seen = [run.at(step) for step in range(7, 19)]
    assert [agent for agent, _ in seen[::2]] == [10, 10, 11, 11, 20, 20]
    assert [weights for _, weights in seen[::2]] == [[1, 0], [0, 1]] * 3
    assert seen[::2] == seen[1::2]
    assert run.rounds == 2


def test_the_rate_falls_to_zero_over_a_weight_vectors_updates_and_is_full_in_extensions():
    run = Run()
    run.at(2)
    assert [run.course.rate(taken) for taken in (0, 10, 20)] == [1, 0.5, 0]
    run.at(4)
    assert run.course.rate(15) == 0.5
    run.at(7)
    assert run.course.rate(0) == run.course.rate(999) == 1.0
    assert extending(replace(SCHEDULE, decayed_rate=True)).rate(0) == pytest.approx(0.3)


def test_a_fresh_agent_has_fresh_scales_and_a_fresh_optimizer():
    run = Run()
    run.scale.update(torch.tensor([[5.0, 1.0]]), torch.tensor([False]))
    run.learner.optimizer.state["something"] = 1
    run.learner.steps = 9
    run.at(2)
    assert float(run.scale.count) == 0
    assert not run.learner.optimizer.state
    assert run.learner.steps == 0


def test_bounds_are_a_share_of_what_the_copy_had_on_either_side_of_zero():
    course = extending()
    course.bound(torch.tensor([[[4.0, -2.0]], [[0.0, -2.0]]]), ONE)
    mean, bounds = course.mean_and_bounds(torch.tensor([[3.0, -1.0]]), ONE)
    assert mean.tolist() == [3, -1]
    assert bounds.tolist() == pytest.approx([0.9 * 2, -2.2])
    # They stay in the rewards' own units when the scale moves on, and are not taken anew.
    course.bound(torch.full((1, 1, 2), 50.0), ONE)
    assert course.mean_and_bounds(torch.zeros(1, 2), 2 * ONE)[1].tolist() == pytest.approx([0.9, -1.1])


def test_a_shift_counts_in_the_rewards_own_units():
    course = extending(replace(SCHEDULE, shift=torch.tensor([0.0, 10.0])))
    course.bound(torch.tensor([[[2.0, -1.0]]]), 2 * ONE)
    mean, bounds = course.mean_and_bounds(torch.tensor([[2.0, -1.0]]), 2 * ONE)
    assert mean.tolist() == [2, 4]  # (-2 + 10) / 2
    assert bounds.tolist() == pytest.approx([1.8, 3.6])


def test_moving_bounds_follow_the_present_returns_and_warn_where_they_hold_nothing():
    moving = replace(SCHEDULE, moving=True)
    with pytest.warns(UserWarning, match="constraint 1 is inactive.*shift.*absolute thresholds"):
        extending(moving).bound(torch.tensor([[[2.0, -1.0]]]), ONE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extending(moving, objective=1).bound(torch.tensor([[[2.0, -1.0]]]), ONE)  # improved, not held
        course = extending(replace(moving, shift=torch.tensor([0.0, 5.0])))
        course.bound(torch.tensor([[[2.0, -1.0]]]), ONE)
    mean, bounds = course.mean_and_bounds(torch.tensor([[6.0, -3.0]]), ONE)
    assert bounds.tolist() == pytest.approx((0.9 * mean).tolist())


def test_a_course_goes_on_from_its_state():
    run = Run()
    for step in range(10):
        run.at(step)
    run.course.bound(torch.ones(1, 1, 2), ONE)
    again = Run()
    again.rounds = run.rounds
    again.learner.module.load_state_dict(run.learner.module.state_dict())
    again.course.load_state_dict(run.course.state_dict())
    assert [again.at(step) for step in range(10, 30)] == [run.at(step) for step in range(10, 30)]

"""Heads of tasks: each row is answered by its own, shares the body, and leaves other tasks' layers alone."""

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator, seeded_initialisation
from policysmith.common.saving import from_pretrained
from policysmith.policies.actors import NetworkPolicy
from policysmith.policies.multi_task import TaskBody, TaskHead, TaskQ, task_of

LOW, HIGH = (-1.0, -2.0), (1.0, 2.0)


def observations(tasks, rows=3, count=3):
    """The same rows of 4 numbers, told of the given task."""
    seen = torch.randn(rows, 4, generator=generator(0, "seen"))
    return torch.cat([seen, torch.eye(count)[tasks]], -1)


def actor(tasks=3):
    with seeded_initialisation(0):
        body = TaskBody(4 + tasks, tasks, hidden=(16,))
        return NetworkPolicy(body, TaskHead(body.width, tasks, LOW, HIGH), deterministic=True)


def critic(tasks=3):
    with seeded_initialisation(0):
        return TaskQ(4 + tasks, tasks, LOW, HIGH, members=2, hidden=(16,))


def test_the_task_is_what_the_observation_ends_in():
    assert task_of(observations([0, 2, 1]), 3).argmax(-1).tolist() == [0, 2, 1]


def test_each_row_is_answered_by_the_layer_of_its_task():
    policy, seen = actor(), observations([0, 2, 1])
    before = policy.distribution(seen).mode()
    with torch.no_grad():
        policy.head.both.bias[4 * 2 : 4 * 3] += 1.0  # mean and deviation of two numbers, of the third task
    after = policy.distribution(seen).mode()
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert (after[1] > before[1]).all()


def test_the_actors_gradient_stays_with_the_rows_task():
    policy = actor()
    action, _ = policy.draw(observations([1, 1, 1]), generator(0, "noise"))
    action.sum().backward()
    by_task = policy.head.both.weight.grad.unflatten(0, (3, 4)).abs().sum((1, 2))
    assert by_task[1] > 0
    assert by_task[[0, 2]].tolist() == [0, 0]
    assert policy.body.layers[0].weight.grad.abs().sum() > 0


def test_the_critics_value_and_gradient_are_those_of_the_rows_task():
    q, seen, action = critic(), observations([0, 1, 2]), torch.zeros(3, 2)
    values = q(seen, action)
    assert values.shape == (2, 3)
    every = super(TaskQ, q).forward(seen, action)
    assert torch.equal(values, every[:, torch.arange(3), torch.arange(3)])
    q(observations([2, 2, 2]), action).sum().backward()
    last = q.network.layers[-1].weight.grad.abs().sum((0, 1))
    assert last[2] > 0
    assert last[:2].tolist() == [0, 0]


def test_one_task_is_a_plain_critic():
    q, seen = critic(1), observations([0, 0, 0], count=1)
    every = super(TaskQ, q).forward(seen, torch.ones(3, 2))
    assert torch.equal(q(seen, torch.ones(3, 2)), every)


def test_actions_lie_within_the_limits_and_the_policy_comes_back_from_disk(tmp_path):
    policy, seen = actor(), observations([0, 1, 2])
    action = policy.draw(seen, generator(0, "noise"))[0]
    assert (action.abs() <= torch.tensor(HIGH)).all()
    policy.save_pretrained(tmp_path / "policy")
    again = from_pretrained(tmp_path / "policy", expected=NetworkPolicy)
    assert torch.equal(again.distribution(seen).mode(), policy.distribution(seen).mode())


def test_more_tasks_than_numbers_are_refused():
    with pytest.raises(SettingError, match="5 tasks"):
        TaskBody(5, 5)

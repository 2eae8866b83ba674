"""Multi-task SAC: equal shares, a temperature for each task, and the single-task learner as its limit."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.rng import generator
from policysmith.common.spaces import ActionSpace
from policysmith.experience.mixtures import EqualShares
from policysmith.experience.replay import Replay
from policysmith.systems.mt_sac import PRESETS, train
from policysmith.systems.mtmh_sac import PRESETS as HEADS
from policysmith.systems.mtmh_sac import train as train_heads
from policysmith.training.learners.multi_task import MultiTaskLearners, MultiTaskSettings
from policysmith.training.learners.sac import SacLearners, SacSettings
from policysmith.training.loop import finish
from policysmith.worlds.point import PointReach

ACTION = ActionSpace.of(gymnasium.spaces.Box(-1, 1, (2,), np.float32))


def space(tasks):
    return gymnasium.spaces.Box(-1, 1, (3 + tasks,), np.float32)


def learners(tasks=2, **settings):
    config = MultiTaskSettings(**({"hidden": (8,), "environments": tasks, "batch_size": 3} | settings))
    return MultiTaskLearners(space(tasks), ACTION, config, seed=0, tasks=tasks)


def batch(tasks=2, rows=6):
    rng = generator(0, "batch")
    task = torch.eye(tasks)[torch.arange(rows) * tasks // rows]
    seen, after = (torch.cat([torch.randn(rows, 3, generator=rng), task], -1) for _ in range(2))
    return {
        "observation": seen,
        "action": torch.rand(rows, 2, generator=rng) * 2 - 1,
        "reward": torch.zeros(rows),
        "next_observation": after,
        "terminated": torch.zeros(rows, dtype=torch.bool),
    }


def set_temperatures(rlearners, values):
    with torch.no_grad():
        rlearners.temperature.raw.copy_(torch.tensor(values).expm1().log())


def test_rows_pay_for_entropy_at_their_tasks_temperature():
    mt, rows = learners(), batch()
    set_temperatures(mt, [0.5, 2.0])
    assert mt.temperature_of(rows["observation"]).tolist() == pytest.approx([0.5] * 3 + [2.0] * 3)
    mt.rng.manual_seed(1)
    with_entropy = mt.value_target(rows)
    mt.settings = replace(mt.settings, backup_entropy=False)
    mt.rng.manual_seed(1)
    without = mt.value_target(rows)
    mt.rng.manual_seed(1)
    _, log_prob = mt.actor.draw(rows["next_observation"], mt.rng)
    paid = -0.99 * torch.tensor([0.5] * 3 + [2.0] * 3) * log_prob
    assert torch.allclose(with_entropy - without, paid, atol=1e-5)


def test_each_temperature_follows_the_entropy_of_its_own_task():
    mt = learners(temperature_learning_rate=0.1)
    before = mt.temperature().detach().clone()
    mt._drawn = {
        "log_prob": torch.tensor([9.0] * 3 + [-9.0] * 3),  # the first task is too sure, the second too random
        "task": batch()["observation"][:, -2:],
    }
    mt.learners["temperature"].step(mt._drawn)
    moved = mt.temperature().detach() - before
    assert moved[0] > 0 > moved[1]


def test_one_task_is_plain_sac():
    rows = batch(tasks=1)
    mt = learners(tasks=1)
    plain = SacLearners(space(1), ACTION, SacSettings(hidden=(8,), batch_size=3), seed=0)
    for one in (mt, plain):
        for number in range(3):
            one.update_once(None, rows, number)
    for mine, theirs in zip(mt.actor.parameters(), plain.actor.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert float(mt.temperature().detach()) == pytest.approx(float(plain.temperature().detach()))


def replay(columns, steps, lost=()):
    kept = Replay(100 * columns, columns=columns)
    for step in range(steps):
        kept.add(
            {
                "observation": torch.full((columns, 1), float(step)),
                "action": torch.zeros(columns, 1),
                "reward": torch.arange(columns).float(),
                "next_observation": torch.zeros(columns, 1),
                "terminated": torch.zeros(columns, dtype=torch.bool),
                "truncated": torch.zeros(columns, dtype=torch.bool),
            },
            lost=[row for at, row in lost if at == step],
        )
    return kept


def test_every_task_has_equally_many_rows_of_a_batch():
    drawn = EqualShares(replay(3, 10)).sample(12, generator(0))
    assert drawn["reward"].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert len(drawn["observation"].unique()) > 3


def test_lost_steps_are_not_drawn():
    lost = [(step, 1) for step in range(9)]
    drawn = EqualShares(replay(2, 10, lost)).sample(40, generator(0))
    assert drawn["observation"][20:].unique().tolist() == [9.0]
    assert len(drawn["observation"][:20].unique()) > 5


def test_an_empty_replay_cannot_be_drawn_from():
    with pytest.raises(DataError, match="without a transition"):
        EqualShares(Replay(10, columns=2)).sample(4, generator(0))


class Towards(PointReach):
    """A point whose task is the right or the left, which only the one-hot vector tells."""

    def __init__(self, x):
        super().__init__(horizon=12)
        self.x = x

    def reset(self, **options):
        found = super().reset(**options)
        self._position, self._goal = np.array([0.5, 0.5]), np.array([self.x, 0.5])
        return self._observation(), found[1]

    def _observation(self):
        seen = super()._observation()
        seen[2:] = 0.5
        return seen


@pytest.mark.parametrize(("learn", "presets"), [(train, PRESETS), (train_heads, HEADS)])
def test_two_opposite_tasks_are_told_apart(learn, presets):
    config = replace(
        presets["bench"],
        environments=2,
        environment_steps=300,
        random_steps=60,
        hidden=(32, 32),
        batch_size=32,
        updates=2,
        discount=0.9,
        initial_temperature=0.01,
    )
    policy = finish(learn([lambda: Towards(0.9), lambda: Towards(0.1)], config=config, seed=0)).policy()
    seen = torch.tensor([[0.5, 0.5, 0.5, 0.5, 1, 0], [0.5, 0.5, 0.5, 0.5, 0, 1]])
    action = policy.distribution(seen).mode()[:, 0]
    assert action[0] > 0.3
    assert action[1] < -0.3


def test_as_many_tasks_as_environments_and_all_alike():
    with pytest.raises(SettingError, match="1 tasks were given, and environments is 2"):
        train(["point-reach"], config=PRESETS["tiny"])
    with pytest.raises(CapabilityError):
        train(["point-reach", "Pendulum-v1"], config=PRESETS["tiny"])

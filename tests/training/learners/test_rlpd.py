"""RLPD: its targets by hand, who follows whom, and which halves a batch is made of."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.common.spaces import ActionSpace
from policysmith.experience.replay import Replay
from policysmith.objectives.constraints import inverse_softplus
from policysmith.training.learners.rlpd import (
    RlpdLearners,
    RlpdSettings,
    linear_warmup,
    with_demonstrations,
)
from policysmith.training.learners.sac import critic_loss

SPACE = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
ACTION = ActionSpace.of(gymnasium.spaces.Box(-1, 1, (2,), np.float32))


def learners(demonstrations=None, **settings):
    base = {"hidden": (8,), "members": 3, "subset": 2, "backup_entropy": False, "discount": 0.96}
    config = RlpdSettings(**(base | {"batch_size": 4} | settings))
    return RlpdLearners(SPACE, ACTION, config, seed=0, demonstrations=demonstrations)


def batch(rows=4, seed=0):
    rng = generator(seed, "batch")
    return {
        "observation": torch.randn(rows, 3, generator=rng),
        "action": torch.rand(rows, 2, generator=rng) * 2 - 1,
        "reward": torch.zeros(rows),
        "next_observation": torch.randn(rows, 3, generator=rng),
        "terminated": torch.zeros(rows, dtype=torch.bool),
    }


class Says(torch.nn.Module):
    """Critics that say given values."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, observation, action):
        return self.values


def test_the_target_and_the_loss_are_the_papers_by_hand():
    rlpd = learners()
    rlpd.target.module = Says([[1.0, 2.0], [0.5, 3.0], [2.0, 1.0]])
    rlpd._subset = lambda: torch.tensor([0, 2])
    rows = batch(2) | {"reward": torch.tensor([0.0, 1.0]), "terminated": torch.tensor([False, True])}
    target = rlpd.value_target(rows)
    assert target.tolist() == pytest.approx([0.96, 1.0])
    said = Says([[0.9, 0.8], [1.1, 1.2], [0.7, 1.0]])
    values, _ = critic_loss(said, rows | {"value_target": target})
    assert values.mean().item() == pytest.approx(0.028467, abs=1e-6)


def test_the_first_temperature_is_a_hundredth():
    assert inverse_softplus(0.01) == pytest.approx(-4.600166, abs=1e-6)
    rlpd = learners(initial_temperature=0.01)
    assert float(rlpd.temperature().detach()) == pytest.approx(0.01, rel=1e-5)


def test_a_subset_is_two_of_the_critics_and_both_orders_are_drawn():
    rlpd = learners(members=10)
    drawn = torch.stack([rlpd._subset() for _ in range(300)])
    assert drawn.shape == (300, 2)
    assert set(drawn.flatten().tolist()) == set(range(10))


def test_the_actor_follows_the_mean_of_all_critics_and_moves_none_of_them():
    rlpd = learners(fixed_temperature=True)
    rows = batch()
    rlpd.value_target(rows)
    before = [p.clone() for p in rlpd.critic.parameters()]
    rlpd.rng.manual_seed(5)
    loss, _ = rlpd.actor_loss(rlpd.actor, rows)
    rlpd.rng.manual_seed(5)
    action, log_prob = rlpd.actor.draw(rows["observation"], rlpd.rng)
    expected = rlpd.temperature() * log_prob - rlpd.critic(rows["observation"], action).mean(0)
    assert loss.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    loss.mean().backward()
    assert all(p.grad is None for p in rlpd.critic.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, rlpd.critic.parameters(), strict=True))


def test_the_temperature_goes_by_the_entropy_at_the_next_observations():
    low, high = learners(target_entropy=-100.0), learners(target_entropy=100.0)
    for rlpd in (low, high):
        start = float(rlpd.temperature().detach())
        rows = batch()
        rlpd.value_target(rows)
        at_next = rlpd._next_entropy
        rlpd.update_policy(rows)
        moved = float(rlpd.temperature().detach()) - start
        assert (moved < 0) == (at_next > rlpd.target_entropy)


def run_updates(rlpd, count, rows=4):
    seen = []
    plain = rlpd.learners["policy"].step
    rlpd.learners["policy"].step = lambda batch: seen.append(len(batch["reward"])) or plain(batch)
    update = rlpd.update_once
    for number in range(count):
        update(None, batch(rows, number), number)
    return seen


def test_the_actor_steps_once_per_several_critic_steps_on_the_last_batch_or_on_all():
    assert run_updates(learners(updates=4, policy_every=4), 8) == [4, 4]
    assert run_updates(learners(updates=4, policy_every=4, actor_on_all=True), 8) == [16, 16]


def test_targets_move_after_every_critic_step():
    rlpd = learners(updates=4, policy_every=4)
    run_updates(rlpd, 3)
    assert rlpd.target.updates == 3
    assert rlpd.learners["critic"].steps == 3
    assert rlpd.learners["policy"].steps == 0


def test_normalised_learners_read_what_the_demonstrations_scale_to():
    shown = 100 + 50 * torch.randn(500, 3, generator=generator(0, "shown"))
    rlpd = learners(demonstrations=shown, normalise=True)
    plain = learners()
    for mine, theirs in ((rlpd.actor, plain.actor), (rlpd.critic, plain.critic)):
        mine.load_state_dict(theirs.state_dict(), strict=False)
    scaled = (shown - shown.mean(0)) / shown.std(0, correction=0)
    action = torch.zeros(500, 2)
    assert torch.allclose(rlpd.critic(shown, action), plain.critic(scaled, action), atol=1e-4)
    assert torch.allclose(
        rlpd.actor.distribution(shown).mode(), plain.actor.distribution(scaled).mode(), atol=1e-4
    )


def test_deviations_stay_within_the_papers_limits():
    rlpd = learners()
    with torch.no_grad():
        rlpd.actor.head.both.bias[2:] = 50.0
    deviation = rlpd.actor.distribution(batch()["observation"]).inner.log_deviation
    assert deviation.max().item() == pytest.approx(math.log(5))


def replay(value, rows=10):
    kept = Replay(rows)
    kept.extend(batch(rows) | {"reward": torch.full((rows,), value), "truncated": torch.zeros(rows).bool()})
    return kept


def test_half_of_a_batch_is_demonstrations():
    source = with_demonstrations(replay(0.0), replay(1.0), 0.5)
    drawn = source.sample(8, generator(0, "draws"))
    assert drawn["reward"].tolist() == [0.0] * 4 + [1.0] * 4


def test_a_share_of_nothing_is_refused_and_a_share_of_zero_needs_none():
    store = replay(0.0)
    assert with_demonstrations(store, None, 0.0) is store
    for none in (None, Replay(4)):
        with pytest.raises(DataError, match="RLPD needs demonstrations") as caught:
            with_demonstrations(store, none, 0.5)
        assert "share 0" in str(caught.value)


def test_the_rate_rises_in_a_straight_line():
    schedule = linear_warmup(4)
    assert [schedule(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learners(warmup_steps=4).learners["critic"].schedule is not None


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingError, match=r"demonstration_share is 1\.5"):
        RlpdSettings(demonstration_share=1.5)
    with pytest.raises(SettingError, match="8 critic updates per step, and the actor's after every 3"):
        RlpdSettings(updates=8, policy_every=3)
    with pytest.raises(SettingError, match=r"dropout is 1\.0"):
        RlpdSettings(dropout=1.0)

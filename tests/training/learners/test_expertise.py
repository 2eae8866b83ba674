"""What is learnt beside SAC: values without entropy, and what comes next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.spaces import ActionSpace
from policysmith.training.learners.expertise import CRITIC, PREDICTOR, ExpertiseLearners, prediction_loss
from policysmith.training.learners.sac import SacLearners, SacSettings

SPACE, ACTION = Box(-1, 1, (2,), np.float32), ActionSpace("continuous", low=(-1.0,), high=(1.0,))
SETTINGS = SacSettings(hidden=(16,), critic_learning_rate=1e-2, discount=0.5, rate=0.1)


def rows(count=64, reward=1.0, terminated=False):
    rng = torch.Generator().manual_seed(0)
    observation = torch.rand(count, 2, generator=rng)
    action = torch.rand(count, 1, generator=rng) * 2 - 1
    return {
        "observation": observation,
        "action": action,
        "reward": torch.full((count,), reward),
        "next_observation": observation + 0.1 * action,
        "terminated": torch.full((count,), terminated),
        "truncated": torch.zeros(count, dtype=torch.bool),
    }


def learners():
    return (
        SacLearners(SPACE, ACTION, SETTINGS, seed=0).actor,
        ExpertiseLearners(SPACE, ACTION, SETTINGS, seed=0),
    )


def test_the_target_is_the_reward_and_the_lower_twins_discounted_word_without_entropy():
    actor, expertise = learners()
    said = torch.tensor([[3.0], [5.0]]).expand(2, 64)
    expertise.target.module.forward = lambda observation, action: said
    torch.testing.assert_close(expertise.value_target(actor, rows()), torch.full((64,), 1 + 0.5 * 3.0))
    torch.testing.assert_close(expertise.value_target(actor, rows(terminated=True)), torch.ones(64))


def test_in_a_world_that_pays_one_for_ever_the_critic_says_the_geometric_sum():
    actor, expertise = learners()
    batch = rows()
    for _ in range(400):
        expertise.update(actor, batch)
    q = expertise.critic(batch["observation"], batch["action"])
    # 1 / (1 - 0.5); SAC's own would add entropy, at a temperature that starts at 1.
    torch.testing.assert_close(q, torch.full((2, 64), 2.0), atol=0.1, rtol=0)


def test_the_prediction_is_judged_by_the_sum_of_its_absolute_errors():
    predictor = lambda observation, action: observation + torch.tensor([0.5, -0.25])  # noqa: E731
    batch = rows()
    batch["next_observation"] = batch["observation"]
    loss, _ = prediction_loss(predictor, batch)
    torch.testing.assert_close(loss, torch.full((64,), 0.75))


def test_what_comes_next_is_learnt():
    actor, expertise = learners()
    batch = rows()
    first = expertise.update(actor, batch)["prediction_error"]
    for _ in range(300):
        last = expertise.update(actor, batch)["prediction_error"]
    assert last < 0.02 < first


def test_the_actor_is_only_asked():
    actor, expertise = learners()
    before = {name: weight.clone() for name, weight in actor.state_dict().items()}
    expertise.update(actor, rows())
    assert all(torch.equal(before[name], weight) for name, weight in actor.state_dict().items())
    assert all(weight.grad is None for weight in actor.parameters())


def test_the_target_follows_the_critic():
    actor, expertise = learners()
    start = [weight.clone() for weight in expertise.target.module.parameters()]
    expertise.update(actor, rows())
    for before, now, source in zip(
        start, expertise.target.module.parameters(), expertise.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(now, before + 0.1 * (source - before))


def test_the_critic_is_not_sacs_own():
    sac = SacLearners(SPACE, ACTION, SETTINGS, seed=0)
    expertise = ExpertiseLearners(SPACE, ACTION, SETTINGS, seed=0)
    assert set(expertise.learners) == {CRITIC, PREDICTOR}
    assert not set(expertise.learners) & set(sac.learners)
    mine, theirs = next(expertise.critic.parameters()), next(sac.critic.parameters())
    assert mine.shape == theirs.shape
    with pytest.raises(AssertionError):
        torch.testing.assert_close(mine, theirs)

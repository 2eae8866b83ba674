"""IQL: the order of its updates, who gets gradient, and that it finds what the data did best."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.experience.episodes import Episodes
from policysmith.systems import iql
from policysmith.training.learners.implicit import ImplicitLearners, ImplicitSettings
from policysmith.training.learners.offline import offline_data
from policysmith.training.loop import RunState, finish

ACTION = ActionSpace("continuous", (-1.0,), (1.0,))


def bandit(rows: int = 600) -> Episodes:
    """One step: reward 1 where the action has the sign of the observation, which it has half of the time."""
    rng = torch.Generator().manual_seed(0)
    seen = torch.rand(rows, 1, generator=rng) * 2 - 1
    action = torch.rand(rows, 1, generator=rng) * 2 - 1
    reward = (seen.sign() == action.sign())[:, 0].float()
    return Episodes.from_arrays(
        {
            "observation": seen[i : i + 1],
            "action": action[i : i + 1],
            "reward": reward[i : i + 1],
            "terminated": True,
        }
        for i in range(rows)
    )


def test_the_policy_takes_what_the_data_did_best():
    config = iql.Config(steps=400, hidden=(32,), batch_size=64, learning_rate=3e-3, beta=10.0)
    policy = finish(iql.train(bandit(), config=config, seed=0)).policy()
    seen = torch.tensor([[-0.8], [-0.4], [0.4], [0.8]])
    assert torch.equal(policy.distribution(seen).mode().sign(), seen.sign())


def test_the_value_is_updated_first_and_the_policy_is_weighed_by_the_new_one():
    learners = ImplicitLearners(1, ACTION, ImplicitSettings(hidden=(8,), steps=10, learning_rate=0.1), seed=0)
    batch = offline_data(bandit(), by="iql").replay.sample(32, torch.Generator().manual_seed(0))
    q = learners.data_value(batch)
    before = learners.advantage(batch, q)
    weights = []
    step = learners.learners["policy"].step
    learners.learners["policy"].step = lambda rows: weights.append(rows["imitation"]) or step(rows)  # type: ignore
    learners.update_once(RunState(learners=learners.learners), batch, 0)
    after = learners.advantage(batch, q)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(weights[0], (3 * after).exp().clamp(max=100))


def test_neither_value_nor_policy_moves_the_critics():
    learners = ImplicitLearners(1, ACTION, ImplicitSettings(hidden=(8,), steps=10), seed=0)
    batch = offline_data(bandit(), by="iql").replay.sample(32, torch.Generator().manual_seed(0))
    learners.value_loss(learners.value, batch | {"q": learners.data_value(batch)})[0].mean().backward()
    assert all(weight.grad is None for weight in learners.critic.parameters())
    assert all(weight.grad is None for weight in learners.target.module.parameters())


def test_data_that_cannot_be_learnt_from_is_named():
    episodes = bandit(4)
    with pytest.raises(DataError, match="every reward in the data is 0"):
        offline_data(
            Episodes.from_arrays([{"observation": torch.zeros(2, 1), "action": torch.zeros(2, 1)}]), by="iql"
        )
    far = Episodes.from_arrays(
        [
            {"observation": torch.zeros(2, 1), "action": torch.zeros(2, 1), "reward": torch.ones(2)},
            {
                "observation": torch.zeros(2, 1),
                "action": torch.tensor([[0.0], [-1.5]]),
                "reward": torch.ones(2),
            },
        ]
    )
    with pytest.raises(DataError, match=r"reaches -1\.5") as caught:
        offline_data(far, by="iql")
    assert caught.value.where == "episode 1, step 1"
    wide = Episodes(
        far.steps, far.final_observation, far.lengths, {"action_low": [-2.0], "action_high": [2.0]}
    )
    assert offline_data(wide, by="iql").action.low == (-2.0,)
    picture = Episodes.from_arrays(
        [
            {
                "observation": {"front": torch.zeros(2, 8, 8, 3, dtype=torch.uint8).numpy()},
                "action": torch.zeros(2, 1),
            }
        ]
    )
    with pytest.raises(CapabilityError, match="reads vectors"):
        offline_data(picture, by="iql")
    both = episodes.steps.clone()
    both["truncated"][:] = True
    with pytest.warns(UserWarning, match="time limit is no end"):
        offline_data(Episodes(both, episodes.final_observation, episodes.lengths), by="iql")


@pytest.mark.parametrize(("name", "value"), [("expectile", 1.0), ("beta", -1.0), ("cap", 0.0), ("steps", 0)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(SettingError, match=name):
        ImplicitSettings(**{name: value})

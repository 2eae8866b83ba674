"""AWAC: whose actions the critics back up, what the policy is weighed by, and who gets gradient."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import environments_of
from policysmith.experience.replay import transitions_of
from policysmith.systems import awac
from policysmith.training.learners.awac import AwacLearners
from policysmith.training.learners.off_policy import OffPolicySettings, off_policy_run
from policysmith.training.learners.offline import offline_data
from policysmith.training.loop import RunState, finish

SETTINGS = awac.Config(steps=10, hidden=(8,), critic_hidden=(8,), batch_size=6, temperature=0.5)
ACTION = ActionSpace("continuous", (-2.0, 0.0), (2.0, 1.0))


def batch(rows: int = 6):
    rng = torch.Generator().manual_seed(0)
    return {
        "observation": torch.randn(rows, 3, generator=rng),
        "action": torch.rand(rows, 2, generator=rng),
        "reward": torch.randn(rows, generator=rng),
        "next_observation": torch.randn(rows, 3, generator=rng),
        "terminated": torch.tensor([True] + [False] * (rows - 1)),
        "truncated": torch.zeros(rows, dtype=torch.bool),
    }


def learners() -> AwacLearners:
    return AwacLearners(3, ACTION, SETTINGS, seed=0)


def test_critics_back_up_an_action_of_the_policy_without_entropy():
    found, rows = learners(), batch()
    for weight in found.critic.parameters():  # no longer what their target is
        weight.data.add_(0.5)
    state = found.rng.get_state()
    target = found.value_target(rows)
    found.rng.set_state(state)
    with torch.no_grad():
        drawn = found.drawn(rows["next_observation"])
        q = found.target.module(rows["next_observation"], drawn).amin(0)
    torch.testing.assert_close(target, rows["reward"] + 0.99 * q * ~rows["terminated"])


def test_actions_are_judged_as_they_are_played():
    found = learners()
    with torch.no_grad():
        found.policy.head.log_deviation.fill_(0.0)
    drawn = found.drawn(torch.randn(500, 3))
    assert ((drawn >= found.low) & (drawn <= found.high)).all()
    assert (drawn[:, 1] == 1).any()


def test_the_policy_is_weighed_by_the_advantage_over_its_own_action_relative_to_the_batch():
    found, rows = learners(), batch()
    given = []
    step = found.learners["policy"].step
    found.learners["policy"].step = lambda rows: given.append(rows["imitation"]) or step(rows)  # type: ignore
    advantage = []
    asked = found.advantage
    found.advantage = lambda rows: advantage.append(asked(rows)) or advantage[-1]  # type: ignore
    metrics = found.update_once(RunState(learners=found.learners), rows, 0)
    expected = (advantage[0] / 0.5).softmax(0) * 6
    torch.testing.assert_close(given[0], expected)
    assert metrics["effective_rows"] == pytest.approx(36 / float(expected.square().sum()), rel=1e-5)


def test_the_advantage_of_the_policys_own_action_is_zero():
    found, rows = learners(), batch()
    state = found.rng.get_state()
    with torch.no_grad():
        rows["action"] = found.drawn(rows["observation"])
    found.rng.set_state(state)
    assert found.advantage(rows).tolist() == [0] * 6


def test_it_takes_what_the_data_did_best():
    rng = torch.Generator().manual_seed(0)
    seen, action = (torch.rand(600, 1, generator=rng) * 2 - 1 for _ in range(2))
    reward = (seen.sign() == action.sign())[:, 0].float()
    parts = {"observation": seen, "action": action, "reward": reward}
    episodes = Episodes.from_arrays(
        {key: part[i : i + 1] for key, part in parts.items()} | {"terminated": True} for i in range(600)
    )
    config = awac.Config(
        steps=400, hidden=(32,), critic_hidden=(32,), batch_size=64, learning_rate=3e-3,
        critic_learning_rate=3e-3, temperature=0.3,
    )  # fmt: skip
    policy = finish(awac.train(episodes, config=config, seed=0)).policy()
    seen = torch.tensor([[-0.8], [-0.4], [0.4], [0.8]])
    assert torch.equal(policy.distribution(seen).mode().sign(), seen.sign())


def test_it_goes_on_with_experience_by_the_same_update():
    recorded = Demonstrations("point-reach", episodes=4, action_noise=0.1).record()
    episodes = Episodes.from_arrays(recorded)
    data = offline_data(episodes, by="awac")
    found = AwacLearners(data.observation_size, data.action, SETTINGS, seed=0)
    online = OffPolicySettings(environment_steps=5, random_steps=0, batch_size=6, replay_capacity=1000)
    store = online.replay()
    store.extend(transitions_of(episodes))
    progress = list(
        off_policy_run(
            interaction=Interaction(environments_of("point-reach", 1), seed=0),
            store=store,
            explore=lambda observation, rng: found.drawn(observation),
            pretraining=3,
            settings=online,
            seed=0,
            **found.run_arguments(),
        )
    )
    assert [now.metrics["environment_steps"] for now in progress] == [0, 0, 0, 1, 2, 3, 4, 5]
    assert found.learners["policy"].steps == 8
    assert len(store) == len(episodes.steps) + 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("members", 0), ("rate", 2.0), ("log_deviation_range", (0.0, 0.0))],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(SettingError, match=name):
        awac.Config(**{name: value})

"""SAC and the off-policy loop: targets, who gets gradient, when, and resuming with the replay."""

from __future__ import annotations

import itertools
from dataclasses import replace

import gymnasium
import pytest
import torch
from gymnasium.spaces import Box

from policysmith.common.errors import CapabilityError, SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.experience.interaction import Interaction
from policysmith.experience.makers import environments_of
from policysmith.systems import sac
from policysmith.training.learners.off_policy import off_policy_run
from policysmith.training.learners.sac import SacLearners, SacSettings, critic_loss, mean_opinion
from policysmith.training.loop import RunState

SETTINGS = SacSettings(hidden=(8,), batch_size=4, environment_steps=24, random_steps=8, replay_capacity=100)
SPACE, ACTION = Box(-1, 1, (3,)), ActionSpace.of(Box(-2, 2, (2,)))


def batch(rows: int = 6):
    rng = torch.Generator().manual_seed(0)
    return {
        "observation": torch.randn(rows, 3, generator=rng),
        "action": torch.rand(rows, 2, generator=rng) * 4 - 2,
        "reward": torch.randn(rows, generator=rng),
        "next_observation": torch.randn(rows, 3, generator=rng),
        "terminated": torch.tensor([True] + [False] * (rows - 1)),
        "truncated": torch.tensor([False, True] + [False] * (rows - 2)),
    }


def learners(settings: SacSettings = SETTINGS, **keywords) -> SacLearners:
    return SacLearners(SPACE, ACTION, settings, seed=0, **keywords)


def test_the_target_is_reward_and_the_least_critics_value_of_a_drawn_action():
    found, rows = learners(replace(SETTINGS, backup_entropy=False)), batch()
    state = found.rng.get_state()
    target = found.value_target(rows)
    found.rng.set_state(state)
    with torch.no_grad():
        action, log_prob = found.actor.draw(rows["next_observation"], found.rng)
        q = found.target.module(rows["next_observation"], action)
        expected = rows["reward"] + 0.99 * q.amin(0) * ~rows["terminated"]
        torch.testing.assert_close(target, expected)
        assert float(target[0]) == float(rows["reward"][0])
        soft = learners()
        soft_target = soft.value_target(rows)
        temperature = float(soft.temperature())
    torch.testing.assert_close(soft_target, expected - 0.99 * temperature * log_prob * ~rows["terminated"])


def test_a_subset_of_all_critics_is_all_of_them():
    many = learners(replace(SETTINGS, members=4, subset=4))
    assert many._subset() is None
    assert learners(replace(SETTINGS, members=4, subset=2))._subset().shape == (2,)


def test_the_actors_loss_moves_neither_critics_nor_temperature():
    found = learners()
    found.actor_loss(found.actor, batch())[0].mean().backward()
    assert all(weight.grad is None for weight in found.critic.parameters())
    assert found.temperature.raw.grad is None
    assert all(weight.grad is not None for weight in found.actor.parameters())
    assert all(weight.requires_grad for weight in found.critic.parameters())


def test_the_critics_loss_is_the_mean_of_the_members():
    found, rows = learners(), batch()
    rows["value_target"] = torch.zeros(6)
    values, _ = critic_loss(found.critic, rows)
    q = found.critic(rows["observation"], rows["action"])
    torch.testing.assert_close(values, 0.5 * (q[0] ** 2 + q[1] ** 2))


def test_the_temperature_rises_where_the_policy_is_too_certain():
    found = learners()
    before = float(found.temperature())
    for entropy, rises in ((-50.0, True), (50.0, False)):
        one = learners()
        one.learners["temperature"].step({"log_prob": torch.tensor([-entropy])})
        assert (float(one.temperature()) > before) == rises


def test_the_policy_is_updated_every_so_often():
    found = learners(replace(SETTINGS, policy_every=3))
    state = RunState(learners=found.learners)
    seen = ["actor_loss" in found.update_once(state, batch(), number) for number in range(6)]
    assert seen == [False, False, True, False, False, True]
    assert found.learners["critic"].steps == 6
    assert found.target.updates == 6


def test_opinions_join_as_they_are_told_to():
    rows = batch()
    least, mean = learners(), learners(opinion=mean_opinion)
    a, b = (float(one.actor_loss(one.actor, rows)[0].mean()) for one in (least, mean))
    assert a > b


def test_choices_are_refused_with_what_would_serve():
    with pytest.raises(CapabilityError, match="use dqn"):
        SacLearners(SPACE, ActionSpace.of(gymnasium.spaces.Discrete(3)), SETTINGS, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("initial_temperature", 0.0), ("subset", 3), ("rate", 0.0), ("updates", 0), ("discount", 2)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(SettingError, match=name if name != "subset" else "subset of 3"):
        replace(SETTINGS, **{name: value})


@pytest.mark.parametrize("changes", [{}, {"n_step": 3, "environments": 2, "updates": 2, "every": 2}])
def test_a_run_goes_on_to_the_same_numbers_replay_included(changes):
    config = replace(sac.PRESETS["tiny"], environment_steps=60, **changes)
    whole = sac.train("Pendulum-v1", config=config, seed=1)
    middle = list(itertools.islice(whole, 9))[-1].state.state_dict()
    middle = {**middle, "sources": {name: dict(one) for name, one in middle["sources"].items()}}
    saved = torch.utils._pytree.tree_map(
        lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, middle
    )
    expected = [now.metrics for now in whole]
    resumed = [now.metrics for now in sac.train("Pendulum-v1", config=config, seed=1, state=saved)]
    assert resumed == expected


def test_learning_begins_after_the_random_steps_and_pretraining_comes_before_acting():
    found = learners()
    settings = replace(SETTINGS, environment_steps=12)
    interaction = Interaction(environments_of("Pendulum-v1", 1), seed=0)
    one = SacLearners(interaction.environments.observation_space, interaction.action_space, settings, seed=0)
    progress = list(off_policy_run(interaction=interaction, settings=settings, seed=0, **one.run_arguments()))
    assert ["q" in now.metrics for now in progress] == [False] * 8 + [True] * 4
    prior = settings.replay()
    prior.load_state_dict(progress[-1].state.sources["replay"].state_dict())
    again = Interaction(environments_of("Pendulum-v1", 1), seed=0)
    one = SacLearners(again.environments.observation_space, again.action_space, settings, seed=0)
    progress = list(
        off_policy_run(
            interaction=again, settings=settings, seed=0, store=prior, pretraining=5, **one.run_arguments()
        )
    )
    assert [now.metrics["environment_steps"] for now in progress[:6]] == [0, 0, 0, 0, 0, 1]
    assert all("q" in now.metrics for now in progress[:5])
    assert found.learners["critic"].steps == 0


def test_labels_change_what_is_learnt_from():
    seen = []

    def label(rows):
        seen.append(rows["reward"].shape)
        return rows | {"reward": torch.zeros_like(rows["reward"])}

    interaction = Interaction(environments_of("Pendulum-v1", 1), seed=0)
    one = SacLearners(interaction.environments.observation_space, interaction.action_space, SETTINGS, seed=0)
    list(
        off_policy_run(interaction=interaction, settings=SETTINGS, seed=0, label=label, **one.run_arguments())
    )
    assert seen == [(4,)] * 16

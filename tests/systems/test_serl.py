"""SERL's options on a point that walks to its goal: rewards learnt before and meanwhile, an actor that does
not wait, and two agents that undo each other's work. Each is gone on from where it was."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from policysmith.common.errors import DataError, SettingError, ShapeError
from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.systems.serl import (
    PRESETS,
    Config,
    train,
    train_reset_free,
    with_target_entropy,
)
from policysmith.training.learners.asynchronous import Beside
from policysmith.training.learners.classifiers import success_frames
from policysmith.training.learners.reset_free import Way
from policysmith.training.loop import finish
from policysmith.worlds import registry
from policysmith.worlds.point import PointReach

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def demonstrations():
    return Episodes.from_arrays(Demonstrations("point-reach", episodes=6).record())


def changed(config, **settings):
    return replace(config, **settings)


def resumed_alike(run, tmp_path):
    """A run of the tiny preset, cut after three steps, ends where an uncut one does."""
    whole = run(None)
    third = list(itertools.islice(whole, 3))[-1]
    save_tree(tmp_path / "state", third.state.state_dict())
    uncut = list(whole)
    again = list(run(load_tree(tmp_path / "state")))
    return [now.metrics for now in uncut] == [now.metrics for now in again]


def test_the_defaults_are_the_papers():
    config = Config()
    assert (config.members, config.subset, config.updates, config.batch_size) == (10, 2, 8, 256)
    assert (config.initial_temperature, config.demonstration_share) == (0.01, 0.5)
    assert with_target_entropy(config, 4).target_entropy == -2.0
    assert with_target_entropy(changed(config, target_entropy=-7.0), 4).target_entropy == -7.0


@pytest.mark.parametrize("reward", ["classifier", "vice"])
def test_a_learned_reward_pays_and_a_cut_run_goes_on_alike(reward, demonstrations, tmp_path):
    config = changed(TINY, reward=reward, classifier_steps=5, classifier_every=2)

    def run(state):
        return train("point-reach", demonstrations, config=config, seed=1, state=state)

    assert resumed_alike(run, tmp_path)


@pytest.mark.parametrize("reward", ["environment", "classifier", "vice"])
def test_a_robots_cameras_are_learnt_from_and_a_cut_run_goes_on_alike(reward, tmp_path):
    views = {"pictures": {"camera": (16, 20)}}
    shown = Episodes.from_arrays(Demonstrations("point-reach", episodes=3, options=views).record())
    config = changed(TINY, reward=reward, classifier_steps=3, classifier_every=2)
    make = partial(registry.make, "point-reach", **views)

    def run(state):
        return train(make, shown, config=config, seed=1, state=state)

    assert resumed_alike(run, tmp_path)
    with pytest.raises(ShapeError, match=r"demonstrations show .*camera \[16, 20, 3\]"):
        next(train("point-reach", shown, config=config))


def test_vice_trains_its_classifier_and_stores_no_reward(demonstrations):
    config = changed(TINY, reward="vice", classifier_every=2)
    seen = list(train("point-reach", demonstrations, config=config, seed=1))
    assert any("classifier/gradient_penalty" in now.metrics for now in seen)
    state = seen[-1].state
    assert state.learners["classifier"].steps > 5
    # What is stored is what the environment paid: minus a distance.
    assert (state.sources["replay"].data["reward"][:20] <= 0).all()


def test_the_demonstrations_last_frames_are_success_and_the_others_are_not(demonstrations):
    success, failure = success_frames(demonstrations)
    distance = [(seen[:, :2] - seen[:, 2:]).norm(dim=-1) for seen in (success, failure)]
    assert len(success) == 6
    assert distance[0].max() <= 0.05 < distance[1].min()


def test_an_actor_beside_the_learner_plays_what_was_published(demonstrations, tmp_path):
    beside = Beside(learner_steps=12, training_starts=20, publish_every=3, rate=None, ahead=50)
    config = changed(TINY, asynchronous=True, beside=beside)
    whole = train("point-reach", demonstrations, config=config, seed=1)
    seen = list(itertools.islice(whole, 6))
    save_tree(tmp_path / "state", seen[-1].state.state_dict())
    seen += list(whole)
    assert seen[-1].step == seen[-1].total == 12
    assert seen[0].metrics["environment_steps"] >= 20
    assert seen[-1].metrics["published"] == 1 + 4
    assert "clock" in seen[-1].state.inexact
    saved = load_tree(tmp_path / "state")
    again = list(train("point-reach", demonstrations, config=config, seed=1, state=saved))
    assert again[-1].step == 12
    assert again[0].metrics["environment_steps"] >= seen[5].metrics["environment_steps"]


class Room(PointReach):
    """A point that never ends and is never reset; its goal is where it is told."""

    def __init__(self):
        super().__init__(horizon=10**9, terminate_on_success=False)

    def reset(self, **options):
        found = super().reset(**options)
        self._goal = np.array([0.8, 0.5])
        return self._observation(), found[1]


def right(seen):
    return seen[:, 0] > 0.7


def left(seen):
    return seen[:, 0] < 0.3


def test_two_agents_take_turns_without_resets():
    config = changed(TINY, environment_steps=120, demonstration_share=0.0, normalise=False)
    last = finish(train_reset_free(Room, Way(right, 10), Way(left, 10), config=config, seed=0))
    turns = last.sources["turns"]
    assert last.sources["interaction"].numbers.tolist() == [0]  # one episode all along
    assert min(turns.turns) >= 5
    assert abs(turns.turns[0] - turns.turns[1]) <= 1
    assert all(turns.successes[way] <= turns.turns[way] for way in (0, 1))


def test_each_way_is_paid_by_its_own_judge_and_a_cut_run_goes_on_alike(tmp_path):
    config = changed(TINY, demonstration_share=0.0, normalise=False)

    def run(state):
        return train_reset_free(Room, Way(right, 4), Way(left, 4), config=config, seed=1, state=state)

    assert resumed_alike(run, tmp_path)
    sources = finish(run(None)).sources
    for name, judge in (("forward", right), ("backward", left)):
        data, count = sources[name].data, sources[name].written
        seen = data["next_observation"][:count, 0]
        assert torch.equal(data["reward"][:count, 0] > 0, judge(seen))
        assert torch.equal(data["terminated"][:count, 0], judge(seen))


def test_what_makes_no_sense_is_refused(demonstrations):
    with pytest.raises(DataError, match="RLPD needs demonstrations"):
        train("point-reach", config=changed(TINY, normalise=False))
    with pytest.raises(SettingError, match="scale of demonstrations"):
        train("point-reach", config=changed(TINY, demonstration_share=0.0))
    with pytest.raises(DataError, match="needs demonstrations"):
        train("point-reach", config=changed(TINY, reward="vice"))
    with pytest.raises(SettingError, match="'pose'"):
        Config(reward="pose")
    with pytest.raises(SettingError, match="3 critic updates per step, and the actor's after every 2"):
        Config(updates=3, policy_every=2)
    with pytest.raises(SettingError, match="a positive number"):
        Config(initial_temperature=0.0)
    with pytest.raises(SettingError, match="a turn of 0"):
        Way(right, 0)


def test_demonstrations_that_do_not_fit_are_named(demonstrations):
    beyond = demonstrations.steps.clone()
    beyond["action"][3, 1] = 1.5
    with pytest.raises(DataError, match=r"1\.5") as caught:
        train("point-reach", changed(demonstrations, steps=beyond), config=TINY)
    assert "episode 1, step 0" in str(caught.value)
    nothing = demonstrations.steps.clone()
    nothing["success"][:] = False
    with pytest.raises(DataError, match="0 of"):
        train("point-reach", changed(demonstrations, steps=nothing), config=changed(TINY, reward="vice"))


def test_a_time_limit_stored_as_an_end_is_warned_of(demonstrations):
    steps = demonstrations.steps.clone()
    steps["truncated"] |= steps["terminated"]
    with pytest.warns(UserWarning, match="both terminated and truncated"):
        train("point-reach", changed(demonstrations, steps=steps), config=TINY)

"""Meta-World's suites: the package's own tasks and goals, seen as the protocol shows them."""

import pickle

import numpy as np
import pytest

pytest.importorskip("metaworld")

import metaworld
from gymnasium.error import ResetNeeded
from metaworld import env_dict
from metaworld.wrappers import RNNBasedMetaRLWrapper

from policysmith.common.errors import SettingError, ShapeError, UnknownNameError
from policysmith.worlds.metaworld import MetaWorldExpert, MetaWorldTask, task_names
from policysmith.worlds.metaworld_suites import (
    ML10,
    ML45,
    MT10,
    MT25,
    MT50,
    Suite,
    custom_suite,
    draw_tasks,
    make_suite,
    multi_task_suite,
)
from policysmith.worlds.trials import Feedback

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (10, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def reach():
    return make_suite("MT1", 5, task="reach-v3", goals=4, horizon=20)


@pytest.fixture(scope="module")
def hidden():
    return make_suite("ML1", 5, task="reach-v3", goals=4, horizon=20)


def package_placements(tasks):
    found = {}
    for task in tasks:
        found.setdefault(task.env_name, []).append(pickle.loads(task.data)["rand_vec"])
    return {name: np.stack(vectors) for name, vectors in found.items()}


def placements(tasks):
    return {task.name: task.placements for task in tasks}


def equal(ours, theirs):
    return list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


# ---- tasks and goals ---------------------------------------------------------------------------------


def test_the_suites_have_the_packages_tasks_in_its_order():
    assert list(env_dict.MT10_V3) == list(MT10)
    assert list(env_dict.MT25_V3) == list(MT25)
    assert list(env_dict.MT50_V3) == list(MT50)
    for ours, theirs in ((ML10, env_dict.ML10_V3), (ML45, env_dict.ML45_V3)):
        assert (list(theirs["train"]), list(theirs["test"])) == (list(ours[0]), list(ours[1]))
        assert not set(ours[0]) & set(ours[1])
    assert sorted(MT50) == task_names()


def test_goals_are_the_packages_own_of_the_same_seed(monkeypatch):
    monkeypatch.setattr(metaworld, "_N_GOALS", 2)
    # Two tasks that reject draws, and one that does not; tasks after the first go on with its generator.
    train, test = ["push-v3", "door-open-v3"], ["assembly-v3"]
    theirs, ours = metaworld.CustomML(train, test, seed=7), custom_suite(train, test, 7, goals=2)
    assert equal(placements(ours.train), package_placements(theirs.train_tasks))
    assert equal(placements(ours.test), package_placements(theirs.test_tasks))


def test_the_one_task_suites_are_the_packages_too_and_test_on_the_next_seed(monkeypatch):
    monkeypatch.setattr(metaworld, "_N_GOALS", 2)
    theirs, ours = metaworld.ML1("push-v3", seed=3), make_suite("ML1", 3, task="push-v3", goals=2)
    assert equal(placements(ours.train), package_placements(theirs.train_tasks))
    assert equal(placements(ours.test), package_placements(theirs.test_tasks))
    assert not np.array_equal(ours.train[0].placements, ours.test[0].placements)
    assert equal(placements(ours.test), placements(make_suite("ML1", 4, task="push-v3", goals=2).train))


def test_an_episode_is_the_packages_own_for_the_same_goal(monkeypatch):
    monkeypatch.setattr(metaworld, "_N_GOALS", 2)
    theirs = metaworld.MT1("push-v3", seed=3)
    simulator = theirs.train_classes["push-v3"]()
    simulator.set_task(theirs.train_tasks[1])
    first, _ = simulator.reset()
    env = make_suite("MT1", 3, task="push-v3", goals=2).environment("push-v3")
    seen, info = env.reset(options={"goal": 1})
    assert info["goal"] == 1
    assert np.array_equal(seen[:36], first[:36].astype(np.float32))
    for action in ACTIONS:
        (ours, reward, *_), (their, their_reward, *_) = env.step(action), simulator.step(action)
        assert np.array_equal(ours, their.astype(np.float32))
        assert reward == float(their_reward)


@pytest.mark.parametrize("task", ["reach-v3", "door-open-v3"])
def test_the_fifty_goals_of_a_task_are_distinct_and_lie_in_its_box(task):
    (found,) = draw_tasks([task], seed=0)
    box = MetaWorldTask(task)._simulator._random_reset_space
    assert len(np.unique(found.placements, axis=0)) == 50
    assert all(box.contains(placement) for placement in found.placements)


def test_a_multi_task_suite_of_chosen_tasks_shows_their_goals():
    suite = multi_task_suite(["reach-v3", "drawer-close-v3"], goals=2, horizon=5)
    env = suite.environment("drawer-close-v3", one_hot=True)
    seen, _ = env.reset(options={"goal": 0})
    assert seen.shape == (41,)
    assert seen[36:39].any()
    assert suite.test is suite.train
    with pytest.raises(SettingError, match="named once"):
        multi_task_suite(["reach-v3", "reach-v3"])
    with pytest.raises(UnknownNameError, match="reach-v3"):
        multi_task_suite(["reech-v3"])


def test_a_multi_task_suite_tests_on_its_training_goals(reach):
    assert reach.test is reach.train


# ---- environments ------------------------------------------------------------------------------------


def test_the_goal_chosen_is_the_goal_played(reach):
    env = reach.environment("reach-v3")
    for goal in (2, 0):
        seen, info = env.reset(options={"goal": goal})
        assert np.array_equal(env.unwrapped.placement, reach.train[0].placements[goal])
        assert (info["goal"], seen[-3:]) == (goal, pytest.approx(reach.train[0].placements[goal, -3:]))
    with pytest.raises(SettingError, match="no goal 4"):
        env.reset(options={"goal": 4})


def test_a_seed_draws_one_of_the_goals_and_the_same_again(reach):
    env = reach.environment("reach-v3")
    drawn = [env.reset(seed=seed)[1]["goal"] for seed in range(12)]
    assert set(drawn) == {0, 1, 2, 3}
    assert drawn == [env.reset(seed=seed)[1]["goal"] for seed in range(12)]


def test_meta_learning_hides_the_goal(hidden):
    seen, _ = hidden.environment("reach-v3", split="test").reset(seed=0)
    assert np.array_equal(seen[-3:], np.zeros(3))


def test_the_task_is_appended_as_a_one_hot_vector():
    names = ("reach-v3", "push-v3", "sweep-v3")
    suite = Suite("three", names, names, multi_task=True, goals=1)
    env = suite.environment("push-v3", one_hot=True)
    seen, _ = env.reset(seed=0)
    assert seen.shape == env.observation_space.shape == (42,)
    assert seen[39:].tolist() == [0, 1, 0]
    assert env.observation_space.contains(seen)


def test_feedback_is_what_the_packages_wrapper_appends():
    ours, theirs = Feedback(MetaWorldTask("push-v3")), RNNBasedMetaRLWrapper(MetaWorldTask("push-v3"))
    assert np.array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0].astype(np.float32))
    for action in ACTIONS[:3]:
        seen, reward, *_ = ours.step(action)
        assert np.array_equal(seen, theirs.step(action)[0].astype(np.float32))
        assert seen[43] == np.float32(reward / 10)


def test_reward_versions_differ_by_orders_of_magnitude(reach):
    old = make_suite("MT1", 5, task="reach-v3", goals=4, reward_version="v1")
    highest = []
    for suite in (reach, old):
        env = suite.environment("reach-v3")
        expert = MetaWorldExpert(env)
        seen, _ = env.reset(options={"goal": 0})
        rewards = []
        for _ in range(20):
            seen, reward, *_ = env.step(expert.act(seen))
            rewards.append(reward)
        highest.append(max(rewards))
    assert highest[0] <= 10
    assert highest[1] > 100
    with pytest.raises(SettingError, match="v3"):
        MetaWorldTask("reach-v3", reward_version="v3")


# ---- what is refused ---------------------------------------------------------------------------------


def test_rounds_have_equally_many_of_every_task():
    suite = make_suite("ML10", goals=6)  # which draws no goals yet
    rounds = suite.rounds("test", batch=10, goals=5)
    assert [len(pairs) for pairs in rounds] == [10, 10, 5]
    for pairs in rounds:
        assert len({sum(task == name for task, _ in pairs) for name in ML10[1]}) == 1
    assert sorted(pair for pairs in rounds for pair in pairs) == sorted(
        (name, goal) for name in ML10[1] for goal in range(5)
    )
    for batch in (0, 12):
        with pytest.raises(SettingError, match="multiple of 5"):
            suite.rounds("test", batch=batch, goals=5)
    with pytest.raises(SettingError, match="7 goals"):
        suite.rounds("test", batch=5, goals=7)


def test_a_custom_suite_must_not_test_what_it_trains():
    with pytest.raises(SettingError, match="reach-v3"):
        custom_suite(["reach-v3", "push-v3"], ["reach-v3"])
    with pytest.raises(SettingError, match="named once"):
        custom_suite(["reach-v3", "reach-v3"], ["push-v3"])
    with pytest.raises(UnknownNameError, match="push-v3"):
        custom_suite(["reach-v3"], ["psh-v3"])
    suite = custom_suite(["reach-v3"], ["push-v3"], goals=1)
    assert (suite.train[0].name, suite.test[0].name, suite.multi_task) == ("reach-v3", "push-v3", False)


def test_suites_that_are_not_there_are_answered_with_those_that_are():
    with pytest.raises(UnknownNameError, match="MT10"):
        make_suite("MT11")
    with pytest.raises(SettingError, match="one task"):
        make_suite("MT1")
    with pytest.raises(SettingError, match="tasks of its own"):
        make_suite("MT10", task="reach-v3")
    with pytest.raises(UnknownNameError, match="reach-v3"):
        make_suite("ML1", task="rech-v3")
    with pytest.raises(UnknownNameError, match="no task 'sweep-v3'"):
        make_suite("MT10").environment("sweep-v3")


def test_no_step_before_a_goal_is_set_nor_after_the_end_nor_of_another_width(reach):
    env = reach.environment("reach-v3")
    with pytest.raises(ResetNeeded):
        env.step(ACTIONS[0])
    env.reset(seed=0)
    with pytest.raises(ShapeError):
        env.step(np.zeros(3, np.float32))
    for _ in range(20):
        *_, truncated, _ = env.step(ACTIONS[0])
    assert truncated
    with pytest.raises(ResetNeeded):
        env.step(ACTIONS[0])


@pytest.mark.parametrize("placement", [[0.0, 0.7], [9.0] * 6, [np.nan] * 6])
def test_a_placement_that_the_task_could_not_have_drawn_is_refused(placement):
    env = MetaWorldTask("push-v3")
    with pytest.raises(SettingError, match="push-v3"):
        env.reset(options={"placement": placement})


def test_drawing_a_placement_ends_the_episode_and_leaves_no_trace():
    env, other = MetaWorldTask("push-v3"), MetaWorldTask("push-v3")
    env.reset(seed=0)
    env.draw_placement(np.random.default_rng(1))
    with pytest.raises(ResetNeeded):
        env.step(ACTIONS[0])
    assert np.array_equal(env.reset(seed=2)[0], other.reset(seed=2)[0])

import pickle

import numpy as np
import pytest

pytest.importorskip("metaworld")

from gymnasium.error import ResetNeeded
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from policysmith.common.errors import CapabilityError, NotFiniteError, ShapeError, UnknownNameError
from policysmith.worlds.metaworld import MetaWorldExpert, MetaWorldTask, task_names
from policysmith.worlds.rendering import configure

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (25, 4)).astype(np.float32)


@pytest.fixture
def drawing():
    """Skip where MuJoCo cannot draw; otherwise have it set up in this process."""
    try:
        configure()
    except CapabilityError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def push():
    return MetaWorldTask("push-v3")


@pytest.fixture(scope="module")
def drawer():
    return MetaWorldTask("drawer-open-v3", horizon=120)


def rollout(env, seed):
    """All that an episode under fixed actions shows: observations, rewards, and the simulator's state."""
    observation, _ = env.reset(seed=seed)
    seen, rewards = [observation], []
    for action in ACTIONS:
        observation, reward, *_ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
    data = env._simulator.data
    return np.stack(seen), np.array(rewards), np.concatenate([data.qpos, data.qvel])


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def expert_run(env, seed):
    expert = MetaWorldExpert(env)
    observation, _ = env.reset(seed=seed)
    for step in range(1, 121):
        observation, _, _, _, info = env.step(expert.act(observation))
        if info["success"]:
            return step
    return None


def test_two_instances_with_one_seed_agree_to_the_last_bit(push):
    assert same(rollout(push, 3), rollout(MetaWorldTask("push-v3"), 3))


def test_an_old_seed_brings_its_episode_back_after_others(push):
    first = rollout(push, 3)
    rollout(push, 4)
    push.reset()
    np.random.seed(0)  # the package's own generator, which must not matter
    assert same(first, rollout(push, 3))


def test_different_seeds_place_the_objects_differently(push):
    placements = []
    for seed in range(10):
        push.reset(seed=seed)
        placements.append(push.placement)
    assert len(np.unique(placements, axis=0)) == 10
    inside = push._simulator._random_reset_space
    assert all(inside.contains(placement) for placement in placements)


def test_without_a_seed_the_placements_go_on_from_the_last_seed(push):
    def three():
        push.reset(seed=5)
        placements = [push.placement]
        for _ in range(2):
            push.reset()
            placements.append(push.placement)
        return np.stack(placements)

    assert np.array_equal(three(), three())
    assert len(np.unique(three(), axis=0)) == 3


@pytest.mark.parametrize("name", ["push-v3", "stick-pull-v3"])
def test_the_episode_is_the_packages_own_for_its_placement(name):
    ours, theirs = MetaWorldTask(name), ALL_V3_ENVIRONMENTS[name]()
    ours.reset(seed=1)
    task = {"rand_vec": ours.placement, "env_cls": type(theirs), "partially_observable": False}
    theirs.set_task(Task(env_name=name, data=pickle.dumps(task)))
    first, _ = theirs.reset()
    observations, rewards, state = rollout(ours, 1)
    steps = [theirs.step(action) for action in ACTIONS]
    assert np.array_equal(observations[0][:36], first[:36].astype(np.float32))
    assert np.array_equal(observations[1:], np.stack([step[0] for step in steps]).astype(np.float32))
    assert rewards.tolist() == [float(step[1]) for step in steps]
    assert np.array_equal(state, np.concatenate([theirs.data.qpos, theirs.data.qvel]))


def test_the_goal_is_shown_or_hidden(push):
    seen, _ = push.reset(seed=2)
    hidden_task = MetaWorldTask("push-v3", goal_visible=False)
    hidden, _ = hidden_task.reset(seed=2)
    assert seen[-3:] == pytest.approx(push.goal)
    assert np.array_equal(hidden[-3:], np.zeros(3))
    assert np.array_equal(seen[:-3], hidden[:-3])
    assert hidden_task.goal == pytest.approx(push.goal)


def test_observations_lie_in_the_declared_space(push):
    for observation in rollout(push, 6)[0]:
        assert push.observation_space.contains(observation)
    assert push.observation_space.shape == (39,)


def test_the_previous_moment_follows_this_one(push):
    observations = rollout(push, 6)[0]
    assert np.array_equal(observations[0][:18], observations[0][18:36])
    assert np.allclose(observations[1:, 18:36], observations[:-1, :18], atol=1e-6)


@pytest.mark.parametrize("task", ["drawer", "push"])
def test_the_expert_succeeds_on_every_seed(task, request):
    env = request.getfixturevalue(task)
    assert None not in [expert_run(env, seed) for seed in range(4)]


def test_the_expert_needs_no_visible_goal(push):
    hidden = MetaWorldTask("push-v3", goal_visible=False)
    assert expert_run(hidden, 0) == expert_run(push, 0)


def test_episodes_are_truncated_at_the_horizon_and_no_further_step_is_taken():
    env = MetaWorldTask("reach-v3", horizon=3)
    with pytest.raises(ResetNeeded):
        env.step(ACTIONS[0])
    env.reset(seed=0)
    assert [env.step(action)[2:4] for action in ACTIONS[:3]] == [
        (False, False),
        (False, False),
        (False, True),
    ]
    with pytest.raises(ResetNeeded):
        env.step(ACTIONS[0])


def test_success_ends_the_episode_only_where_asked(drawer):
    env = MetaWorldTask("drawer-open-v3", horizon=120, terminate_on_success=True)
    expert = MetaWorldExpert(env)
    observation, info = env.reset(seed=0)
    assert info == {"success": 0.0}
    steps, terminated = 0, False
    while not terminated:
        observation, _, terminated, truncated, info = env.step(expert.act(observation))
        steps += 1
        assert not truncated
    assert info["success"] == 1.0
    assert steps == expert_run(drawer, 0)


def test_a_sparse_task_pays_one_at_success_and_ends_there(drawer):
    env = MetaWorldTask("drawer-open-v3", horizon=120, sparse=True)
    expert = MetaWorldExpert(env)
    observation, _ = env.reset(seed=0)
    rewards, terminated = [], False
    while not terminated:
        observation, reward, terminated, _, _ = env.step(expert.act(observation))
        rewards.append(reward)
    assert rewards == [0.0] * (expert_run(drawer, 0) - 1) + [1.0]


def test_an_action_that_is_held_is_the_same_action_again_and_again(push):
    held = MetaWorldTask("push-v3", hold=4, horizon=10)
    push.reset(seed=3)
    held.reset(seed=3)
    for action in ACTIONS[:2]:
        steps = [push.step(action) for _ in range(4)]
        seen, reward, _, truncated, _ = held.step(action)
        assert np.array_equal(seen, steps[-1][0])
        assert reward == sum(step[1] for step in steps)
        assert not truncated
    assert held.step(ACTIONS[2])[3]  # the horizon counts the simulator's steps: two more were left


def test_a_misspelt_task_is_answered_with_the_nearest():
    assert len(task_names()) == 50
    with pytest.raises(UnknownNameError, match="drawer-open-v3"):
        MetaWorldTask("drawer-opn-v3")


@pytest.mark.parametrize(
    ("action", "error"), [(np.zeros(3), ShapeError), (np.full(4, np.inf), NotFiniteError)]
)
def test_actions_that_make_no_sense_are_refused(push, action, error):
    push.reset(seed=0)
    with pytest.raises(error):
        push.step(action)


def drawn(name):
    env = MetaWorldTask(name, render_mode="rgb_array", width=64, height=48)
    env.reset(seed=0)
    return env, env.render()


def test_pictures_are_the_right_way_up_and_those_of_several_environments_do_not_mix(drawing):
    first, drawer_alone = drawn("drawer-open-v3")
    assert drawer_alone.shape == (48, 64, 3)
    assert drawer_alone.std() > 20
    # The wooden table stands in the picture's lower half, the grey void above it.
    brown = (drawer_alone[..., 0].astype(int) - drawer_alone[..., 2]) > 25
    assert brown[24:].sum() > 2 * brown[:24].sum()

    second, push_alone = drawn("push-v3")
    assert not np.array_equal(drawer_alone, push_alone)
    assert np.array_equal(first.render(), drawer_alone)
    first.close()
    assert np.array_equal(second.render(), push_alone)
    second.close()
    assert np.array_equal(second.render(), push_alone)  # it draws again after a close
    second.close()


def test_an_unknown_camera_is_answered_with_those_there_are():
    with pytest.raises(UnknownNameError, match="corner2"):
        MetaWorldTask("push-v3", render_mode="rgb_array", camera="side")

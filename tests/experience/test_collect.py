"""Recording: what is repeated by a seed, and what each kind of noise leaves in the record."""

import gymnasium
import numpy as np
import pytest
import torch

from policysmith.common.errors import CapabilityError, DataError, ShapeError
from policysmith.common.rng import derive
from policysmith.experience.collect import record, succeeded
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes

torch.set_num_threads(1)


class Track(gymnasium.Env):
    """A point on a line that moves by what is played; the goal is to be beyond `goal`.

    It returns the same array every time and writes into it, as some simulators do.
    """

    def __init__(self, *, goal=np.inf, ends=False, length=6):
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.goal, self.ends, self.length = goal, ends, length
        self.played, self.seeds = [], []
        self._place = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self._place[:] = self.np_random.uniform(-0.1, 0.1, 2)
        self._steps = 0
        return self._place, {}

    def step(self, action):
        assert action.dtype == np.float32
        assert self.action_space.contains(action)
        self.played.append(action.copy())
        self._place += action
        self._steps += 1
        success = bool(self._place[0] > self.goal)
        over = self._steps == self.length
        return self._place, float(self._steps), self.ends and success, over, {"success": success}


class Towards:
    """Acts a fixed step plus a little that depends on where it is."""

    def __init__(self, step=0.5):
        self.step, self.resets = step, []

    def reset(self, seed=None):
        self.resets.append(seed)

    def act(self, observation):
        return np.array([self.step, 0.0]) + 0.1 * np.tanh(observation)


def recorded(environment, expert=None, **settings):
    settings = {"episodes": 3, "seed": 7} | settings
    return list(record(environment, expert or Towards(), **settings))


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a
    )


def test_a_recording_repeats_by_its_seed_in_another_environment():
    settings = {"action_noise": 0.2, "system_noise": 0.1}
    first = recorded(Track(), **settings)
    assert same(first, recorded(Track(), **settings))
    assert not same(first, recorded(Track(), seed=8, **settings))


def test_each_attempt_has_a_seed_of_its_own_so_that_fewer_episodes_are_a_prefix():
    environment, expert = Track(), Towards()
    five = recorded(environment, expert, episodes=5, action_noise=0.3)
    assert environment.seeds == expert.resets == [derive(7, "episode", i) for i in range(5)]
    assert same(five[:2], recorded(Track(), episodes=2, action_noise=0.3))


def test_observations_are_what_was_seen_even_where_the_environment_reuses_its_array():
    (episode,) = recorded(Track(), episodes=1)
    moved = np.diff(episode["observation"], axis=0)
    np.testing.assert_allclose(moved, episode["action"], atol=1e-6)
    assert len(episode["observation"]) == len(episode["action"]) + 1 == 7


def test_without_noise_the_record_is_what_the_expert_did_and_what_was_played():
    environment = Track()
    (episode,) = recorded(environment, episodes=1)
    answers = [Towards().act(observation) for observation in episode["observation"][:-1]]
    np.testing.assert_allclose(episode["action"], answers, atol=1e-6)
    np.testing.assert_array_equal(episode["action"].astype(np.float32), environment.played)


def test_action_noise_is_recorded_and_played():
    environment = Track()
    (episode,) = recorded(environment, episodes=1, action_noise=0.2)
    answers = np.array([Towards().act(observation) for observation in episode["observation"][:-1]])
    assert (np.abs(episode["action"] - answers) > 1e-3).any()
    np.testing.assert_array_equal(episode["action"].astype(np.float32), environment.played)


def test_system_noise_is_played_and_not_recorded():
    environment = Track()
    (episode,) = recorded(environment, episodes=1, system_noise=0.2)
    answers = [Towards().act(observation) for observation in episode["observation"][:-1]]
    np.testing.assert_allclose(episode["action"], answers, atol=1e-6)  # the answer to where it ended up
    assert (np.abs(episode["action"] - environment.played) > 1e-3).any()


@pytest.mark.parametrize("kind", ["action_noise", "system_noise"])
def test_noise_has_the_deviation_that_was_asked_for(kind):
    class Still(Towards):
        def act(self, observation):
            return np.zeros(2)

    environment = Track(length=2000)
    (episode,) = recorded(environment, Still(), episodes=1, **{kind: 0.2})
    played = np.array(environment.played)
    assert played.std() == pytest.approx(0.2, rel=0.05)
    assert abs(played.mean()) < 0.02
    assert episode["action"].std() == pytest.approx(0.2 if kind == "action_noise" else 0, rel=0.05)


def test_noise_is_clipped_to_the_action_space_in_the_record_and_in_the_world():
    environment = Track()
    episodes = recorded(environment, Towards(step=0.9), action_noise=2.0, system_noise=2.0)
    actions = np.concatenate([episode["action"] for episode in episodes])
    assert np.abs(actions).max() == 1
    assert np.abs(environment.played).max() == 1


def test_an_expert_beyond_the_action_space_is_recorded_as_what_can_be_played():
    (episode,) = recorded(Track(), Towards(step=5.0), episodes=1)
    assert episode["action"][:, 0].tolist() == [1.0] * 6


def test_an_episode_stops_at_success_and_counts_as_truncated():
    (episode,) = recorded(Track(goal=1.2), episodes=1)
    assert episode["success"].tolist() == [False, False, True]
    assert episode["truncated"].tolist() == [False, False, True]
    assert not episode["terminated"].any()
    (whole,) = recorded(Track(goal=1.2), episodes=1, stop_on_success=False)
    assert len(whole["action"]) == 6
    assert whole["success"][2:].all()


def test_an_end_of_the_environments_own_stays_a_termination():
    (episode,) = recorded(Track(goal=1.2, ends=True), episodes=1)
    assert episode["terminated"].tolist() == [False, False, True]
    assert not episode["truncated"].any()


def test_a_limit_cuts_and_says_so():
    (episode,) = recorded(Track(), episodes=1, limit=4)
    assert episode["truncated"].tolist() == [False, False, False, True]
    assert episode["reward"].tolist() == [1, 2, 3, 4]


def test_only_successful_episodes_are_kept_and_the_others_tried_again():
    noise = {"action_noise": 0.6, "episodes": 6}
    every = recorded(Track(goal=3.2), **noise | {"episodes": 60})
    kept = recorded(Track(goal=3.2), only_successful=True, **noise)
    successful = [episode for episode in every if episode["success"].any()]
    assert 6 < len(successful) < 60
    assert same(kept, successful[:6])


def test_too_few_successes_are_an_error_that_counts_them():
    environment = Track(goal=100)
    with pytest.raises(DataError, match="0 of 8 attempts succeeded, and 2 were wanted"):
        recorded(environment, episodes=2, only_successful=True, most_attempts=4)
    assert len(environment.seeds) == 8


def test_the_last_attempt_may_be_the_one_that_succeeds():
    every = recorded(Track(goal=3.2), action_noise=0.6, episodes=60)
    first = next(i for i, episode in enumerate(every) if episode["success"].any())
    settings = {"episodes": 1, "only_successful": True, "action_noise": 0.6}
    assert len(recorded(Track(goal=3.2), **settings, most_attempts=first + 1)) == 1
    if first:
        with pytest.raises(DataError):
            recorded(Track(goal=3.2), **settings, most_attempts=first)


def test_what_is_recorded_makes_episodes():
    episodes = Episodes.from_arrays(recorded(Track(goal=1.2), action_noise=0.1))
    assert len(episodes) == 3
    assert episodes.succeeded.all()
    assert (episodes.observation_size, episodes.action_size) == (2, 2)


def test_discrete_actions_are_refused():
    with pytest.raises(CapabilityError, match="continuous"):
        recorded(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize("answer", [np.zeros(1), np.zeros(3), np.zeros((1, 2)), 0.0])
def test_an_expert_of_another_width_is_refused_and_not_broadcast(answer):
    class Wrong(Towards):
        def act(self, observation):
            return answer

    with pytest.raises(ShapeError, match=r"the expert acts with shape \[.*\](.|\n)*\[2\]"):
        recorded(Track(), Wrong())


@pytest.mark.parametrize(
    ("info", "flag"), [({}, False), ({"success": 1.0}, True), ({"is_success": np.bool_(True)}, True)]
)
def test_success_goes_by_either_name(info, flag):
    assert succeeded(info) is flag


def test_a_description_says_the_options_of_its_environment_and_is_kept_by_them(tmp_path):
    still, pushed = (
        Demonstrations("point-obstacle", episodes=2, options={"sigma_system": sigma}) for sigma in (0.0, 0.02)
    )
    assert still.path(tmp_path) != pushed.path(tmp_path)
    recorded = list(pushed.record())
    steps = np.diff(recorded[0]["observation"][:, :2], axis=0)
    # The world was pushed while the record holds what the expert meant: a step is not its action.
    assert np.abs(steps - 0.04 * recorded[0]["action"]).max() > 0.01
    calm = next(still.record())
    np.testing.assert_allclose(np.diff(calm["observation"][:, :2], axis=0), 0.04 * calm["action"], atol=1e-6)
    pushed.save(recorded, pushed.path(tmp_path))
    assert pushed.load(tmp_path).provenance["options"] == {"sigma_system": 0.02}

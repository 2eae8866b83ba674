"""The controller: a robot's loop played with a clock of our own."""

import numpy as np
import pytest
import torch

from policysmith.common.errors import (
    CapabilityError,
    DataError,
    NotFiniteError,
    SettingError,
    ShapeError,
    StaleError,
)
from policysmith.common.rng import seeded_initialisation
from policysmith.networks import compiled
from policysmith.networks.mlp import ResidualMLPDenoiser
from policysmith.networks.noise import DiscreteNoise, squared_cosine_betas
from policysmith.policies.controller import Controller
from policysmith.policies.diffusion import ActionDiffusion, DiffusionPolicy
from policysmith.policies.protocol import Policy
from policysmith.policies.streaming import StreamingPolicy

torch.set_num_threads(1)


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Counting(Policy):
    """Acts (first entry of the newest state, step of the chunk); a decision takes `seconds` on the clock."""

    observation_size, action_size, action_steps = 2, 2, 3

    def __init__(self, clock=None, seconds=0.0):
        super().__init__()
        self.clock, self.seconds, self.threads = clock, seconds, []

    def act(self, observation, state, *, rng):
        self.check_batch(observation, state)
        self.threads.append(torch.get_num_threads())
        if self.clock is not None:
            self.clock.now += self.seconds
        newest = observation[:, -1, :1].expand(-1, self.action_steps)
        steps = torch.arange(float(self.action_steps)).expand_as(newest)
        return torch.stack([newest, steps], dim=-1), state


class Seeing(Policy):
    """Reads a state and a camera, and acts the state plus the camera's brightest value."""

    observation_size, action_size = 1, 1
    pictures = {"front": (2, 3)}  # noqa: RUF012

    def act(self, observation, state, *, rng):
        self.check_batch(observation, state)
        brightest = observation["front"].flatten(2).amax(-1, keepdim=True)
        return observation["state"] + brightest, state


def diffusion(kind=DiffusionPolicy, **options):
    with seeded_initialisation(0):
        network = ResidualMLPDenoiser(2, 8, 6, width=16, depth=1, level_size=4, level_positions=8)
    model = ActionDiffusion(
        network, DiscreteNoise(squared_cosine_betas(6)), observation_size=3, observation_steps=2
    )
    return kind(model, action_steps=2, **options).eval()


def made(policy=None, **options):
    clock = options.pop("clock", None) or Clock()
    return Controller(policy or Counting(), **{"rate": 10.0, "clock": clock} | options), clock


# ---- one tick ----------------------------------------------------------------------------------------


def test_one_observation_in_one_action_out():
    controller, _ = made()
    played = [controller.act([value, 0]) for value in (5, 6, 7, 8)]
    assert [action.tolist() for action in played] == [[5, 0], [5, 1], [5, 2], [8, 0]]
    assert all(action.shape == (2,) and action.dtype == np.float32 for action in played)


def test_a_batch_of_robots_ticks_together_and_resets_row_by_row():
    controller, _ = made(batch=2)
    controller.act(np.array([[1.0, 0], [2, 0]]))
    controller.reset([False, True])
    assert controller.act(np.array([[3.0, 0], [4, 0]])).tolist() == [[1, 1], [4, 0]]
    controller.reset()
    assert controller.act(np.array([[5.0, 0], [6, 0]])).tolist() == [[5, 0], [6, 0]]


def test_the_callers_arrays_are_the_callers():
    controller, _ = made()
    controller.act([1, 0])[:] = 99
    assert controller.act([1, 0]).tolist() == [1, 1]


def test_parts_are_read_by_name_and_others_left_aside():
    controller, _ = made(Seeing())
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[1, 2, 0] = 7
    assert controller.act({"state": [0.5], "front": picture, "wrist": "unread"}).tolist() == [7.5]
    controller, _ = made()
    assert controller.act({"state": [4.0, 0], "camera": picture}).tolist() == [4, 0]


def test_the_same_seed_acts_the_same_and_another_does_not():
    first, again, other = (made(diffusion(), seed=seed)[0].act([0.1, 0.2, 0.3]) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_saved_policy_is_loaded_by_its_folder(tmp_path):
    policy = diffusion()
    policy.save_pretrained(tmp_path)
    loaded = Controller.load(tmp_path, rate=10.0, seed=3)
    assert np.array_equal(loaded.act([0.1, 0.2, 0.3]), made(policy, seed=3)[0].act([0.1, 0.2, 0.3]))


# ---- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        ([1.0, np.nan], DataError, r"'state' \[1\] is nan"),
        ([np.inf, np.nan], DataError, r"'state' \[0\] \(and 1 more of its entries\) is inf"),
        ([1.0], ShapeError, r"'state' has shape \[1\](.|\n)*\[2\], as the policy was trained on"),
        ([[1.0, 2.0]], ShapeError, r"'state' has shape \[1, 2\]"),
        ({"goal": [1.0, 2.0]}, DataError, r"no 'state'(.|\n)*the parts 'goal'"),
    ],
)
def test_observations_that_cannot_be_used_are_refused_by_name(observation, error, message):
    controller, _ = made()
    with pytest.raises(error, match=message):
        controller.act(observation)


def test_of_a_batch_the_row_is_named():
    controller, _ = made(batch=2)
    with pytest.raises(DataError, match=r"'state' \[1, 0\] is nan"):
        controller.act(np.array([[1.0, 2], [np.nan, 3]]))


def test_pictures_have_to_be_bytes():
    controller, _ = made(Seeing())
    with pytest.raises(DataError, match=r"'front' is of float64(.|\n)*from 0 to 255"):
        controller.act({"state": [0.5], "front": np.zeros((2, 3, 3))})


def test_a_refused_observation_leaves_the_plan_as_it_was():
    controller, _ = made()
    controller.act([5, 0])
    with pytest.raises(DataError):
        controller.act([np.nan, 0])
    assert controller.act([6, 0]).tolist() == [5, 1]
    assert controller.ticks == 2


def test_an_action_that_is_not_finite_never_reaches_the_robot():
    class Broken(Counting):
        def act(self, observation, state, *, rng):
            actions, state = super().act(observation, state, rng=rng)
            return actions * float("nan"), state

    controller, _ = made(Broken(), low=-1, high=1)
    with pytest.raises(NotFiniteError, match="Broken"):
        controller.act([1, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "ticks per second"),
        ({"batch": 0}, "a batch of 0 robots"),
        ({"stale_after": 0}, "stale after 0 s"),
        ({"when_stale": "panic"}, "'panic'(.|\n)*raise, hold, continue"),
        ({"low": 2, "high": 1}, "low below high"),
        ({"threads": 0}, "0 threads"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        made(**options)


# ---- limits ------------------------------------------------------------------------------------------


def test_actions_are_limited_to_the_box_and_to_the_largest_change():
    controller, _ = made(high=[3, 1], largest_change=[0.5, 9])
    assert controller.act([2, 0]).tolist() == [2, 0]  # the first is free
    controller.reset()
    assert [controller.act([9, 0]).tolist() for _ in range(3)] == [[3, 0], [3, 1], [3, 1]]
    assert controller.act([0, 0]).tolist() == [2.5, 0]  # from the action that was sent, not the one wanted


def test_the_first_action_is_limited_where_it_is_known_what_the_robot_is_doing():
    controller, _ = made(largest_change=0.5)
    controller.reset(last_action=[0, 0])
    assert controller.act([2, 0]).tolist() == [0.5, 0]
    with pytest.raises(ShapeError, match=r"a last action of shape \[3\](.|\n)*\[2\]"):
        controller.reset(last_action=[0, 0, 0])


def test_a_reset_row_takes_its_last_action_and_the_others_keep_theirs():
    controller, _ = made(batch=2, largest_change=0.5)
    controller.act(np.array([[1.0, 0], [1, 0]]))
    controller.reset([True, False], last_action=[[7, 7], [8, 8]])
    assert controller.act(np.array([[9.0, 0], [9, 0]])).tolist() == [[7.5, 6.5], [1, 0.5]]


# ---- stale observations ------------------------------------------------------------------------------


def test_an_observation_is_stale_when_it_is_older_than_was_said():
    controller, clock = made(stale_after=0.2)
    controller.act([1, 0], time=clock.now - 0.19)
    with pytest.raises(StaleError, match=r"0.210 s old(.|\n)*at most 0.2 s"):
        controller.act([1, 0], time=clock.now - 0.21)
    assert controller.act([2, 0], time=clock.now).tolist() == [1, 1]  # nothing was lost


def test_holding_repeats_the_last_action_and_keeps_the_plan_waiting():
    controller, clock = made(stale_after=0.2, when_stale="hold", high=4)
    old = clock.now - 1
    with pytest.raises(StaleError, match="no action to hold yet"):
        controller.act([1, 0], time=old)
    assert controller.act([5, 0], time=clock.now).tolist() == [4, 0]
    assert [controller.act([9, 0], time=old).tolist() for _ in range(5)] == [[4, 0]] * 5
    assert controller.act([6, 0], time=clock.now).tolist() == [4, 1]
    controller.reset()
    with pytest.raises(StaleError, match="no action to hold yet"):
        controller.act([1, 0], time=old)


def test_what_is_held_is_the_action_that_was_sent():
    controller, clock = made(stale_after=0.2, when_stale="hold", largest_change=0.5)
    controller.reset(last_action=[0, 0])
    assert controller.act([9, 0], time=clock.now - 1).tolist() == [0, 0]
    assert controller.act([9, 0], time=clock.now).tolist() == [0.5, 0]
    assert controller.act([9, 0], time=clock.now - 1).tolist() == [0.5, 0]


def test_continuing_plays_the_plan_and_then_stops():
    controller, clock = made(stale_after=0.2, when_stale="continue")
    old = clock.now - 1
    with pytest.raises(StaleError, match="no planned action is left"):
        controller.act([1, 0], time=old)
    controller.act([5, 0], time=clock.now)
    assert [controller.act([9, 0], time=old).tolist() for _ in range(2)] == [[5, 1], [5, 2]]
    with pytest.raises(StaleError, match="no planned action is left"):
        controller.act([9, 0], time=old)
    assert controller.act([7, 0], time=clock.now).tolist() == [7, 0]


def test_a_stale_observation_does_not_enter_the_window():
    class Oldest(Counting):
        observation_steps = 2

        def act(self, observation, state, *, rng):
            return super().act(observation[:, :1], state, rng=rng)

        def check_batch(self, observation, state):
            pass

    controller, clock = made(Oldest(), stale_after=0.2, when_stale="continue")
    for value, age in ((1, 0), (2, 0), (3, 1)):
        controller.act([value, 0], time=clock.now - age)
    assert controller.act([4, 0], time=clock.now).tolist() == [2, 0]  # the one before 4 that was fresh


def test_rows_are_stale_one_by_one():
    controller, clock = made(batch=2, stale_after=0.2, when_stale="hold")
    controller.act(np.array([[1.0, 0], [2, 0]]), time=clock.now)
    action = controller.act(np.array([[1.0, 0], [2, 0]]), time=[clock.now, clock.now - 1])
    assert action.tolist() == [[1, 1], [2, 0]]


def test_a_clock_other_than_the_controllers_is_found_out():
    controller, clock = made(stale_after=0.2)
    with pytest.raises(DataError, match=r"1000.000 s after now(.|\n)*clock="):
        controller.act([1, 0], time=clock.now + 1000)
    with pytest.raises(SettingError, match="was not told how old"):
        controller.act([1, 0])
    with pytest.raises(DataError, match="time is nan"):
        controller.act([1, 0], time=np.nan)


# ---- deadlines, threads, warming up ------------------------------------------------------------------


def test_ticks_that_take_longer_than_one_over_the_rate_are_counted():
    clock = Clock()
    controller, _ = made(Counting(clock, seconds=0.15), clock=clock)  # 10 Hz: 0.1 s, decided every third tick
    for _ in range(7):
        controller.act([1, 0])
    report = controller.report()
    assert (controller.ticks, controller.late, report.ticks, report.late) == (7, 3, 7, 3)
    assert report.median_ms == 0
    assert report.p99_ms == pytest.approx(150)


def test_the_policy_decides_once_before_the_first_tick():
    policy = Counting()
    controller, _ = made(policy)
    assert len(policy.threads) == 1
    assert controller.ticks == 0
    assert controller.act([5, 0]).tolist() == [5, 0]


def test_threads_are_those_asked_for_within_a_tick_only():
    before, policy = torch.get_num_threads(), Counting()
    controller, _ = made(policy, threads=before + 1)
    controller.act([1, 0])
    assert policy.threads == [before + 1] * 2
    assert torch.get_num_threads() == before


# ---- spreading and compiling -------------------------------------------------------------------------


def test_spreading_leaves_the_actions_of_a_robot_that_stands_still():
    together, spread = (made(diffusion(StreamingPolicy), spread=s)[0] for s in (False, True))
    for _ in range(9):
        assert np.array_equal(together.act([0.1, 0.2, 0.3]), spread.act([0.1, 0.2, 0.3]))


def test_spreading_needs_a_policy_that_can_work_ahead():
    with pytest.raises(CapabilityError, match="'work_ahead'"):
        made(diffusion(), spread=True)


def test_a_compiled_network_acts_the_same_and_the_callers_policy_stays_as_it_was(monkeypatch):
    compile = torch.compile
    monkeypatch.setattr(compiled.torch, "compile", lambda call: compile(call, backend="eager"))
    policy = diffusion(StreamingPolicy)
    network = policy.model.network
    eager, fast = made(policy)[0], made(policy, compile=True)[0]
    assert isinstance(fast.policy.model.network, compiled.CompiledDenoiser)
    assert policy.model.network is network
    for value in np.linspace(-1, 1, 5):
        np.testing.assert_allclose(fast.act([value, 0, 1]), eager.act([value, 0, 1]), atol=1e-5)


def test_where_nothing_compiles_it_is_said(monkeypatch):
    def refuse(call):
        def fail(*arguments):
            raise RuntimeError("no working C++ compiler found\nlong trace")

        return fail

    monkeypatch.setattr(compiled.torch, "compile", refuse)
    with pytest.raises(CapabilityError, match=r"no working C\+\+ compiler found\n(.|\n)*compile=False"):
        made(diffusion(), compile=True)


def test_there_has_to_be_a_network_to_compile():
    with pytest.raises(CapabilityError, match="Counting has no denoising network"):
        made(compile=True)

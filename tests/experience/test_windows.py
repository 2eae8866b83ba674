"""Windows of episodes: against a reference that walks step by step, and each once per pass."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.experience.windows import WindowSampler

torch.set_num_threads(1)


def made(lengths):
    """Episodes whose observation is (episode, step) and whose action is (episode, step, 0.5)."""
    return Episodes.from_arrays(
        {
            "observation": [[e, t] for t in range(length + 1)],
            "action": [[e, t, 0.5] for t in range(length)],
        }
        for e, length in enumerate(lengths)
    )


def sampler(lengths, *, horizon, observed, acted, seed=0):
    return WindowSampler(
        made(lengths),
        horizon=horizon,
        observation_steps=observed,
        action_steps=acted,
        rng=torch.Generator().manual_seed(seed),
    )


def expected_windows(lengths, *, horizon, observed, acted):
    """Every window as (episode, its observed steps, its action steps), found by padding and sliding.

    Each episode is padded by repeating its edges, To - 1 before and Ta - 1 after, and further behind where it
    is too short for a single window; the windows are all slices of the padded episode.
    """
    found = []
    for episode, length in enumerate(lengths):
        padded = [0] * (observed - 1) + list(range(length)) + [length - 1] * (acted - 1)
        padded += [length - 1] * (horizon - len(padded))
        for first in range(len(padded) - horizon + 1):
            window = padded[first : first + horizon]
            found.append((episode, tuple(window[:observed]), tuple(window)))
    return found


def read(batch):
    """A batch of windows in the form of `expected_windows`."""
    rows = []
    for observation, action in zip(batch["observation"], batch["action"], strict=True):
        owners = {*observation[:, 0].tolist(), *action[:, 0].tolist()}
        assert len(owners) == 1, "a window reaches into another episode"
        steps = (tuple(map(int, part[:, 1].tolist())) for part in (observation, action))
        rows.append((int(owners.pop()), *steps))
    return rows


Shape = st.integers(1, 4).flatmap(
    lambda observed: st.tuples(st.integers(observed, 12), st.just(observed), st.integers(1, 9))
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=4), Shape)
def test_the_windows_are_those_of_padding_and_sliding(lengths, shape):
    horizon, observed, acted = shape
    windows = sampler(lengths, horizon=horizon, observed=observed, acted=acted)
    wanted = expected_windows(lengths, horizon=horizon, observed=observed, acted=acted)
    assert len(windows) == len(wanted)
    assert read(windows.gather(torch.arange(len(windows)))) == wanted


def test_the_first_windows_see_the_first_observation_repeated():
    first = sampler([9], horizon=8, observed=3, acted=4).gather(torch.arange(3))
    assert first["observation"][:, :, 1].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
    assert first["action"][0, :, 1].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]


def test_the_last_window_repeats_the_last_action_one_step_less_than_are_played():
    windows = sampler([9], horizon=8, observed=2, acted=4)
    last = windows.gather(torch.tensor([len(windows) - 1]))
    assert last["action"][0, :, 1].tolist() == [4, 5, 6, 7, 8, 8, 8, 8]


def test_an_episode_of_one_step_gives_a_window_of_that_step():
    windows = sampler([1], horizon=16, observed=2, acted=8)
    assert len(windows) == 1
    assert windows.sample(1)["action"][0, :, 1].tolist() == [0] * 16


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 13), st.integers(0, 3))
def test_each_window_comes_once_per_pass_whatever_the_batch_size(lengths, batch, seed):
    windows = sampler(lengths, horizon=4, observed=2, acted=2, seed=seed)
    every = sorted(read(windows.gather(torch.arange(len(windows)))))
    passes = 3
    drawn = []
    while len(drawn) < passes * len(every):
        drawn += read(windows.sample(batch))
    for number in range(passes):
        assert sorted(drawn[number * len(every) : (number + 1) * len(every)]) == every


def test_passes_differ_in_order_and_seeds_repeat():
    one, other = (sampler([30], horizon=4, observed=2, acted=2, seed=5) for _ in range(2))
    first, second = one.sample(len(one)), one.sample(len(one))
    assert not torch.equal(first["action"], second["action"])
    assert torch.equal(first["action"], other.sample(len(one))["action"])
    assert torch.equal(second["action"], other.sample(len(one))["action"])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 7), st.integers(1, 11))
def test_a_saved_sampler_goes_on_in_the_middle_of_a_pass(before, batch):
    kept, resumed = (sampler([9, 2], horizon=4, observed=2, acted=2, seed=seed) for seed in (1, 2))
    for _ in range(before):
        kept.sample(batch)
    resumed.load_state_dict(kept.state_dict())
    resumed.rng.set_state(kept.rng.get_state())
    for _ in range(5):
        assert torch.equal(kept.sample(batch)["action"], resumed.sample(batch)["action"])


def test_a_batch_is_a_copy_of_the_data():
    windows = sampler([9], horizon=4, observed=2, acted=2)
    windows.sample(5)["action"].fill_(99)
    assert windows.action.max() == 8


def test_the_state_of_other_data_is_refused_even_where_the_number_of_windows_agrees():
    state = sampler([9], horizon=4, observed=2, acted=2).state_dict()
    with pytest.raises(DataError, match="not those of the saved run"):
        sampler([8], horizon=4, observed=2, acted=2).load_state_dict(state)
    other = WindowSampler(
        Episodes.from_arrays([{"observation": np.ones((9, 2)), "action": np.ones((9, 3))}]),
        horizon=4,
        observation_steps=2,
        action_steps=2,
        rng=torch.Generator(),
    )
    assert len(other) == state["windows"]
    with pytest.raises(DataError, match="same data set and window settings"):
        other.load_state_dict(state)


@pytest.mark.parametrize(("horizon", "observed", "acted"), [(4, 0, 1), (4, 5, 1), (4, 1, 0), (0, 1, 1)])
def test_windows_that_cannot_be_are_refused(horizon, observed, acted):
    with pytest.raises(SettingError, match=f"{horizon} steps, {observed} of observations, {acted} acted"):
        sampler([5], horizon=horizon, observed=observed, acted=acted)

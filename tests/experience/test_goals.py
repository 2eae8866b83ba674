"""Hindsight goals: where they may lie, that they come from the same episode, and what is drawn again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.experience.goals import HindsightWindows

torch.set_num_threads(1)


def made(lengths):
    """Episodes whose state is (episode + 1, step) and whose action is (episode, step)."""
    return Episodes.from_arrays(
        {
            "observation": [[e + 1, t] for t in range(length + 1)],
            "action": [[e, t] for t in range(length)],
        }
        for e, length in enumerate(lengths)
    )


def sampler(lengths, *, seed=0, **options):
    return HindsightWindows(made(lengths), rng=torch.Generator().manual_seed(seed), **options)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 14), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_goals_lie_behind_the_window_in_the_same_episode_and_exactly_where_they_may(
    lengths, window, goal_steps, separation
):
    if max(lengths) < window:
        with pytest.raises(DataError):
            sampler(lengths, window=window)
        return
    windows = sampler(lengths, window=window, goal_steps=goal_steps, separation=separation)
    assert len(windows) == sum(max(0, length - window + 1) for length in lengths)
    assert windows.skipped == sum(length < window for length in lengths)
    batch = windows.sample(5 * len(windows))
    for row in range(len(batch)):
        states, action, goal = batch["observation"][row], batch["action"][row], batch["goal"][row]
        episode, first = int(states[0, 0]) - 1, int(states[0, 1])
        assert states.tolist() == [[episode + 1, first + k] for k in range(window)]
        assert action.tolist() == [[episode, first + k] for k in range(window)]
        earliest, end = first + window + separation, lengths[episode] - goal_steps
        assert bool(batch["has_goal"][row]) == (earliest < end)
        if earliest < end:
            assert set(goal[:, 0].tolist()) == {episode + 1}
            assert earliest <= int(goal[0, 1]) < end
            assert goal[:, 1].diff().tolist() == [1] * (goal_steps - 1)
        else:
            assert goal.tolist() == [[0, 0]] * goal_steps


def test_every_possible_goal_is_drawn_equally_often():
    windows = sampler([12], window=2)
    drawn = []
    for _ in range(400):  # passes, in each of which the window at step 0 comes once
        batch = windows.sample(len(windows))
        first = batch["observation"][:, 0, 1] == 0
        drawn.append(int(batch["goal"][first][0, 0, 1]))
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == list(range(2, 11))
    assert counts.sum() == 400
    # 400 draws over 9 places: the count of one is binomial, with deviation 6.3 around 44.4.
    assert (np.abs(counts - 400 / 9) < 4 * 6.3).all()


def test_one_window_has_another_goal_in_another_pass():
    windows = sampler([40], window=3)
    goals = []
    for _ in range(2):
        batch = windows.sample(len(windows))
        goals.append(batch["goal"][batch["observation"][:, 0, 1].argsort()])
    assert not torch.equal(*goals)


def test_a_saved_sampler_draws_the_same_windows_and_goals():
    kept, resumed = (sampler([20, 9], window=3, seed=seed) for seed in (1, 2))
    kept.sample(13)
    resumed.load_state_dict(kept.state_dict())
    resumed.rng.set_state(kept.rng.get_state())
    for _ in range(4):
        one, other = kept.sample(7), resumed.sample(7)
        assert torch.equal(one["goal"], other["goal"])
        assert torch.equal(one["action"], other["action"])


def test_the_state_of_other_data_is_refused():
    with pytest.raises(DataError, match="not those of the saved run"):
        sampler([8], window=3).load_state_dict(sampler([9], window=3).state_dict())


def test_of_observations_with_parts_the_state_becomes_the_goal():
    parts = {"state": np.ones((9, 3)), "goal": np.full((9, 2), 7.0)}
    episodes = Episodes.from_arrays([{"observation": parts, "action": np.zeros((8, 1))}])
    batch = HindsightWindows(episodes, window=2, rng=torch.Generator()).sample(4)
    assert batch["goal"].shape == (4, 1, 3)
    assert set(batch["goal"].unique().tolist()) <= {0.0, 1.0}
    assert batch["observation"]["goal"].shape == (4, 2, 2)


def test_episodes_that_are_all_too_short_are_an_error_that_says_how_long_they_are():
    with pytest.raises(DataError, match=r"none of the 2 episodes(.|\n)*longest has 3 steps(.|\n)*at least 4"):
        sampler([3, 2], window=4)


def test_pictures_alone_cannot_be_goals():
    pictures = {"camera": np.zeros((5, 8, 8, 3), np.uint8)}
    episodes = Episodes.from_arrays([{"observation": pictures, "action": np.zeros((4, 1))}])
    with pytest.raises(DataError, match="no state"):
        HindsightWindows(episodes, window=2, rng=torch.Generator())


@pytest.mark.parametrize("wrong", [{"goal_steps": 0}, {"separation": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingError):
        sampler([9], window=3, **wrong)

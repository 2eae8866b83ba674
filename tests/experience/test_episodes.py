"""Episodes: steps end to end, what is filled in, what is refused and how it is said."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.common.errors import DataError
from policysmith.experience.episodes import Episodes

torch.set_num_threads(1)

Lengths = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def arrays(length, *, final=True, width=3, **more):
    """One episode whose observation at step t is (t, t, t) and whose action is (10 t, 10 t)."""
    observation = np.repeat(np.arange(length + final, dtype=np.float64)[:, None], width, axis=1)
    return {
        "observation": observation,
        "action": 10 * np.repeat(np.arange(length)[:, None], 2, axis=1),
        **more,
    }


@settings(deadline=None, max_examples=40)
@given(Lengths, st.booleans())
def test_every_step_is_where_its_episode_and_its_time_say(lengths, final):
    episodes = Episodes.from_arrays(arrays(length, final=final) for length in lengths)
    assert len(episodes) == len(lengths)
    assert episodes.lengths.tolist() == lengths
    assert episodes.starts.tolist() == [sum(lengths[:i]) for i in range(len(lengths))]
    assert (episodes.observation_size, episodes.action_size) == (3, 2)
    for i, length in enumerate(lengths):
        assert episodes[i]["observation"][:, 0].tolist() == list(range(length))
        assert episodes[i]["action"][:, 1].tolist() == [10 * t for t in range(length)]
        assert episodes.final_observation[i, 0] == (length if final else length - 1)


def test_episodes_with_and_without_a_final_observation_mix():
    episodes = Episodes.from_arrays([arrays(3, final=True), arrays(3, final=False)])
    assert episodes.final_observation[:, 0].tolist() == [3, 2]
    assert torch.equal(episodes[0]["observation"], episodes[1]["observation"])


def test_an_episode_without_an_end_counts_as_truncated_at_its_last_step_only():
    steps = Episodes.from_arrays([arrays(4)]).steps
    assert steps["truncated"].tolist() == [False, False, False, True]
    assert not steps["terminated"].any()


@pytest.mark.parametrize("given", [True, np.bool_(True), np.array([False, False, True])])
def test_an_end_may_be_one_value_or_a_column(given):
    steps = Episodes.from_arrays([arrays(3, terminated=given)]).steps
    assert steps["terminated"].tolist() == [False, False, True]
    assert not steps["truncated"].any()


def test_success_and_return_are_per_episode():
    episodes = Episodes.from_arrays(
        [
            arrays(3, reward=[1, 2, 3], success=[False, True, False]),
            arrays(2, reward=[-1, 0.5], success=[False, False]),
        ]
    )
    assert episodes.succeeded.tolist() == [True, False]
    assert episodes.returns.tolist() == [6, -0.5]


def test_the_callers_arrays_are_not_shared():
    given = arrays(3)
    episodes = Episodes.from_arrays([given])
    given["observation"][:] = 99
    given["action"][:] = 99
    assert episodes.steps["observation"].max() == 2
    assert episodes.final_observation.max() == 3
    assert episodes.steps["action"].max() == 20


def test_a_selection_reorders_and_repeats():
    episodes = Episodes.from_arrays([arrays(2), arrays(1), arrays(4)], provenance={"from": "here"})
    chosen = episodes.select([2, 0, 2, -2])
    assert chosen.lengths.tolist() == [4, 2, 4, 1]
    assert chosen.final_observation[:, 0].tolist() == [4, 2, 4, 1]
    assert torch.equal(chosen[2]["action"], episodes[2]["action"])
    assert chosen.provenance == {"from": "here"}


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_a_selection_by_mask_is_the_selection_of_its_numbers(kind):
    episodes = Episodes.from_arrays([arrays(2), arrays(1), arrays(4)])
    chosen = episodes.select(kind([True, False, True]))
    assert chosen.lengths.tolist() == [2, 4]
    assert len(chosen.steps) == 6
    assert chosen.final_observation[:, 0].tolist() == [2, 4]


@pytest.mark.parametrize(
    "indices", [[], [3], [-4], [True, False], [0.0, 1.0], torch.zeros(3, dtype=torch.bool)]
)
def test_a_selection_that_cannot_be_meant_is_refused(indices):
    with pytest.raises(DataError):
        Episodes.from_arrays([arrays(1)] * 3).select(indices)


def test_the_fingerprint_is_of_the_contents():
    def made(action):
        return Episodes.from_arrays([arrays(3) | {"action": np.full((3, 2), action)}])

    assert made(1).fingerprint == made(1).fingerprint != made(2).fingerprint
    joined = Episodes.from_arrays([arrays(2, final=False), arrays(2, final=False)])
    single = Episodes.from_arrays([{k: np.concatenate([v, v]) for k, v in arrays(2, final=False).items()}])
    assert joined.fingerprint != single.fingerprint


def nan_at(key, step, column):
    broken = arrays(4)
    broken[key] = broken[key].astype(float)
    broken[key][step, column] = np.nan
    return broken


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (nan_at("observation", 2, 1), ["'observation' is not finite", "episode 1, step 2, column 1"]),
        (nan_at("observation", 4, 0), ["episode 1, step 4, column 0"]),  # the final one counts too
        (nan_at("action", 0, 1), ["'action' is not finite", "episode 1, step 0, column 1"]),
        (arrays(2, reward=[0, np.inf]), ["'reward' is not finite", "episode 1, step 1"]),
        (arrays(2, terminated=np.nan), ["'terminated' is not finite", "episode 1"]),
        (arrays(2) | {"action": np.full((2, 2), 1e39)}, ["'action' is not finite"]),  # beyond float32
        (arrays(0), ["1 observations for 0 actions", "episode 1"]),
        (arrays(4) | {"action": np.zeros((2, 2))}, ["5 observations for 2 actions"]),
        (arrays(2, width=4), ["'observation' has width 4", "episode 1", "width 3, as in episode 0"]),
        (arrays(2) | {"action": np.zeros((2, 5))}, ["'action' has width 5", "width 2"]),
        (arrays(2, reward=[1, 2, 3]), ["'reward' has shape [3]", "[2]"]),
        (arrays(2, reward=1.0), ["'reward' has shape []"]),
        (arrays(2, colour=[1, 2]), ["unknown keys ['colour']", "episode 1"]),
        ({"action": np.zeros((2, 2))}, ["missing keys ['observation']"]),
        (
            arrays(2) | {"action": [["left", "right"]] * 2},
            ["'action' is not an array of numbers", "episode 1"],
        ),
        (arrays(2) | {"observation": [[1, 2, 3], [1, 2], [1, 2, 3]]}, ["'observation' is not an array"]),
        (arrays(2) | {"observation": [{"a": 1}] * 3}, ["'observation' is not an array"]),
        (arrays(2) | {"action": 1.0}, ["actions of shape []", "[time, width]"]),
        (arrays(2) | {"action": [1.0, 2.0]}, ["actions of shape [2]"]),
        (arrays(2) | {"observation": np.zeros((3, 4, 4))}, ["observations of shape [3, 4, 4]"]),
    ],
)
def test_a_damaged_episode_is_refused_naming_episode_and_key(broken, said):
    with pytest.raises(DataError) as error, np.errstate(over="ignore"):
        Episodes.from_arrays([arrays(3), broken])
    for part in said:
        assert part in str(error.value)


def test_unequal_keys_are_named():
    with pytest.raises(DataError, match=r"\['reward'\] are not in all of them\n.*episode 1"):
        Episodes.from_arrays([arrays(2, reward=[0, 0]), arrays(2)])
    with pytest.raises(DataError, match=r"\['success'\]"):
        Episodes.from_arrays([arrays(2), arrays(2, success=[0, 0])])


def test_no_episodes_are_refused():
    with pytest.raises(DataError, match="there are no episodes"):
        Episodes.from_arrays([])

"""Transitions as episodes of one step, and as files."""

from __future__ import annotations

import pytest
import torch

from policysmith.common.errors import DataError, FileError
from policysmith.common.saving import save_tree
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import transitions_of
from policysmith.experience.store import load_episodes, save_episodes
from policysmith.experience.transitions import (
    episodes_of,
    is_transitions,
    load_transitions,
    save_transitions,
)


def two_episodes() -> Episodes:
    return Episodes.from_arrays(
        [
            {
                "observation": [[0.0], [1.0], [2.0]],
                "action": [[10.0], [11.0]],
                "reward": [0.5, 0.25],
                "terminated": True,
            },
            {"observation": [[5.0], [6.0]], "action": [[15.0]], "reward": [1.0], "terminated": False},
        ]
    )


def test_transitions_become_episodes_of_one_step_and_come_back():
    before = transitions_of(two_episodes())
    episodes = episodes_of(before, provenance={"from": "here"})
    assert len(episodes) == 3
    assert episodes.lengths.tolist() == [1, 1, 1]
    after = transitions_of(episodes)
    for key in ("observation", "action", "reward", "next_observation", "terminated"):
        assert torch.equal(before[key], after[key])
    assert after["truncated"].tolist() == [True, False, True]


def test_episodes_of_one_step_survive_a_file(tmp_path):
    episodes = episodes_of(transitions_of(two_episodes()))
    save_episodes(episodes, tmp_path / "data")
    assert load_episodes(tmp_path / "data").fingerprint == episodes.fingerprint


def test_a_missing_key_is_named():
    with pytest.raises(DataError, match="next_observation"):
        episodes_of({key: torch.zeros(2, 1) for key in ("observation", "action", "reward", "terminated")})


def test_transitions_survive_a_file_of_their_own(tmp_path):
    episodes = episodes_of(transitions_of(two_episodes()), provenance={"from": "here"})
    save_transitions(episodes, tmp_path / "made.safetensors")
    loaded = load_transitions(tmp_path / "made.safetensors")
    assert loaded.fingerprint == episodes.fingerprint
    assert loaded.provenance == {"from": "here"}
    assert is_transitions(tmp_path / "made.safetensors")


def test_another_file_is_refused(tmp_path):
    save_tree(tmp_path / "other.safetensors", {"weights": torch.zeros(2)})
    with pytest.raises(FileError, match="something else"):
        load_transitions(tmp_path / "other.safetensors")

"""Single transitions as episodes and as files: observation, action, reward, next observation, end of task.

A set of transitions is a mapping of tensors with equal leading axes (`replay.transitions_of` reads those of
episodes). As `Episodes` it is a set of episodes of one step each, which every offline system takes. On disk
it is one file, `NAME.safetensors`: formats of data sets keep a record per episode, and there may be millions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, FileError
from policysmith.common.keys import require_keys
from policysmith.common.saving import load_tree, save_tree
from policysmith.experience.episodes import Episodes
from policysmith.experience.replay import transitions_of

TRANSITION = ("observation", "action", "reward", "next_observation", "terminated")
"""The keys of a transition."""

SUFFIX = ".safetensors"
"""What files of transitions end in."""


def episodes_of(
    transitions: Mapping[str, Tensor], *, provenance: Mapping[str, Any] | None = None
) -> Episodes:
    """Transitions as episodes of one step each, which are cut (and go on) where the task did not end.

    Raises `DataError` where a key of a transition is missing.
    """
    require_keys(transitions, TRANSITION, reader="a set of transitions")
    count = len(transitions["action"])
    if count == 0:
        raise DataError("there are no transitions", expected="at least one")
    terminated = transitions["terminated"].bool()
    steps = {
        "observation": transitions["observation"],
        "action": transitions["action"],
        "reward": transitions["reward"],
        "terminated": terminated,
        "truncated": ~terminated,
        "success": torch.zeros_like(terminated),
    }
    return Episodes(
        TensorDict(steps, batch_size=[count]),
        transitions["next_observation"],
        torch.ones(count, dtype=torch.long),
        dict(provenance or {}),
    )


def save_transitions(episodes: Episodes, path: str | os.PathLike[str]) -> None:
    """Write every step of the episodes as a transition into one file, with where they are from."""
    transitions = transitions_of(episodes)
    kept = {key: transitions[key] for key in TRANSITION}
    save_tree(path, {"transitions": kept, "provenance": dict(episodes.provenance)})


def load_transitions(path: str | os.PathLike[str]) -> Episodes:
    """Read what `save_transitions` wrote, as episodes of one step each; `FileError` for any other file."""
    tree = load_tree(path)
    if not isinstance(tree, dict) or set(tree) != {"transitions", "provenance"}:
        raise FileError(
            "the file holds something else than transitions",
            where=str(path),
            expected="a file that `policysmith run synther` or save_transitions has written",
        )
    return episodes_of(tree["transitions"], provenance=tree["provenance"])


def is_transitions(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a file of transitions by its name."""
    return Path(path).suffix == SUFFIX

"""Episodes on disk as Minari data sets: a folder that other tools read, and theirs that we read.

A data set is written beside its place and renamed, so that an interrupted recording leaves nothing half-made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from policysmith.common.errors import DataError, FileError, MissingExtraError, SettingError
from policysmith.common.observations import GOAL, STATE, is_parts, parts_of
from policysmith.common.saving import load_json, save_json, write_beside
from policysmith.experience.episodes import Episodes

PROVENANCE = "policysmith.json"
"""File beside Minari's own that says where the episodes come from."""


def save_episodes(
    episodes: Episodes,
    folder: str | os.PathLike[str],
    *,
    name: str = "policysmith/demonstrations-v0",
    action_space: gymnasium.spaces.Box | None = None,
) -> None:
    """Write `episodes` as a Minari data set into `folder`, which must not exist yet.

    `name` is Minari's data set id; `action_space` defaults to the box that the actions span. Success flags
    are kept as Minari `infos`.
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import DATASET_ID_RE
    from minari.dataset.minari_storage import MinariStorage

    folder = Path(folder).absolute()  # Minari joins a relative path to itself
    if folder.exists():
        raise FileError(
            "there is something at this path already", where=str(folder), cure="choose another folder"
        )
    if not (match := DATASET_ID_RE.fullmatch(name)) or match["version"] is None:
        raise SettingError(f"'{name}' is no data set id of Minari", expected="(namespace/)name-v0")
    if action_space is None:
        action = episodes.steps["action"].numpy()
        action_space = gymnasium.spaces.Box(action.min(0), action.max(0), dtype=np.float32)
    with write_beside(folder) as temporary:
        temporary.mkdir()
        storage = MinariStorage.new(
            temporary, observation_space=_space(episodes), action_space=action_space, data_format="hdf5"
        )
        storage.update_episodes([EpisodeBuffer(**_buffer(episodes, i)) for i in range(len(episodes))])
        storage.update_metadata({"dataset_id": name, "minari_version": minari.__version__})
        save_json(temporary / PROVENANCE, dict(episodes.provenance))


def load_episodes(folder: str | os.PathLike[str]) -> Episodes:
    """Read a Minari data set from its folder (or the folder that holds its `data`).

    Dict observations of vectors are flattened in the order of their keys, as `worlds.registry.make` flattens
    them; where there are pictures or a `goal`, they stay parts.
    Raises `FileError` for a missing or damaged data set and `DataError` for episodes that are unusable.
    """
    from minari.dataset.minari_storage import MinariStorage

    folder = Path(folder)
    if not (folder / "metadata.json").is_file() and (folder / "data").is_dir():
        folder = folder / "data"
    if not (folder / "metadata.json").is_file():
        raise FileError(
            "there is no Minari data set here",
            where=str(folder),
            expected="a folder with metadata.json, as `policysmith record` or Minari writes it",
        )
    try:
        storage = MinariStorage.read(folder)
        space = storage.observation_space
        raw = [_arrays(episode, space) for episode in storage.get_episodes(range(storage.total_episodes))]
    except DataError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"the data set is in a format that needs another package: {error}", where=str(folder)
        ) from error
    except Exception as error:  # Minari checks little of what it reads: damage shows as any exception
        raise FileError(
            f"the data set is damaged or cut short: {error}",
            where=str(folder),
            cure="record or download it again",
        ) from error
    provenance: Mapping[str, Any] = {"data": folder.name, "episodes": len(raw)}
    if (folder / PROVENANCE).is_file():
        provenance = load_json(folder / PROVENANCE)
    return Episodes.from_arrays(raw, provenance=provenance)


def _space(episodes: Episodes) -> gymnasium.Space:
    """The space that the observations are from: any vector, any picture."""

    def space(part: Any) -> gymnasium.Space:
        shape = tuple(part.shape[1:])
        if part.dtype == torch.uint8:
            return gymnasium.spaces.Box(0, 255, shape, np.uint8)
        return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)

    observation = episodes.steps["observation"]
    spaces = {name: space(part) for name, part in parts_of(observation).items()}
    return spaces[STATE] if isinstance(observation, torch.Tensor) else gymnasium.spaces.Dict(spaces)


def _buffer(episodes: Episodes, index: int) -> dict[str, Any]:
    steps = episodes[index]
    observation: Any = torch.cat([steps["observation"], episodes.final_observation[index][None]])  # type: ignore[list-item]
    success = steps["success"].numpy()
    parts = {name: part.numpy() for name, part in parts_of(observation).items()}
    return {
        "id": index,
        "observations": parts[STATE] if isinstance(observation, torch.Tensor) else parts,
        "actions": steps["action"].numpy(),
        "rewards": steps["reward"].numpy(),
        "terminations": steps["terminated"].numpy(),
        "truncations": steps["truncated"].numpy(),
        # Minari's infos begin at the reset, one entry before the first step.
        "infos": {"success": np.concatenate([[False], success])},
    }


def _arrays(episode: Mapping[str, Any], space: gymnasium.Space) -> dict[str, Any]:
    arrays = {
        "observation": _observation(episode["observations"], space),
        "action": _columns(episode["actions"]),
        "reward": episode["rewards"],
        "terminated": episode["terminations"],
        "truncated": episode["truncations"],
    }
    infos = episode.get("infos") or {}
    success = infos.get("success", infos.get("is_success"))
    if success is not None:
        length = len(arrays["action"])
        arrays["success"] = np.asarray(success).reshape(-1)[-length:].astype(bool)
    return arrays


def _observation(values: Any, space: gymnasium.Space) -> Any:
    if not is_parts(space):
        return _flat(values, space)
    vectors = (STATE, GOAL)
    return {name: _columns(part) if name in vectors else np.asarray(part) for name, part in values.items()}


def _flat(values: Any, space: gymnasium.Space) -> np.ndarray:
    if isinstance(space, gymnasium.spaces.Dict):
        parts = [_flat(values[key], inner) for key, inner in space.spaces.items()]
    elif isinstance(space, gymnasium.spaces.Tuple):
        parts = [_flat(value, inner) for value, inner in zip(values, space.spaces, strict=True)]
    else:
        parts = [_columns(values)]
    return np.concatenate(parts, axis=-1)


def _columns(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"entries of type {array.dtype} cannot be read as numbers")
    return array.reshape(len(array), -1)

"""Data sets of any format that is read here, by path: Minari, LeRobot, and Diffusion Policy's Zarr.

What lies at a path is recognised by its contents, never by its name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from policysmith.common.errors import FileError
from policysmith.experience.episodes import Episodes
from policysmith.experience.lerobot import LeRobot, is_lerobot
from policysmith.experience.minari_files import Minari, minari_folder
from policysmith.experience.reading import assemble, choose
from policysmith.experience.sources import Size, Source
from policysmith.experience.zarr_files import Zarr, is_zarr

_FORMATS = (
    "a Minari data set (metadata.json), a LeRobot data set (meta/info.json), or Diffusion Policy's Zarr "
    "(data/ and meta/episode_ends, a folder or a .zip)"
)


def open_data(path: str | os.PathLike[str]) -> Source:
    """The data set at `path`, of whatever format; only its descriptions are read.

    Raises `FileError` where there is nothing, nothing that is known, or a damaged description.
    """
    path = Path(path)
    if not path.exists():
        raise FileError("there is nothing at this path", where=str(path), expected=_FORMATS)
    if is_lerobot(path):
        return LeRobot(path)
    if minari_folder(path) is not None:
        return Minari(path)
    if is_zarr(path):
        return Zarr(path)
    raise FileError(
        "there is no data set that is known here", where=str(path), expected=_FORMATS, cure=_hint(path)
    )


def load_data(
    path: str | os.PathLike[str],
    *,
    state: Sequence[str] | None = None,
    action: Sequence[str] | None = None,
    goal: Sequence[str] | None = None,
    cameras: Literal["all"] | Sequence[str] | Mapping[str, str] = (),
    picture_size: Size | None = None,
    episodes: Sequence[int] | None = None,
) -> Episodes:
    """The episodes of the data set at `path`, of whatever format.

    - `state`, `action`, `goal`: keys of the data set, joined in this order; None for the format's own.
    - `cameras`: which pictures are loaded: names or keys, "all", or a mapping from the name a policy uses to
      one of these. None are loaded unless asked for, because they are large.
    - `picture_size`: height and width they are brought to (see `pictures.resized`); None leaves them.
    - `episodes`: numbers of the episodes to load; None for all.

    Without goal and pictures the observation is a vector. Where the episodes come from is in `provenance`.
    Raises `FileError` for what is missing, damaged or of an unknown version, and `DataError` for what is
    inconsistent, not finite or not there.
    """
    source = open_data(path)
    chosen = choose(
        source,
        state=state,
        action=action,
        goal=goal,
        cameras=cameras,
        picture_size=picture_size,
        episodes=episodes,
    )
    return assemble(source, chosen)


def _hint(path: Path) -> str:
    """Where a data set may be instead: one folder further down, or in a format that others convert."""
    if path.is_dir():
        for inner in sorted(child for child in path.iterdir() if child.is_dir()):
            if is_lerobot(inner) or minari_folder(inner) is not None or is_zarr(inner):
                return f"give {inner}"
        if any(path.glob("*.hdf5")) or any(path.glob("*.h5")):
            return "read the HDF5 files with h5py and give the arrays to Episodes.from_arrays"
    return "read it in Python and give the arrays to Episodes.from_arrays"

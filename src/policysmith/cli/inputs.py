"""From words on the command line to what a system takes: environments, episodes, folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium

from policysmith.cli import look
from policysmith.common.cache import cache_folder
from policysmith.common.errors import DataError, SettingError
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import load_episodes
from policysmith.worlds import registry


@dataclass(frozen=True)
class Inputs:
    """Where the experience comes from.

    Demonstrations are read from `--data`, or recorded in `--env` from its scripted expert or `--expert`.
    """

    env: str = ""
    """environment: metaworld/drawer-open-v3, any Gymnasium id, or your_package:YourEnv-v0"""
    data: str = ""
    """folder of a Minari data set with your own demonstrations"""
    expert: str = ""
    """your_package.module:name, a function of the observation, to record demonstrations from"""
    episodes: int = 100
    """how many demonstrations to record"""
    noise: float = 0.1
    """standard deviation of the noise on recorded actions"""
    limit: int | None = None
    """most steps of an episode"""
    data_seed: int = 0
    """seed of the recording"""

    def demonstrations(self) -> Demonstrations:
        """The recording that these inputs describe."""
        if not self.env:
            raise SettingError("nothing to learn from", cure="give --data FOLDER, or --env NAME to record in")
        return Demonstrations(
            self.env,
            episodes=self.episodes,
            seed=self.data_seed,
            action_noise=self.noise,
            limit=self.limit,
            expert=self.expert,
        )

    def load(self) -> Episodes:
        """The episodes: read, or recorded once and kept."""
        if self.data:
            return load_episodes(self.data)
        return recorded(self.demonstrations())

    def to_json(self) -> dict[str, Any]:
        """As plain data, with an absolute path, so that a run can be resumed from anywhere."""
        return asdict(self) | ({"data": str(Path(self.data).resolve())} if self.data else {})


def recorded(demonstrations: Demonstrations, folder: Path | None = None) -> Episodes:
    """The kept recording of a description, made with a bar where there is none yet."""
    folder = folder or cache_folder()
    kept = demonstrations.load(folder)
    if kept is not None:
        return kept
    bar = look.counting_bar(
        demonstrations.record(), label=f"record {demonstrations.environment}", total=demonstrations.episodes
    )
    return demonstrations.save(list(bar), demonstrations.path(folder))


def maker(name: str, **keywords: Any) -> Callable[[], gymnasium.Env]:
    """A function that makes the environment called `name`."""
    return lambda: registry.make(name, **keywords)


def same_data(episodes: Episodes, fingerprint: str) -> None:
    """Raise `DataError` where `episodes` are not those a run was started with."""
    if fingerprint and episodes.fingerprint != fingerprint:
        raise DataError(
            f"the data have changed since the run began (fingerprint {episodes.fingerprint})",
            expected=f"the episodes with fingerprint {fingerprint}",
            cure="put the old data back, or start a new run",
        )


def run_name(system: str, subject: str, seed: int | None = None) -> str:
    """A folder name for a run of `system` on `subject`: an environment, a data set, a policy."""
    place = re.sub(r"[^A-Za-z0-9._-]+", "-", subject.rpartition(":")[2].rpartition("/")[2]) or "data"
    return f"{system}-{place}" + ("" if seed is None else f"-seed{seed}")

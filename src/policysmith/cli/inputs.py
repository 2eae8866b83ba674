"""From words on the command line to what a system takes: environments, episodes, folders."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import gymnasium

from policysmith.cli import look
from policysmith.cli.environment import view_options
from policysmith.common.cache import cache_folder
from policysmith.common.errors import DataError, SettingError
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes
from policysmith.experience.files import open_data
from policysmith.experience.reading import Chosen, choose, provenance, read
from policysmith.experience.sources import Source
from policysmith.experience.transitions import is_transitions, load_transitions
from policysmith.worlds import registry


@dataclass(frozen=True)
class Reading:
    """What of a data set is read, and as what."""

    cameras: tuple[str, ...] = ()
    """which pictures: names or keys, NAME=KEY for another name, or `all`; by default none"""
    picture_size: tuple[int, int] | None = None
    """height and width that pictures are brought to; by default as they are"""
    state_keys: tuple[str, ...] = ()
    """keys that are joined to the state; by default the format's own"""
    action_keys: tuple[str, ...] = ()
    """keys that are joined to the action; by default the format's own"""
    goal_keys: tuple[str, ...] = ()
    """keys that are joined to the goal; by default the format's own"""
    data_episodes: str = ""
    """which episodes, such as 0-49,60; by default all"""

    def choice(self) -> dict[str, Any]:
        """The arguments of `experience.sources.choose`."""
        named = {name: key for name, _, key in (camera.partition("=") for camera in self.cameras)}
        return {
            "cameras": "all" if list(self.cameras) == ["all"] else named,
            "picture_size": None if self.picture_size is None else tuple(self.picture_size),
            "state": self.state_keys or None,
            "action": self.action_keys or None,
            "goal": self.goal_keys or None,
            "episodes": episode_numbers(self.data_episodes),
        }

    @property
    def reads_something_else(self) -> bool:
        """Whether anything but the format's own choice is asked for; cameras may also be an environment's."""
        return any(getattr(self, one.name) for one in fields(Reading) if one.name != "cameras")

    def read(self, path: str) -> Episodes:
        """The episodes at `path`, with a bar where it takes long and a line that says what was found."""
        source = open_data(path)
        chosen = choose(source, **self.choice())
        arrays = read(source, chosen)
        if chosen.pictures:
            arrays = look.counting_bar(arrays, label=f"read {source.path.name}", total=len(chosen.episodes))
        episodes = Episodes.from_arrays(arrays, provenance=provenance(source, chosen))
        look.note(found_line(source, chosen, episodes))
        return episodes


@dataclass(frozen=True)
class Inputs(Reading):
    """Where the experience comes from.

    Demonstrations are read from `--data`, or recorded in `--env` from its scripted expert or `--expert`.
    """

    env: str = ""
    """environment: metaworld/drawer-open-v3, any Gymnasium id, or your_package:YourEnv-v0"""
    data: str = ""
    """your own data: a Minari or LeRobot data set, Diffusion Policy's Zarr, or a file of transitions"""
    expert: str = ""
    """your_package.module:name, a function of the observation, to record demonstrations from"""
    episodes: int = 100
    """how many demonstrations to record"""
    noise: float = 0.1
    """standard deviation of the noise on recorded actions"""
    limit: int | None = None
    """most steps of an episode"""
    keep_all: bool = False
    """record episodes that do not succeed too (play has no success)"""
    data_seed: int = 0
    """seed of the recording"""
    pictures: int = 0
    """side of the pictures, in pixels, that policies see in place of the environment's full state"""

    checkpoint_every: ClassVar[int] = 500
    """Steps between checkpoints, where nothing else is asked for."""
    log_every: ClassVar[int] = 10
    """Steps between lines of metrics."""

    @property
    def options(self) -> dict[str, Any]:
        """What the environment is made with besides its name."""
        return view_options(self.env, self.pictures, self.cameras)

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
            only_successful=not self.keep_all,
            expert=self.expert,
            options=self.options,
        )

    def load(self) -> Episodes:
        """The episodes: read, or recorded once and kept."""
        if self.data and self.pictures:
            raise SettingError(
                "pictures are recorded in an environment; a data set has its own",
                cure="give --data with --cameras (and --picture-size), or --env with --pictures",
            )
        if self.data and is_transitions(self.data):
            return load_transitions(self.data)
        if self.data:
            return self.read(self.data)
        if self.reads_something_else:
            raise SettingError("what is to be read is said, but not from where", cure="give --data PATH too")
        return recorded(self.demonstrations())

    def arguments(self) -> tuple[Any, ...]:
        """What a system's entry is called with."""
        return (self.load(),)

    def fingerprint(self, arguments: tuple[Any, ...]) -> str:
        """Tells the episodes from others."""
        return arguments[0].fingerprint

    def describe(self, arguments: tuple[Any, ...]) -> str:
        """A line for whoever watches; nothing where reading has said it already."""
        return "" if self.data else f"{len(arguments[0])} demonstrations from {self.env}"

    @property
    def subject(self) -> str:
        """What runs are named after."""
        return self.env

    def to_json(self) -> dict[str, Any]:
        """As plain data, with an absolute path, so that a run can be resumed from anywhere."""
        return asdict(self) | ({"data": str(Path(self.data).resolve())} if self.data else {})


def episode_numbers(text: str) -> list[int] | None:
    """`0-49,60` as numbers; None for an empty text."""
    numbers: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(last or first) < int(first):
            raise SettingError(f"'{part}' is no range of episodes", expected="such as 0-49,60")
        numbers += range(int(first), int(last or first) + 1)
    return numbers or None


def found_line(source: Source, chosen: Chosen, episodes: Episodes) -> str:
    """What was read, in one line."""
    parts = [
        f"{source.format} {source.version}: {len(episodes)} episodes, {len(episodes.steps)} steps",
        f"state from {', '.join(chosen.state) or 'nothing'}",
        f"action from {', '.join(chosen.action)}",
    ]
    parts += [f"goal from {', '.join(chosen.goal)}"] if chosen.goal else []
    parts += [f"picture {name}: {height} x {width}" for name, (height, width) in episodes.pictures.items()]
    if chosen.left_out:
        parts.append(f"pictures left out: {', '.join(chosen.left_out)} (--cameras loads them)")
    return "; ".join(parts)


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


def same_data(fingerprint: str, before: str) -> None:
    """Raise `DataError` where data are not those a run was started with."""
    if before and fingerprint != before:
        raise DataError(
            f"the data have changed since the run began (fingerprint {fingerprint})",
            expected=f"the data with fingerprint {before}",
            cure="put the old data back, or start a new run",
        )


def run_name(system: str, subject: str, seed: int | None = None) -> str:
    """A folder name for a run of `system` on `subject`: an environment, a data set, a policy."""
    place = re.sub(r"[^A-Za-z0-9._-]+", "-", subject.rpartition(":")[2].rpartition("/")[2]) or "data"
    return f"{system}-{place}" + ("" if seed is None else f"-seed{seed}")

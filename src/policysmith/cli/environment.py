"""What systems that learn by acting take, from words on the command line: an environment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

import gymnasium

from policysmith.common.errors import SettingError
from policysmith.worlds import registry


@dataclass(frozen=True)
class EnvironmentInputs:
    """The environment that is acted in."""

    env: str = ""
    """metaworld/drawer-open-v3, any Gymnasium id, or your_package:YourEnv-v0"""
    env_option: tuple[str, ...] = ()
    """options the environment is made with, NAME=VALUE each"""
    limit: int | None = None
    """most steps of an episode, beside the environment's own limit"""
    pictures: int = 0
    """side of the pictures, in pixels, that policies see in place of the environment's full state"""
    cameras: tuple[str, ...] = ()
    """the cameras that these pictures are from; by default the environment's usual one"""
    frames: int = 1
    """how many of the last pictures are seen at once, so that speeds can be told"""

    checkpoint_every: ClassVar[int] = 10
    """Steps between checkpoints, where neither the settings nor anybody else says."""
    log_every: ClassVar[int] = 1
    """Steps between lines of metrics."""

    @property
    def options(self) -> dict[str, Any]:
        """What the environment is made with besides its name."""
        return options_of(self.env_option) | view_options(
            self.env, self.pictures, self.cameras, frames=self.frames
        )

    def arguments(self) -> tuple[Any, ...]:
        """What a system's entry is called with."""
        if not self.env:
            raise SettingError("which environment?", cure="give --env NAME, such as CartPole-v1")
        return (partial(made, self.env, self.options, self.limit),)

    def fingerprint(self, arguments: tuple[Any, ...]) -> str:
        """Tells the environment from others."""
        text = json.dumps([self.env, self.options, self.limit], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self, arguments: tuple[Any, ...]) -> str:
        """Nothing: the bar says what is done."""
        return ""

    @property
    def subject(self) -> str:
        """What runs are named after."""
        return self.env

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def made(name: str, options: Mapping[str, Any], limit: int | None) -> gymnasium.Env:
    """The environment called `name`, its episodes cut after `limit` steps."""
    environment = registry.make(name, **options)
    return environment if limit is None else gymnasium.wrappers.TimeLimit(environment, limit)


def view_options(env: str, side: int, cameras: Sequence[str], *, frames: int = 1) -> dict[str, Any]:
    """The options for square pictures of `side` pixels from `cameras`; no options for a side of 0."""
    if frames < 1:
        raise SettingError(f"frames is {frames}", expected="at least 1")
    if not side:
        if cameras or frames > 1:
            told = "cameras are named" if cameras else f"{frames} frames are asked for"
            raise SettingError(f"{told}, but no pictures wanted", cure="give --pictures SIDE too")
        return {}
    size = [side, side] if frames == 1 else [frames, side, side]
    return {"pictures": {camera: size for camera in cameras or (registry.camera(env),)}}


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE each, a value being JSON or else text."""
    return dict(option(text) for text in words)


def option(text: str) -> tuple[str, Any]:
    """NAME=VALUE as a name and a value, which is JSON where it can be read as such."""
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingError(f"'{text}' is no option of an environment", expected="NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value

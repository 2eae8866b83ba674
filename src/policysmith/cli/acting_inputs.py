"""What systems take that act in several tasks, or act and learn from demonstrations too."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import Any

from policysmith.cli.environment import EnvironmentInputs, made, options_of
from policysmith.cli.inputs import Inputs
from policysmith.common.errors import SettingError
from policysmith.worlds.metaworld_suites import SUITES, make_suite


@dataclass(frozen=True)
class TaskInputs(EnvironmentInputs):
    """The tasks that are learnt at once: `--env` names them with commas between, or a suite (MT10)."""

    def arguments(self) -> tuple[Any, ...]:
        """A list of functions that make one task each."""
        if not self.env:
            raise SettingError("which tasks?", cure="give --env NAME,NAME,... or a suite such as MT10")
        if self.env in SUITES:
            if self.env_option or self.limit:
                raise SettingError(
                    f"the tasks of {self.env} are what they are",
                    cure="name the tasks, with commas between, to change their options",
                )
            suite = make_suite(self.env)
            return ([partial(suite.environment, name) for name in suite.train_names],)
        names = [name for name in self.env.split(",") if name]
        return ([partial(made, name, self.options, self.limit) for name in names],)

    @property
    def subject(self) -> str:
        """What runs are named after."""
        names = self.env.split(",")
        return names[0] if len(names) == 1 else f"{len(names)}-tasks"


@dataclass(frozen=True)
class ActingInputs(Inputs):
    """The environment that is acted in, and demonstrations in it.

    Demonstrations are read from `--data`, or recorded in `--env` from its scripted expert or `--expert`.
    """

    env_option: tuple[str, ...] = ()
    """options the environment is made with, NAME=VALUE each"""

    @property
    def options(self) -> dict[str, Any]:
        """What the environment is made with besides its name."""
        return super().options | options_of(self.env_option)

    def arguments(self) -> tuple[Any, ...]:
        """A function that makes the environment, and the demonstrations."""
        if not self.env:
            raise SettingError("which environment?", cure="give --env NAME, beside any --data")
        return partial(made, self.env, self.options, self.limit), self.load()

    def fingerprint(self, arguments: tuple[Any, ...]) -> str:
        """Tells the environment and the episodes from others."""
        text = json.dumps([self.env, self.options, self.limit, arguments[1].fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self, arguments: tuple[Any, ...]) -> str:
        """A line for whoever watches; nothing where reading has said it already."""
        return "" if self.data else f"{len(arguments[1])} demonstrations from {self.env}"

"""`data record`: data of graded quality from an agent that is trained for it, as the D4RL sets were made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import tyro

from policysmith.cli import look
from policysmith.cli.environment import EnvironmentInputs
from policysmith.common.catalogue import find_system
from policysmith.common.config import config_to_json
from policysmith.common.errors import FileError, SettingError
from policysmith.common.spaces import ActionSpace
from policysmith.evaluation.levels import record_levels
from policysmith.evaluation.playing import MakeEnvironment
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import save_episodes
from policysmith.training.loop import Progress


@dataclass(frozen=True)
class RecordLevels:
    """Train an agent in an environment and record data of its levels, each as a Minari data set.

    random: uniformly random actions. medium: the agent when it first comes a third of the way from random to
    its best. medium-replay: all that it did until then. expert: the agent at its best. medium-expert: both.
    """

    out: tyro.conf.Positional[str]
    """folder of the new data set, or with several levels of one folder each; must not exist"""
    inputs: Annotated[EnvironmentInputs, tyro.conf.OmitArgPrefixes] = field(default_factory=EnvironmentInputs)
    level: tuple[str, ...] = ("medium",)
    """which levels: random, medium, medium-replay, expert, medium-expert"""
    steps: int = 100_000
    """how many steps are recorded of each level"""
    agent: str = ""
    """the system that trains the agent; by default sac, and ppo where actions are choices"""
    preset: str = "paper"
    """the preset of its settings"""
    agent_steps: int = 1_000_000
    """how many environment steps the agent trains for"""
    evaluations: int = 20
    """how often it is measured on the way"""
    episodes: int = 10
    """in how many episodes each time"""
    seed: int = 0
    """seed of everything"""

    def run(self) -> None:
        """Train, measure, record and write."""
        if Path(self.out).exists():
            raise FileError("there is something at this path already", where=self.out)
        (make,) = self.inputs.arguments()
        environment = make()
        space, name = environment.action_space, self._agent(environment)
        environment.close()
        system = find_system(name)
        module = system.load()
        settings = self._settings(module, name)

        def train(maker: MakeEnvironment) -> Iterator[Progress]:
            return module.train(maker, config=settings, seed=self.seed)

        found: dict[str, Episodes] = look.watch(
            record_levels(
                train,
                make,
                levels=self.level,
                steps=self.steps,
                agent_steps=self.agent_steps,
                evaluations=self.evaluations,
                episodes=self.episodes,
                seed=self.seed,
            )
        )
        about: dict[str, Any] = {"environment": self.inputs.env, "options": self.inputs.options}
        limits = ActionSpace.of(space)
        if not limits.discrete:
            about |= {"action_low": list(limits.low), "action_high": list(limits.high)}
        if set(self.level) != {"random"}:
            about |= {"system": name, "settings": config_to_json(settings)}
        for level, episodes in found.items():
            folder = Path(self.out) if len(found) == 1 else Path(self.out) / level
            told = dataclasses.replace(episodes, provenance={**about, **episodes.provenance})
            save_episodes(told, folder, name=f"policysmith/{level}-v0", action_space=space)
            look.results.print(_line(told, folder), soft_wrap=True)

    def _agent(self, environment: gymnasium.Env) -> str:
        return self.agent or ("ppo" if ActionSpace.of(environment).discrete else "sac")

    def _settings(self, module: Any, name: str) -> Any:
        if not hasattr(module, "train") or self.preset not in module.PRESETS:
            raise SettingError(
                f"'{name}' has no preset '{self.preset}'", expected=", ".join(getattr(module, "PRESETS", {}))
            )
        settings = module.PRESETS[self.preset]
        if not hasattr(settings, "environment_steps"):
            raise SettingError(
                f"'{name}' does not learn by acting", expected="a system that does, such as sac or ppo"
            )
        changes: dict[str, Any] = {"environment_steps": self.agent_steps}
        if getattr(settings, "processes", 0):
            changes["processes"] = 0  # what the agent does is written down in this process
        return dataclasses.replace(settings, **changes)


def _line(episodes: Episodes, folder: Path) -> str:
    """What was recorded, in one line."""
    about = episodes.provenance
    parts = [f"{about['level']}: {len(episodes)} episodes, {int(episodes.lengths.sum())} steps"]
    parts.append(f"mean return {float(episodes.returns.mean()):.4g}")
    if about["agents"]:
        scores = ", ".join(f"{agent['normalised_score']:.2f}" for agent in about["agents"])
        parts.append(f"the agent's score {scores}")
    return "; ".join(parts) + f": {folder}"

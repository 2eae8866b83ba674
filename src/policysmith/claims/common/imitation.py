"""Imitation experiments: tasks with their demonstrations, at the size a laptop takes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import gymnasium

from policysmith.common.stages import Stage
from policysmith.experience.demonstrations import Demonstrations
from policysmith.experience.episodes import Episodes


@dataclass(frozen=True)
class Task:
    """A task: demonstrations of it, and how long an episode of evaluation may be."""

    demonstrations: Demonstrations
    limit: int

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.demonstrations.environment

    def make(self) -> gymnasium.Env:
        """A fresh environment."""
        return self.demonstrations.make()

    def episodes(self, folder: Path) -> Generator[Stage, None, Episodes]:
        """The demonstrations, recorded into `folder` where they are not there yet."""
        kept = self.demonstrations.load(folder)
        if kept is not None:
            return kept
        recorded = []
        for episode in self.demonstrations.record():
            recorded.append(episode)
            yield Stage(f"record {self.name}", len(recorded), self.demonstrations.episodes)
        return self.demonstrations.save(recorded, self.demonstrations.path(folder))


DRAWER_OPEN = Task(
    Demonstrations("metaworld/drawer-open-v3", episodes=100, action_noise=0.1, limit=150), limit=150
)
PUSH = Task(Demonstrations("metaworld/push-v3", episodes=100, action_noise=0.1, limit=150), limit=150)

"""Finished runs, kept: a baseline that many experiments share is trained once.

A run is found by what determines it: system, settings, seed and data. The version of the recipe and the
commit are recorded with it; a run of an older recipe version is stale, is told so and is made anew. A run
that was cut short goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from policysmith.common.config import config_to_json
from policysmith.common.provenance import commit
from policysmith.policies.protocol import load_policy
from policysmith.training.loop import Progress
from policysmith.training.runs import RunDirectory


@dataclass(frozen=True)
class CachedRun:
    """One training run and its place in the cache.

    `inputs` are what the system's entry is called with before its settings, `options` what it is called with
    by name, and `fingerprint` what tells both from others.
    """

    module: ModuleType
    inputs: tuple[Any, ...]
    fingerprint: str
    config: Any
    seed: int
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the run."""
        return {
            "system": self.module.__name__.rpartition(".")[2].replace("_", "-"),
            "settings": config_to_json(self.config),
            "seed": self.seed,
            "data": self.fingerprint,
        }

    @property
    def path(self) -> Path:
        """The run's directory."""
        text = json.dumps(self.identity, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / "runs" / f"{self.identity['system']}-{key}"

    @property
    def status(self) -> str:
        """`none`, `stale` (made by another recipe version), `unfinished` or `finished`."""
        if not (self.path / "config.json").is_file():
            return "none"
        if RunDirectory(self.path).config.get("recipe_version") != recipe_version(self.module):
            return "stale"
        return "finished" if (self.path / "policy").is_dir() else "unfinished"

    def train(self, *, checkpoint_every: int = 500, log_every: int = 10) -> Iterator[Progress]:
        """Make or finish the run; yields nothing where it is finished already."""
        status = self.status
        if status == "finished":
            return
        if status == "stale":
            shutil.rmtree(self.path)
        if status == "unfinished":
            directory = RunDirectory.open(self.path)
        else:
            origin = {"recipe_version": recipe_version(self.module), "commit": commit()}
            directory = RunDirectory.create(self.path, {**self.identity, **origin})
        progress = self.module.train(
            *self.inputs,
            **self.options,
            config=self.config,
            seed=self.seed,
            state=directory.load_checkpoint(),
        )
        yield from directory.record(progress, checkpoint_every=checkpoint_every, log_every=log_every, keep=1)

    @property
    def directory(self) -> RunDirectory:
        """The run's directory, for its metrics."""
        return RunDirectory.open(self.path)

    def policy(self) -> Any:
        """The trained policy."""
        return load_policy(self.path / "policy")


def recipe_version(module: ModuleType) -> int:
    """The version of a system's recipe: raised by whoever changes what a run of it computes."""
    return getattr(module, "RECIPE_VERSION", 1)

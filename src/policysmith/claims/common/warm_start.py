"""Small language models to begin experiments with: taught by examples once, and kept.

Reinforcement learning sharpens what a policy can already do; a warm start is a policy that can do a little.
It is found by what determines it (sizes, examples, settings, seed), so that experiments which ask for the
same one train it once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from policysmith.common.saving import save_json, write_beside
from policysmith.common.stages import Stage
from policysmith.experience.examples import Examples
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.small import small_decoder
from policysmith.training.learners.supervised import SupervisedSettings, supervised_run

VERSION = 1
"""Raised by whoever changes what a warm start of the same recipe learns."""

_RECIPE = "recipe.json"


@dataclass(frozen=True)
class WarmStart:
    """The recipe of a small decoder that has been taught `examples`.

    - `examples`: any; `claims.common.arithmetic` has some.
    - `first`: what the decoder has been taught before, sizes as there; None for random weights.
    - `settings`: of the supervised run; `seed`: of weights and order.
    - `width`, `layers`, `heads`, `context`: the sizes of the decoder.
    - `spread`: of its first weights; see `small_decoder`.
    - `words`: what it reads and writes, one token each; none for a decoder over characters.
    """

    examples: Examples
    settings: SupervisedSettings = field(default_factory=SupervisedSettings)
    seed: int = 0
    width: int = 128
    layers: int = 4
    heads: int = 4
    context: int = 128
    first: WarmStart | None = None
    words: tuple[str, ...] = ()
    spread: float = 0.02

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the policy."""
        before = {} if self.first is None else {"first": self.first.identity}
        # Decoders over characters are found by what determined them when there were no others.
        spoken = {"words": list(self.words)} if self.words else {}
        spread = {} if self.spread == 0.02 else {"spread": self.spread}
        return {
            **before,
            **spoken,
            **spread,
            "version": VERSION,
            "examples": self.examples.fingerprint,
            "settings": asdict(self.settings),
            "seed": self.seed,
            "sizes": self._sizes,
        }

    def path(self, folder: Path) -> Path:
        """The policy's folder inside the cache `folder`."""
        text = json.dumps(self.identity, sort_keys=True)
        return folder / "warm-starts" / hashlib.sha256(text.encode()).hexdigest()[:16]

    def load(self, folder: Path) -> LanguagePolicy | None:
        """The policy that was kept in `folder`; None where there is none."""
        path = self.path(folder)
        return LanguagePolicy.from_pretrained(path) if (path / _RECIPE).is_file() else None

    def make(self, folder: Path) -> Generator[Stage, None, LanguagePolicy]:
        """The policy, trained and kept in `folder` where it is not there yet."""
        kept = self.load(folder)
        if kept is not None:
            return kept
        if self.first is None:
            policy = small_decoder(self.seed, **self._sizes, words=self.words, spread=self.spread)
        else:
            policy = yield from self.first.make(folder)
        for now in supervised_run(policy, self.examples, settings=self.settings, seed=self.seed):
            yield Stage("warm start", now.step, now.total, now.metrics["loss"])
        policy.eval()
        with write_beside(self.path(folder)) as temporary:
            policy.save_pretrained(temporary)
            save_json(temporary / _RECIPE, self.identity)
        return policy

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("width", "layers", "heads", "context")}

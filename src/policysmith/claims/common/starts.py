"""Where the arms of an experiment start: a model in a folder, and what a system is called with beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policysmith.experience.examples import Examples
from policysmith.experience.preferences import Preferences
from policysmith.experience.prompts import Prompts


@dataclass(frozen=True)
class Beginning(ABC):
    """A model in a folder, what it is called, and what is learnt from."""

    model: Path
    model_name: str

    @property
    @abstractmethod
    def inputs(self) -> tuple[Any, ...]:
        """What a system is called with."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Tells the inputs from others."""

    @property
    def options(self) -> dict[str, Any]:
        """What a system is called with by name."""
        return {}


@dataclass(frozen=True)
class Start(Beginning):
    """Prompts, and what is right. `reward_name` has to change when the reward does."""

    prompts: Prompts
    reward: Any
    reward_name: str

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What a system is called with."""
        return self.model, self.prompts, self.reward

    @property
    def fingerprint(self) -> str:
        """Tells the inputs from others."""
        return f"{self.model_name}/{self.prompts.fingerprint}/{self.reward_name}"


@dataclass(frozen=True)
class Judged(Start):
    """Prompts whose answers are compared with others; `reward` is then the judge."""

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What a system is called with."""
        return self.model, self.prompts

    @property
    def options(self) -> dict[str, Any]:
        """What a system is called with by name."""
        return {"judge": self.reward}


@dataclass(frozen=True)
class Compared(Beginning):
    """Answers that were compared, and a reward where a system takes one besides, told by its name."""

    preferences: Preferences
    reward: Any = None
    reward_name: str = ""

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What a system is called with."""
        both = (self.model, self.preferences)
        return both if self.reward is None else (*both, self.reward)

    @property
    def fingerprint(self) -> str:
        """Tells the inputs from others."""
        return f"{self.model_name}/{self.preferences.fingerprint}/{self.reward_name}"


@dataclass(frozen=True)
class Shown(Beginning):
    """Examples, to be imitated."""

    examples: Examples

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What a system is called with."""
        return self.model, self.examples

    @property
    def fingerprint(self) -> str:
        """Tells the inputs from others."""
        return f"{self.model_name}/{self.examples.fingerprint}"

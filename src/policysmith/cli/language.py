"""What language systems take, from words on the command line: a model, prompts and a reward."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from policysmith.common.errors import SettingError
from policysmith.experience.preferences import preferences_from_dataset
from policysmith.experience.prompts import Prompts, dataset_rows, from_dataset, from_task
from policysmith.experience.resets import with_references
from policysmith.rewards.named import reward_named
from policysmith.rewards.reward_model import is_reward_model


@dataclass(frozen=True)
class PromptInputs:
    """What is asked, and what counts as right."""

    data: str = ""
    """your prompts, or pairs that begin with them: .jsonl, .json, .csv, .parquet, or a folder that Hugging
    Face datasets wrote"""
    prompt: str = "prompt"
    """the column with the prompt: text, or a list of messages"""
    answer: str = "answer"
    """the column with the right answer"""
    task: str = ""
    """in place of --data: a procedural task of reasoning-gym, such as chain_sum"""
    size: int = 1000
    """how many questions of the task"""
    option: tuple[str, ...] = ()
    """the task's own settings, NAME=VALUE each"""
    data_seed: int = 0
    """seed of the task's questions"""
    reward: str = "numeric"
    """numeric, exact, last-line, answer-tags, mathematical, task, form, the folder of a reward model, or
    your_package.module:function"""

    def prompts(self) -> Prompts:
        """The prompts, read or made."""
        if bool(self.data) == bool(self.task):
            raise SettingError(
                "what is to be asked?" if not self.data else "prompts from two places",
                cure="give --data FILE with prompts (and answers), or --task NAME of reasoning-gym",
            )
        if self.data and self._pairs_alone:
            return with_references(preferences_from_dataset(self.data))
        if self.data:
            return from_dataset(self.data, prompt=self.prompt, answer=self.answer)
        settings = dict(_option(text) for text in self.option)
        return from_task(self.task, size=self.size, seed=self.data_seed, **settings)

    @property
    def _pairs_alone(self) -> bool:
        """Whether the file holds pairs without a column of prompts: these are what both sides begin with."""
        first: Any = next(iter(dataset_rows(self.data)), {})
        return self.prompt not in first and {"chosen", "rejected"} <= set(first)

    @property
    def subject(self) -> str:
        """What runs are named after."""
        return Path(self.data).stem if self.data else self.task

    def to_json(self) -> dict[str, Any]:
        """As plain data, with absolute paths, so that a run can be resumed from anywhere."""
        plain = asdict(self)
        if self.data:
            plain["data"] = str(Path(self.data).resolve())
        if is_reward_model(self.reward):
            plain["reward"] = str(Path(self.reward).resolve())
        return plain


@dataclass(frozen=True)
class LanguageInputs(PromptInputs):
    """The model that learns, what it is asked, and what it is rewarded for."""

    model: str = ""
    """a folder, a .gguf file, a name on the Hub, or one of `policysmith models list`"""

    checkpoint_every: ClassVar[int] = 10
    """Steps between checkpoints, where nothing else is asked for: a step is a rollout."""
    log_every: ClassVar[int] = 1
    """Steps between lines of metrics."""

    def arguments(self) -> tuple[Any, ...]:
        """What a language system's entry is called with."""
        if not self.model:
            raise SettingError("which model?", cure="give --model FOLDER or NAME, such as smollm2-135m")
        return self._model, self.prompts(), reward_named(self.reward)

    def fingerprint(self, arguments: tuple[Any, ...]) -> str:
        """Tells the prompts from others."""
        return arguments[1].fingerprint

    def to_json(self) -> dict[str, Any]:
        """As plain data, with absolute paths."""
        return super().to_json() | {"model": self._model}

    def describe(self, arguments: tuple[Any, ...]) -> str:
        """A line for whoever watches."""
        return f"{len(arguments[1])} prompts from {self.subject}; reward: {self.reward}"

    @property
    def _model(self) -> str:
        return str(Path(self.model).resolve()) if Path(self.model).exists() else self.model


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingError(f"'{text}' is no setting of a task", expected="NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value

"""What preference systems take, from words on the command line: a model, and answers that were compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from policysmith.common.errors import SettingError
from policysmith.experience.preferences import Preferences, flipped, preferences_from_dataset


@dataclass(frozen=True)
class ComparedAnswers:
    """Answers of which it is known which are better."""

    data: str = ""
    """your pairs or lists: .jsonl, .json, .csv, .parquet, or a folder that Hugging Face datasets wrote"""
    prompt: str = "prompt"
    """the column with the prompt: text, or a list of messages; without one, what both sides begin with"""
    chosen: str = "chosen"
    """the column with the better answer: text, or messages"""
    rejected: str = "rejected"
    """the column with the worse one"""
    answers: str = "answers"
    """of lists, the column with the answers"""
    labels: str = "labels"
    """of lists, the column with a label for each answer, higher for better"""
    drop: bool = False
    """leave out rows that say nothing, such as equal or empty answers, instead of stopping"""

    def preferences(self) -> Preferences:
        """The preferences as they are in the file."""
        if not self.data:
            raise SettingError("which preferences?", cure="give --data FILE with prompt, chosen and rejected")
        columns = ("prompt", "chosen", "rejected", "answers", "labels")
        named = {name: getattr(self, name) for name in columns}
        return preferences_from_dataset(self.data, **named, drop=self.drop)

    @property
    def subject(self) -> str:
        """What runs are named after."""
        return Path(self.data).stem

    def to_json(self) -> dict[str, Any]:
        """As plain data, with an absolute path, so that a run can be resumed from anywhere."""
        return asdict(self) | ({"data": str(Path(self.data).resolve())} if self.data else {})


@dataclass(frozen=True)
class PreferenceInputs(ComparedAnswers):
    """The model that learns, and the answers it learns from."""

    model: str = ""
    """a folder, a .gguf file, a name on the Hub, or one of `policysmith models list`"""
    flip: float = 0.0
    """turn so large a share of the pairs round, to see what wrong labels do"""
    flip_seed: int = 0
    """seed of which pairs"""

    checkpoint_every: ClassVar[int] = 100
    """Steps between checkpoints, where nothing else is asked for."""
    log_every: ClassVar[int] = 1
    """Steps between lines of metrics."""
    lists: ClassVar[bool] = False
    """Whether the system learns from lists as they are; others get the pairs of them."""

    def arguments(self) -> tuple[Any, ...]:
        """What the system's entry is called with."""
        if not self.model:
            raise SettingError("which model?", cure="give --model FOLDER or NAME, such as smollm2-135m")
        found = self.preferences()
        if not self.lists:
            found = found if all(row.is_pair for row in found) else found.as_pairs()
        if self.flip:
            found = flipped(found, self.flip, seed=self.flip_seed)
        return self._model, found

    def fingerprint(self, arguments: tuple[Any, ...]) -> str:
        """Tells the preferences from others."""
        return arguments[1].fingerprint

    def describe(self, arguments: tuple[Any, ...]) -> str:
        """A line for whoever watches."""
        found = arguments[1]
        parts = [f"{len(found)} {'lists of answers' if self.lists else 'pairs'} from {self.subject}"]
        if dropped := found.provenance.get("dropped", 0):
            parts.append(f"{dropped} rows left out")
        if self.flip:
            parts.append(f"{found.provenance['flips']} of them turned round")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As plain data, with absolute paths."""
        return super().to_json() | {"model": self._model}

    @property
    def _model(self) -> str:
        return str(Path(self.model).resolve()) if Path(self.model).exists() else self.model


@dataclass(frozen=True)
class ListInputs(PreferenceInputs):
    """The model that learns, and the lists of answers it learns from."""

    lists: ClassVar[bool] = True

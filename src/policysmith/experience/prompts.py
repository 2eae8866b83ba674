"""Prompts: what a language policy is asked, and what an answer is checked against.

A prompt is text (or a conversation of messages), a reference answer where there is one, and whatever else its
verifier needs. They come from rows of your own, from a Hugging Face data set, or from a procedural task:

    from_rows([{"prompt": "2 + 3 =", "answer": "5"}])
    from_dataset("my_questions.jsonl", prompt="question", answer="final")
    from_task("chain_sum", size=1000, seed=0, min_terms=2, max_terms=3)        any of reasoning-gym's
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from policysmith.common.errors import DataError, FileError, UnknownNameError
from policysmith.common.extras import require
from policysmith.experience.passes import PassSampler
from policysmith.policies.language.policy import Message


@dataclass(frozen=True)
class Prompt:
    """One question: `text`, a string or a conversation, and the right `answer`, None where unknown."""

    text: str | tuple[Message, ...]
    answer: Any = None
    data: Mapping[str, Any] = field(default_factory=dict)


def rephrased(prompt: Prompt, change: Callable[[str], str]) -> Prompt:
    """The same question put in other words: its text, or the last user turn of a conversation, is changed.

    Answer and data stay, so that what an answer is checked against stays. Raises `DataError` for a
    conversation in which no user speaks.
    """
    if isinstance(prompt.text, str):
        return replace(prompt, text=change(prompt.text))
    spoken = [place for place, turn in enumerate(prompt.text) if turn["role"] == "user"]
    if not spoken:
        raise DataError(
            "a conversation without a turn of the user",
            where=f"roles {[turn['role'] for turn in prompt.text]}",
            expected="a question to be put in other words",
        )
    turns = list(prompt.text)
    turns[spoken[-1]] = {**turns[spoken[-1]], "content": change(turns[spoken[-1]]["content"])}
    return replace(prompt, text=tuple(turns))


class Prompts(Sequence[Prompt]):
    """A set of prompts in a fixed order."""

    def __init__(self, prompts: Iterable[Prompt], *, provenance: Mapping[str, Any] | None = None) -> None:
        self._prompts = list(prompts)
        self.provenance = dict(provenance or {})
        if not self._prompts:
            raise DataError("there are no prompts", expected="at least one")
        for number, prompt in enumerate(self._prompts):
            if not prompt.text:
                raise DataError("a prompt is empty", where=f"row {number}")

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self._prompts)

    def __getitem__(self, index: Any) -> Any:
        """A prompt, or the prompts of a slice."""
        if isinstance(index, slice):
            return Prompts(self._prompts[index], provenance=self.provenance)
        return self._prompts[index]

    @property
    def fingerprint(self) -> str:
        """A hash of texts and answers, the same wherever the same prompts are."""
        rows = [[prompt.text, prompt.answer] for prompt in self._prompts]
        return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:16]


class PromptSampler(PassSampler[Prompt]):
    """Draws prompts, each once per pass in a fresh random order; its state is the rest of the pass."""


@dataclass(frozen=True)
class TaskScore:
    """A procedural task's own checker of one of its questions: from the answer's text to its score."""

    task: Any
    entry: Mapping[str, Any]

    def __call__(self, text: str) -> float:
        """The score, 1 for right."""
        return self.task.score_answer(text, self.entry)


def from_rows(
    rows: Iterable[Mapping[str, Any]], *, prompt: str = "prompt", answer: str = "answer"
) -> Prompts:
    """Prompts from mappings; columns other than `prompt` and `answer` go to `data`.

    Raises `DataError` naming the row that has no prompt.
    """
    found = []
    for number, row in enumerate(rows):
        if prompt not in row:
            raise DataError(
                f"there is no column '{prompt}'", where=f"row {number}", expected=f"among {sorted(row)}"
            )
        text = row[prompt]
        rest = {key: value for key, value in row.items() if key not in (prompt, answer)}
        found.append(Prompt(text if isinstance(text, str) else tuple(text), row.get(answer), rest))
    return Prompts(found, provenance={"rows": len(found)})


def from_dataset(
    path: str, *, prompt: str = "prompt", answer: str = "answer", split: str = "train"
) -> Prompts:
    """Prompts from a file (.jsonl, .json, .csv, .parquet) or a folder that Hugging Face `datasets` wrote."""
    prompts = from_rows(dataset_rows(path, split=split), prompt=prompt, answer=answer)
    prompts.provenance.update({"data": Path(path).name})
    return prompts


def dataset_rows(path: str, *, split: str = "train") -> Iterable[Mapping[str, Any]]:
    """The rows of a file (.jsonl, .json, .csv, .parquet), or a folder that Hugging Face `datasets` wrote."""
    datasets = require("datasets", extra="language")
    place = Path(path)
    if not place.exists():
        raise FileError("there is no such file or folder", where=path)
    if place.is_dir():
        loaded = datasets.load_from_disk(path)
        return loaded[split] if hasattr(loaded, "keys") else loaded
    kinds = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
    if place.suffix not in kinds:
        raise FileError(f"files of kind '{place.suffix}' are not read", where=path, expected=", ".join(kinds))
    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(kinds[place.suffix], data_files=path, split="train")
    except (datasets.exceptions.DatasetsError, StopIteration) as error:
        # An empty file ends the reader's iteration; what else it met is behind the error it raises.
        reason = str(error.__cause__ or "").splitlines()[:1]
        raise FileError(
            "no rows can be read from the file" + "".join(f": {line}" for line in reason),
            where=path,
            expected=f"rows of one form, written as {place.suffix}",
        ) from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def from_task(name: str, *, size: int, seed: int, **settings: Any) -> Prompts:
    """Prompts of a procedural task of reasoning-gym, the same for the same arguments.

    The task's own checker is `data["score"]`, a function of the answer's text (`rewards.verifiers.task`).
    Raises `UnknownNameError` for a name it does not have.
    """
    gym = require("reasoning_gym", extra="language")
    try:
        task = gym.create_dataset(name, size=size, seed=seed, **settings)
    except ValueError as error:
        if "not registered" not in str(error):
            raise
        raise UnknownNameError(f"reasoning-gym has no task '{name}'") from error
    prompts = [
        Prompt(
            entry["question"],
            entry["answer"],
            {
                "metadata": entry["metadata"],
                "score": TaskScore(task, entry),
            },
        )
        for entry in (task[index] for index in range(size))
    ]
    return Prompts(prompts, provenance={"task": name, "size": size, "seed": seed, **settings})

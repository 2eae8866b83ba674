"""Preferences: answers to one prompt, and how good each of them is.

A pair is a list of two of which the first is the better one; longer lists carry graded labels. They come from
rows of your own, or from a Hugging Face data set in any of its usual forms:

    pairs_from_rows([{"prompt": "2 + 3 =", "chosen": "5", "rejected": "6"}])
    pairs_from_rows([{"chosen": [{"role": "user", ...}, {"role": "assistant", ...}], "rejected": [...]}])
    lists_from_rows([{"prompt": "2 + 3 =", "answers": ["5", "five", "6"], "labels": [1.0, 0.8, 0.0]}])
    preferences_from_dataset("my_pairs.jsonl")

`flipped` adds the noise of a labeller who is sometimes wrong, by a seed; `as_pairs` makes pairs of lists.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.common.saving import save_json, write_beside
from policysmith.experience.prompts import Prompt, Prompts, dataset_rows


@dataclass(frozen=True)
class Preference:
    """Two or more `answers` to a prompt and a label each: the higher, the better. A pair's are 1 and 0.

    `data` is whatever else belongs to it: `scores`, what a reward gave each answer; `flipped`, true where
    noise turned the pair round.
    """

    prompt: Prompt
    answers: tuple[str, ...]
    labels: tuple[float, ...] = (1.0, 0.0)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_pair(self) -> bool:
        """Whether there are two answers, the better one first."""
        return len(self.answers) == 2 and self.labels[0] > self.labels[1]

    @property
    def problem(self) -> str:
        """Why nothing can be learnt from it; empty where something can."""
        if len(self.answers) < 2:
            return f"{len(self.answers)} answers, of which none is better than another"
        if len(self.answers) != len(self.labels):
            return f"{len(self.labels)} labels for {len(self.answers)} answers"
        if not all(map(math.isfinite, self.labels)):
            return f"labels {list(self.labels)}, which are not all finite"
        if empty := [place for place, text in enumerate(self.answers) if not text.strip()]:
            return f"answer {empty[0]} is empty"
        if len(set(self.answers)) == 1:
            return f"all answers are the same, {self.answers[0][:60]!r}"
        return ""


class Preferences(Sequence[Preference]):
    """Preferences in a fixed order.

    Raises `DataError` naming the first row that nothing can be learnt from; with `drop` such rows are left
    out, and the provenance says how many.
    """

    def __init__(
        self,
        preferences: Iterable[Preference],
        *,
        provenance: Mapping[str, Any] | None = None,
        drop: bool = False,
    ) -> None:
        self._rows: list[Preference] = []
        self.provenance = dict(provenance or {})
        problems = []
        for number, row in enumerate(preferences):
            if row.problem:
                problems.append((number, row))
            else:
                self._rows.append(row)
        if problems and not drop:
            number, row = problems[0]
            raise DataError(
                row.problem,
                where=f"row {number}: prompt {_shown(row.prompt)!r}"
                + (f", and {len(problems) - 1} rows more" if len(problems) > 1 else ""),
                expected="two answers or more that differ, none empty, with a label each",
                cure="mend the rows, or leave them out: drop=True (--drop)",
            )
        if problems:
            self.provenance["dropped"] = self.provenance.get("dropped", 0) + len(problems)
        if not self._rows:
            raise DataError("there are no preferences", expected="at least one row that can be learnt from")
        twice = sum(len(set(row.answers)) < len(row.answers) for row in self._rows)
        if twice:
            warnings.warn(f"{twice} lists have the same answer more than once", stacklevel=2)

    def __len__(self) -> int:
        """The number of preferences."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """A preference, or those of a slice."""
        if isinstance(index, slice):
            return Preferences(self._rows[index], provenance=self.provenance)
        return self._rows[index]

    @property
    def fingerprint(self) -> str:
        """A hash of prompts, answers and labels, the same wherever the same preferences are."""
        rows = [[row.prompt.text, row.answers, row.labels] for row in self._rows]
        return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()[:16]

    @property
    def prompts(self) -> Prompts:
        """The prompts alone, each as often as it is there."""
        return Prompts((row.prompt for row in self._rows), provenance=self.provenance)

    def as_pairs(self) -> Preferences:
        """Every two answers of a list whose labels differ, the better one first.

        Raises `DataError` where no label differs from another.
        """
        pairs = [pair for row in self._rows for pair in _pairs_of(row)]
        if not pairs:
            raise DataError(
                "no answer has a higher label than another", expected="labels that differ in some list"
            )
        return Preferences(pairs, provenance=self.provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .jsonl file that `preferences_from_dataset` reads, with its provenance beside it."""
        # One form for all rows: readers tell lists from pairs by the first one.
        as_pairs = all(row.is_pair and row.labels == (1.0, 0.0) for row in self._rows)
        lines = [json.dumps(_plain(row, as_pair=as_pairs), default=str) for row in self._rows]
        with write_beside(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        save_json(Path(path).with_suffix(".provenance.json"), self.provenance)


def flipped(preferences: Preferences, rate: float, *, seed: int) -> Preferences:
    """Pairs of which each is turned round with probability `rate`, whatever it is; `data["flipped"]` says so.

    Raises `SettingError` for a rate outside [0, 0.5): from there on labels say nothing, or the opposite.
    """
    if not 0 <= rate < 0.5:
        raise SettingError(f"a flip rate of {rate}", expected="in [0, 0.5)")
    check_pairs(preferences, reader="label noise")
    turned = (torch.rand(len(preferences), generator=generator(seed, "flips")) < rate).tolist()
    rows = [
        replace(row, answers=row.answers[::-1], data={**row.data, **_turned(row), "flipped": True})
        if turn
        else row
        for row, turn in zip(preferences, turned, strict=True)
    ]
    noise = {"flip_rate": rate, "flip_seed": seed, "flips": sum(turned)}
    return Preferences(rows, provenance={**preferences.provenance, **noise})


def check_pairs(preferences: Preferences, *, reader: str) -> None:
    """Raise `DataError` naming the first row that is no pair with the better answer first."""
    for number, row in enumerate(preferences):
        if not row.is_pair:
            raise DataError(
                f"{reader} needs pairs, and this row has labels {list(row.labels)}",
                where=f"row {number}: prompt {_shown(row.prompt)!r}",
                expected="two answers, the better one first",
                cure="make pairs of lists: preferences.as_pairs()",
            )


# ---- where they come from ----------------------------------------------------------------------------


def preferences_from_dataset(
    path: str,
    *,
    prompt: str = "prompt",
    chosen: str = "chosen",
    rejected: str = "rejected",
    answers: str = "answers",
    labels: str = "labels",
    split: str = "train",
    drop: bool = False,
) -> Preferences:
    """Pairs, or lists where there is a column `answers`, from what `prompts.dataset_rows` reads."""
    rows = list(dataset_rows(path, split=split))
    if rows and answers in rows[0] and chosen not in rows[0]:
        found = lists_from_rows(rows, prompt=prompt, answers=answers, labels=labels, drop=drop)
    else:
        found = pairs_from_rows(rows, prompt=prompt, chosen=chosen, rejected=rejected, drop=drop)
    found.provenance["data"] = Path(path).name
    return found


def pairs_from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    prompt: str = "prompt",
    chosen: str = "chosen",
    rejected: str = "rejected",
    drop: bool = False,
) -> Preferences:
    """Pairs from mappings, as text or as conversations.

    - With a column `prompt`, the sides are answers, or conversations that begin with the prompt.
    - Without one, what both sides begin with is the prompt: whole messages of a conversation; of text what
      comes before the answers, up to the last `Assistant:` where there is one.
    - Columns `score_chosen` and `score_rejected` become `data["scores"]`.

    Raises `DataError` naming the row whose sides have no common prompt, or several messages of their own.
    """
    found = []
    for number, row in enumerate(rows):
        lacking = [column for column in (chosen, rejected) if row.get(column) is None]
        if lacking:
            raise DataError(
                f"there is no column '{lacking[0]}'", where=f"row {number}", expected=f"among {sorted(row)}"
            )
        given = row.get(prompt)
        text, sides = _sides(given, row[chosen], row[rejected], number)
        scores = [row.get(f"score_{side}") for side in ("chosen", "rejected")]
        data: dict[str, Any] = {}
        if None not in scores:
            data["scores"] = tuple(map(float, scores))  # type: ignore[arg-type]
        if row.get("flipped"):
            data["flipped"] = True
        found.append(Preference(Prompt(text, row.get("answer")), sides, data=data))
    return Preferences(found, provenance={"rows": len(found)}, drop=drop)


def lists_from_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    prompt: str = "prompt",
    answers: str = "answers",
    labels: str = "labels",
    drop: bool = False,
) -> Preferences:
    """Lists of answers with labels from mappings; a column `scores` goes to `data`.

    Raises `DataError` naming the row that lacks a column.
    """
    found = []
    for number, row in enumerate(rows):
        lacking = [column for column in (prompt, answers, labels) if row.get(column) is None]
        if lacking:
            raise DataError(
                f"there is no column '{lacking[0]}'", where=f"row {number}", expected=f"among {sorted(row)}"
            )
        text = row[prompt]
        data = {"scores": tuple(row["scores"])} if row.get("scores") is not None else {}
        found.append(
            Preference(
                Prompt(text if isinstance(text, str) else tuple(text), row.get("answer")),
                tuple(_answer(one, number) for one in row[answers]),
                tuple(map(float, row[labels])),
                data,
            )
        )
    return Preferences(found, provenance={"rows": len(found)}, drop=drop)


def _sides(given: Any, chosen: Any, rejected: Any, number: int) -> tuple[Any, tuple[str, str]]:
    """The prompt and the two answers of a row."""
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise DataError("one side is text and the other is not", where=f"row {number}")
    if isinstance(chosen, str):
        if given is not None:
            return given if isinstance(given, str) else tuple(given), (chosen, rejected)
        begin = _common_text(chosen, rejected)
        if not begin.strip():
            raise DataError(
                "there is no prompt, and the two sides begin differently",
                where=f"row {number}",
                expected="a column with the prompt, or sides that begin with it",
            )
        return begin, (chosen[len(begin) :], rejected[len(begin) :])
    sides = [list(chosen), list(rejected)]
    if given is None:
        count = 0
        while count < min(map(len, sides)) - 1 and dict(sides[0][count]) == dict(sides[1][count]):
            count += 1
        begin = tuple(sides[0][:count])
        if not begin:
            raise DataError("the two conversations begin differently", where=f"row {number}")
    else:
        begin = ({"role": "user", "content": given},) if isinstance(given, str) else tuple(given)
        for side in sides:
            if [dict(turn) for turn in side[: len(begin)]] == [dict(turn) for turn in begin]:
                side[:] = side[len(begin) :]
        return begin, (_answer(sides[0], number), _answer(sides[1], number))
    return begin, (_answer(sides[0][len(begin) :], number), _answer(sides[1][len(begin) :], number))


def _answer(side: Any, number: int) -> str:
    """The text of an answer: itself, or the one message it is."""
    if isinstance(side, str):
        return side
    turns = [side] if isinstance(side, Mapping) else list(side)
    if len(turns) != 1:
        raise DataError(
            f"an answer of {len(turns)} messages",
            where=f"row {number}",
            expected="one message behind the prompt: what is compared is what the policy writes next",
        )
    return turns[0]["content"]


def _common_text(first: str, second: str) -> str:
    """What both texts begin with, up to a place where an answer may begin."""
    common = first[: _agreeing(first, second)]
    if "Assistant:" in common:
        return common[: common.rindex("Assistant:") + len("Assistant:")]
    return common[: max(common.rfind(" "), common.rfind("\n")) + 1]


def _agreeing(first: str, second: str) -> int:
    """With how many characters both texts begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(first), len(second)))


def _pairs_of(row: Preference) -> list[Preference]:
    places = range(len(row.answers))
    better = [(i, j) for i in places for j in places if row.labels[i] > row.labels[j]]
    scores = row.data.get("scores")
    return [
        Preference(
            row.prompt,
            (row.answers[i], row.answers[j]),
            data={**row.data, **({"scores": (scores[i], scores[j])} if scores else {})},
        )
        for i, j in better
        if row.answers[i] != row.answers[j]
    ]


def _turned(row: Preference) -> dict[str, Any]:
    return {"scores": tuple(row.data["scores"])[::-1]} if "scores" in row.data else {}


def _plain(row: Preference, *, as_pair: bool) -> dict[str, Any]:
    """A row as the readers take it."""
    prompt = row.prompt.text if isinstance(row.prompt.text, str) else list(row.prompt.text)
    plain: dict[str, Any] = {"prompt": prompt}
    if as_pair:
        plain |= {"chosen": row.answers[0], "rejected": row.answers[1]}
        if "scores" in row.data:
            plain |= dict(zip(("score_chosen", "score_rejected"), row.data["scores"], strict=True))
    else:
        plain |= {"answers": list(row.answers), "labels": list(row.labels)}
        if "scores" in row.data:
            plain["scores"] = list(row.data["scores"])
    return plain | {key: value for key, value in row.data.items() if key != "scores"}


def _shown(prompt: Prompt) -> str:
    return str(prompt.text)[:80]

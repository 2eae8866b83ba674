"""What is asked of an engine, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError, ShapeError


@dataclass(frozen=True)
class Request:
    """One answer to be written.

    - `prompt`: tokens of the prompt.
    - `group_id`, `copy`: rows with the same id answer the same prompt; the copy tells them apart. Both
      together choose the row's random numbers.
    - `prefix`: tokens with which the answer begins, given and not drawn (a hint, the place to go on from).
    - `prefix_learnt`: whether losses see the prefix (`mask` True), for all of it or token by token; what a
      policy wrote earlier is learnt from, a hint is not.
    - `prefix_log_prob`, `prefix_version`: of a prefix that was drawn earlier, what was recorded of it. Where
      a
      prefix is learnt and has none, it is scored under the weights of now.
    - `limit`: at most so many tokens are drawn now, instead of the sampling's own limit.
    - `about`: anything that belongs to the row; it comes back with it.
    """

    prompt: Sequence[int]
    group_id: int = 0
    copy: int = 0
    prefix: Sequence[int] = ()
    prefix_learnt: bool | Sequence[bool] = False
    prefix_log_prob: Sequence[float] | None = None
    prefix_version: Sequence[int] | None = None
    limit: int | None = None
    about: Any = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SettingError(
                f"a limit of {self.limit} tokens", where=self.name, expected="at least 1, or None"
            )
        if len(self.prompt) == 0:
            raise DataError("an empty prompt", where=self.name, expected="at least one token to go on from")
        for what, values in (
            ("flags", self.prefix_learnt),
            ("log-probabilities", self.prefix_log_prob),
            ("versions", self.prefix_version),
        ):
            if isinstance(values, Sequence) and len(values) != len(self.prefix):
                raise ShapeError(
                    f"{len(values)} {what} for a prefix of {len(self.prefix)} tokens",
                    where=self.name,
                    expected="one per token",
                )

    @property
    def text(self) -> list[int]:
        """Prompt and prefix: all that is given."""
        return [*self.prompt, *self.prefix]

    @property
    def learnt(self) -> list[bool]:
        """For each token of the prefix, whether losses see it."""
        flags = self.prefix_learnt
        return [flags] * len(self.prefix) if isinstance(flags, bool) else list(flags)

    @property
    def name(self) -> str:
        """How errors call the row."""
        return f"group {self.group_id}, copy {self.copy}"


def group_requests(prompts: Sequence[Sequence[int]], copies: int, **options: Any) -> list[Request]:
    """`copies` requests for every prompt, the prompt's index as their group."""
    if copies < 1:
        raise SettingError(f"{copies} answers per prompt", expected="at least 1")
    return [
        Request(prompt, group_id=group, copy=copy, **options)
        for group, prompt in enumerate(prompts)
        for copy in range(copies)
    ]


@dataclass
class Samples:
    """Rows that were written, in the order of the requests.

    `batch` [row] holds, padded at the end of each row:

    - `token` [row, time]: prompt and answer; `attended` [row, time] bool: not padding;
    - `mask` [row, time] bool: tokens the policy wrote, which is what losses see;
    - `behaviour_log_prob` [row, time]: of each token in `mask`, given those before it, 0 elsewhere;
    - `weights_version` [row, time]: of the weights that wrote the token, -1 where none did;
    - `group_id` [row]; `prompt_length`, `prefix_length` [row]: where the answer, and what was drawn, begins;
    - `finished` [row] bool: an end token or a stop string came before the limit.

    `texts` are the answers with their prefixes, without special tokens.
    """

    batch: TensorDict
    requests: list[Request]
    texts: list[str]
    steps: int = 0
    """How often the model was asked for a next token, for all rows at once."""
    prefilled: int = 0
    """Tokens of prompts and prefixes that were run."""

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def about(self) -> list[Any]:
        """What belongs to each row: its prompt, where a sampler of `experience.rollouts` asked."""
        return [request.about for request in self.requests]

    def log(self, name: str, values: Any) -> None:
        """Keep a number per row (or one for all) under `batch["log", name]`: runs report its mean.

        NaN in a row says nothing of it, and the row does not count in the mean.
        """
        column = torch.as_tensor(values, dtype=torch.float32)
        self.batch["log", name] = column.expand(len(self)).clone()

    def select(self, rows: Sequence[int]) -> Samples:
        """Some of the rows, in that order."""
        index = torch.tensor(list(rows), dtype=torch.long)
        chosen = index.tolist()
        return replace(
            self,
            batch=self.batch[index],
            requests=[self.requests[row] for row in chosen],
            texts=[self.texts[row] for row in chosen],
        )

    def answer(self, row: int) -> list[int]:
        """The tokens of an answer with its prefix."""
        begin = int(self.batch["prompt_length"][row])
        return self.batch["token"][row][begin : int(self.batch["attended"][row].sum())].tolist()

    def unfinished(self, *, limit: int | None = None) -> list[Request]:
        """Requests that go on with the rows that have not ended, whatever the weights have become by then."""
        return [
            self._going_on(row, limit) for row in range(len(self)) if not bool(self.batch["finished"][row])
        ]

    def _going_on(self, row: int, limit: int | None) -> Request:
        begin, end = int(self.batch["prompt_length"][row]), int(self.batch["attended"][row].sum())
        return replace(
            self.requests[row],
            prefix=self.batch["token"][row, begin:end].tolist(),
            prefix_learnt=self.batch["mask"][row, begin:end].tolist(),
            prefix_log_prob=self.batch["behaviour_log_prob"][row, begin:end].tolist(),
            prefix_version=self.batch["weights_version"][row, begin:end].tolist(),
            limit=limit if limit is not None else self.requests[row].limit,
        )


def join(parts: Sequence[Samples]) -> Samples:
    """The rows of all parts, one part behind the other, with what all of them know of their rows."""
    parts = [part for part in parts if len(part)]
    if not parts:
        raise DataError("there are no answers to join", expected="at least one row")
    time = max(part.batch["token"].shape[1] for part in parts)
    keys = set.intersection(*(set(part.batch.keys(True, True)) for part in parts))
    batches: Any = [_padded(part.batch.select(*sorted(keys, key=str)), time) for part in parts]
    return Samples(
        torch.cat(batches),
        [request for part in parts for request in part.requests],
        [text for part in parts for text in part.texts],
        steps=sum(part.steps for part in parts),
        prefilled=sum(part.prefilled for part in parts),
    )


def in_order(samples: Samples) -> Samples:
    """The rows by their group, rows of a group in the order they have."""
    return samples.select(samples.batch["group_id"].argsort(stable=True).tolist())


def _padded(batch: TensorDict, time: int) -> TensorDict:
    """With every entry per token brought to `time` tokens: token 0 that nobody attends to, -1 as version."""
    now = batch["token"].shape[1]
    padded = batch.clone(recurse=False)
    for key in batch.keys(True, True):
        value: Any = batch[key]
        if value.dim() == 2 and value.shape[1] == now:
            padded[key] = F.pad(value, (0, time - now), value=-1 if key == "weights_version" else 0)
    return padded


@dataclass
class Written:
    """What was drawn for a request, and how likely its learnt prefix was where nobody had recorded it."""

    token: list[int]
    log_prob: list[float]
    finished: bool
    prefix_log_prob: list[float] | None = None


def collate(requests: Sequence[Request], written: Sequence[Written], *, pad: int, version: int) -> TensorDict:
    """The batch of `Samples`."""
    rows = [_row(request, answer, version) for request, answer in zip(requests, written, strict=True)]
    time = max(len(token) for token, *_ in rows)

    def padded(values: Iterable[list[Any]], fill: Any) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (time - len(row))] for row in values])

    token, mask, log_prob, versions = zip(*rows, strict=True)
    lengths = [[len(request.prompt), len(request.prefix)] for request in requests]
    prompt_length, prefix_length = torch.tensor(lengths).unbind(1)
    return TensorDict(
        {
            "token": padded(token, pad),
            "attended": padded(([True] * len(row) for row in token), False),
            "mask": padded(mask, False),
            "behaviour_log_prob": padded(log_prob, 0.0),
            "weights_version": padded(versions, -1),
            "group_id": torch.tensor([request.group_id for request in requests]),
            "prompt_length": prompt_length,
            "prefix_length": prefix_length,
            "finished": torch.tensor([answer.finished for answer in written]),
        },
        batch_size=[len(requests)],
    )


def _row(
    request: Request, answer: Written, version: int
) -> tuple[list[int], list[bool], list[float], list[int]]:
    """Token, mask, log-probability and version for each place of a row."""
    nothing, given = len(request.prompt), len(request.prefix)
    learnt = request.learnt
    known = request.prefix_log_prob if request.prefix_log_prob is not None else answer.prefix_log_prob
    of_prefix = [
        float(value) if seen else 0.0 for value, seen in zip(known or [0.0] * given, learnt, strict=True)
    ]
    versions = [-1] * given if request.prefix_version is None else list(request.prefix_version)
    return (
        [*request.text, *answer.token],
        [False] * nothing + learnt + [True] * len(answer.token),
        [0.0] * nothing + of_prefix + answer.log_prob,
        [-1] * nothing + versions + [version] * len(answer.token),
    )

"""Resets: answers that begin in the middle of a good one, and are gone on with by the policy.

    engine = Resetting(LocalEngine(policy), written(policy, "chosen"), probability=0.75)

A text can be taken up at any of its places, as a simulator can be set to any of its states. With the given
probability an answer begins with the first k tokens of another one to the same prompt, k even over 1 .. L - 1
where that has L tokens, its end token among them; where it has one alone there is nothing to begin with. The
policy writes the rest, so that at least one token is always its own.

The tokens that were given are in `mask`, with how likely they were: a critic values them, and rewards per
token are paid for them. What the policy is learnt from are the tokens it has `drawn`.

Source: Chang et al. 2024 (DR-PO), and the authors' code.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import draw_seed, generator
from policysmith.experience.examples import Examples
from policysmith.experience.preferences import Preferences, check_pairs
from policysmith.experience.prompts import Prompt, Prompts
from policysmith.objectives.averaging import token_mean_weight
from policysmith.policies.language.engine import Engine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples
from policysmith.policies.language.sampling import Sampling

COLUMN = "chosen"
"""Where in a prompt's data its reference answer is, where nothing else is said."""


class Beginnings(Protocol):
    """Answers that others may begin with."""

    def __call__(
        self, requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator
    ) -> list[list[int]]:
        """For each request the tokens of an answer, its end token among them, `sampling.limit` at most."""
        ...


class Resetting:
    """An engine some of whose answers begin with what `beginnings` gives; see the module.

    - `probability`: that an answer does; 0 leaves everything to `engine`, draw by draw.

    Which answers do, and where they are taken up, is drawn for each row by its group and copy, from a seed
    that comes of the call's `rng`; so it depends neither on the company a row keeps nor on who writes it, and
    a run that is cut and resumed draws the same. Raises `SettingError` for a probability outside [0, 1].
    """

    def __init__(self, engine: Engine, beginnings: Beginnings, *, probability: float) -> None:
        check_probability(probability)
        self.engine, self.beginnings, self.probability = engine, beginnings, probability

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator, version: int = 0
    ) -> Samples:
        """See `Engine`. Logs per row: `reset`, whether it began so, and `given_tokens`, with how many."""
        if self.probability:
            requests = self._begun(list(requests), sampling, seed=draw_seed(rng))
        samples = self.engine.sample(requests, sampling, rng=rng, version=version)
        given = samples.batch["prefix_length"]
        samples.log("reset", given > 0)
        samples.log("given_tokens", given)
        return samples

    def _begun(self, requests: list[Request], sampling: Sampling, *, seed: int) -> list[Request]:
        numbers = {}
        for row, request in enumerate(requests):
            whether, where = _numbers(seed, request)
            if whether < self.probability:
                numbers[row] = where
        if not numbers:
            return requests
        asked = [requests[row] for row in numbers]
        answers = self.beginnings(asked, sampling, rng=generator(seed, "beginnings"))
        begun = list(requests)
        for (row, where), answer in zip(numbers.items(), answers, strict=True):
            count = reset_length(len(answer), where)
            if count:
                begun[row] = replace(
                    requests[row], prefix=answer[:count], prefix_learnt=True, limit=sampling.limit - count
                )
        return begun


def reset_length(length: int, uniform: float) -> int:
    """How many of an answer's `length` tokens are given: even over 1 .. length - 1; none of fewer than two.

    `uniform` is a number in [0, 1). Source: the authors' code, the length of a roll-in.
    """
    return 1 + int(uniform * (length - 1)) if length > 1 else 0


def drawn(batch: TensorDict) -> Bool[Tensor, "row time"]:
    """Those tokens of `mask` that the policy drew, and was not given."""
    mask = batch["mask"]
    begin = batch["prompt_length"] + batch["prefix_length"]
    return mask & (torch.arange(mask.shape[1], device=mask.device) >= begin[:, None])


def drawn_weight(batch: TensorDict) -> Float[Tensor, "row time"]:
    """One over the number of tokens that the policy drew, on each of them; given ones count nothing.

    Raises `DataError` where all tokens of the batch were given.
    """
    mask = drawn(batch)
    if not bool(mask.any()):
        raise DataError(
            "every token of the batch was given, and none is the policy's own",
            where=f"a batch of {len(batch)} answers",
            expected="answers of which at least the last token is left to the policy",
            cure="begin with shorter parts of the reference answers",
        )
    return token_mean_weight(mask)


# ---- what answers begin with -------------------------------------------------------------------------


def written(policy: LanguagePolicy, column: str = COLUMN) -> Beginnings:
    """The reference answers that prompts have in their data, in the policy's own tokens, cut to the limit."""

    def begin(requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator) -> list[list[int]]:
        return [
            [*policy.encode(reference_answer(request.about, column)), policy.end_tokens[0]][: sampling.limit]
            for request in requests
        ]

    return begin


def sampled_from(engine: Engine, *, top_p: float) -> Beginnings:
    """Answers that `engine` writes for the purpose, of the likeliest tokens that have `top_p` together.

    With a model that does not learn, this is PPO++ of the authors' code: resets that need no data.
    """

    def begin(requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator) -> list[list[int]]:
        samples = engine.sample(requests, replace(sampling, top_p=top_p), rng=rng)
        return [samples.answer(row) for row in range(len(samples))]

    return begin


def with_references(data: Preferences | Examples | Prompts, column: str = COLUMN) -> Prompts:
    """Prompts that have a reference answer in their data: the better one of a pair, or what was demonstrated.

    Prompts stay as they are. Raises `DataError` naming a row of preferences that is no pair.
    """
    if isinstance(data, Prompts):
        return data
    if isinstance(data, Preferences):
        check_pairs(data, reader="resetting to preferred answers")
        found = [replace(row.prompt, data={**row.prompt.data, column: row.answers[0]}) for row in data]
        return Prompts(found, provenance=data.provenance)
    return Prompts(Prompt(one.prompt, data={column: one.answer}) for one in data)


def reference_answer(prompt: Prompt, column: str = COLUMN, *, where: str = "") -> str:
    """The text in the prompt's data, or of a conversation there the last message, which answers it.

    Raises `DataError` naming a prompt without one. Tokens are refused: they may be another tokenizer's.
    """
    found: Any = prompt.data.get(column)
    empty = found is None or (isinstance(found, str) and not found.strip())
    if isinstance(found, Sequence) and found and isinstance(found[-1], Mapping):
        last = found[-1]
        found = last.get("content") if last.get("role", "assistant") == "assistant" else found
    if isinstance(found, str) and found.strip():
        return found
    raise DataError(
        "a prompt has no reference answer" if empty else f"a reference answer that is no text: {found!r:.60}",
        where=f"{where or 'prompt'} {str(prompt.text)[:80]!r}",
        expected=f"a good answer in the column '{column}': text, or messages that end with it",
        cure="give it one, name the column, or begin no answer with one (a probability of 0)",
    )


class References:
    """The reference answers of all prompts, looked through once; a source of the run that begins with them.

    Raises `DataError` naming the first row without one, and where a saved run is resumed with others. Warns
    where some have more tokens than `limit`, their end token among them: these are cut there.
    """

    def __init__(self, policy: LanguagePolicy, prompts: Prompts, *, limit: int, column: str = COLUMN) -> None:
        answers = [reference_answer(prompt, column, where=f"row {row}") for row, prompt in enumerate(prompts)]
        self.fingerprint = hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]
        lengths = [len(policy.encode(answer)) + 1 for answer in answers]
        if longer := [row for row, length in enumerate(lengths) if length > limit]:
            warnings.warn(
                f"{len(longer)} of {len(lengths)} reference answers are longer than an answer may be "
                f"({limit} tokens; row {longer[0]} has {lengths[longer[0]]}): they are cut there",
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Which answers they are."""
        return {"data": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that they are those of the saved run."""
        if state["data"] != self.fingerprint:
            raise DataError(
                f"the reference answers are not those of the saved run ({self.fingerprint}; saved: "
                f"{state['data']})",
                cure="resume with the same answers, in the same order",
            )


def check_probability(probability: float) -> None:
    """Raise `SettingError` for a probability of resets outside [0, 1]."""
    if not 0 <= probability <= 1:
        raise SettingError(f"resets with a probability of {probability}", expected="0 to 1")


def _numbers(seed: int, request: Request) -> tuple[float, float]:
    """Two uniform numbers that belong to a row: whether it is begun, and where."""
    rng = generator(seed, "reset", request.group_id, request.copy)
    whether, where = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
    return whether, where

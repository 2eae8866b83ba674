"""Samplers: from prompts to answers, a function that other samplers wrap.

    sampler = spread(scored(sampled(policy, engine, Sampling(limit=64), copies=8), scoring))
    samples = sampler({0: first_prompt, 1: second_prompt}, rng=rng)

A sampler takes groups (an id and its prompt) and returns `Samples`, a row per answer whose `about` is the
row's prompt. What wraps it may ask again with other prompts, choose among the answers, or hang them on the
prompt they are to be learnt on (`hung_on`). A row's draws depend on the seed drawn for the call, its group
and its copy alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.prompts import Prompt
from policysmith.policies.language.engine import Engine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.policies.language.sampling import Sampling

Groups = Mapping[int, Prompt]
"""Prompts by the id of their group."""


class Sampler(Protocol):
    """Whatever answers prompts."""

    def __call__(
        self, groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        """`copies` answers to each prompt (the sampler's own number by default), group after group.

        `version` is that of the weights, stamped on what is drawn.
        """
        ...


def sampled(
    policy: LanguagePolicy, engine: Engine, sampling: Sampling, *, copies: int, system: str = ""
) -> Sampler:
    """The plainest sampler: `copies` answers from `engine`, the prompt put as `encode_prompt` does.

    Raises `DataError` naming the prompt that, with the longest answer, does not fit the model's context.
    """
    if copies < 1:
        raise SettingError(f"{copies} answers per prompt", expected="at least 1")
    usual = copies

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        requests = [
            Request(token, group_id=group, copy=copy, about=prompt)
            for group, prompt in groups.items()
            for token in [fitting_prompt(policy, prompt, limit=sampling.limit, system=system)]
            for copy in range(usual if copies is None else copies)
        ]
        samples = engine.sample(requests, sampling, rng=rng, version=version)
        samples.log("answer_tokens", samples.batch["mask"].sum(1))
        samples.log("finished", samples.batch["finished"])
        samples.log("decoding_steps", samples.steps)
        return samples

    return sample


def encode_prompt(policy: LanguagePolicy, prompt: Prompt, *, system: str = "") -> list[int]:
    """The tokens of a prompt up to where the policy is to speak.

    A conversation goes through the chat template; text is asked as a question (`encode_question`), behind the
    `system` message where one is given.
    """
    if isinstance(prompt.text, str):
        return policy.encode_question(prompt.text, system=system)
    turns = ([{"role": "system", "content": system}] if system else []) + list(prompt.text)
    return policy.encode_conversation(turns)


def fitting_prompt(policy: LanguagePolicy, prompt: Prompt, *, limit: int, system: str = "") -> list[int]:
    """The tokens of a prompt; `DataError` naming it where it and `limit` tokens do not fit the context."""
    token = encode_prompt(policy, prompt, system=system)
    if len(token) + limit > policy.context:
        raise DataError(
            f"a prompt of {len(token)} tokens and an answer of up to {limit} do not fit the context",
            where=f"prompt {str(prompt.text)[:80]!r}",
            expected=f"at most {policy.context} tokens together",
            cure="shorten or drop the prompt, or lower the limit of an answer",
        )
    return token


def hung_on(
    samples: Samples, prompts: Sequence[Prompt], policy: LanguagePolicy, *, system: str = ""
) -> Samples:
    """The same answers behind other prompts, one per row: what was written with help is learnt without it.

    What the policy wrote stays what it wrote (`mask`), but how likely that was belongs to the prompt it was
    written on: `behaviour_log_prob` is 0 and `off_policy` [row] is True. Scores and logs stay with the rows.
    Raises `DataError` where a prompt and its answer do not fit the context.
    """
    requests, written = [], []
    for row, prompt in enumerate(prompts):
        token = encode_prompt(policy, prompt, system=system)
        answer = samples.answer(row)
        if len(token) + len(answer) > policy.context:
            raise DataError(
                f"an answer of {len(answer)} tokens does not fit behind a prompt of {len(token)}",
                where=f"prompt {str(prompt.text)[:80]!r}",
                expected=f"at most {policy.context} tokens together",
            )
        old = samples.requests[row]
        requests.append(Request(token, group_id=old.group_id, copy=old.copy, about=prompt))
        written.append(Written(answer, [0.0] * len(answer), bool(samples.batch["finished"][row])))
    batch = collate(requests, written, pad=policy.tokenizer.pad_token_id, version=-1)
    for row in range(len(samples)):
        begin = int(samples.batch["prompt_length"][row])
        start, count = int(batch["prompt_length"][row]), len(written[row].token)
        for key in ("mask", "weights_version"):
            batch[key][row, start : start + count] = samples.batch[key][row, begin : begin + count]
    kept = {
        key: value
        for key, value in samples.batch.items()
        if key not in batch.keys() and key != "off_policy"  # noqa: SIM118
    }
    batch.update(kept)
    batch["off_policy"] = torch.ones(len(samples), dtype=torch.bool)
    return replace(samples, batch=batch, requests=requests)


def correctness(samples: Samples, column: str = "") -> Float[Tensor, "row"]:
    """The score that says whether an answer is right: the reward called `column`, or the only one there is.

    Raises `SettingError` where there are several rewards and none is named, or none of that name.
    """
    columns = samples.batch["score"]
    names = sorted(map(str, columns.keys()))
    if not column and len(names) == 1:
        column = names[0]
    if column not in names:
        raise SettingError(
            f"the reward '{column}' is not there" if column else "several rewards, of which none is named",
            where=f"rewards {names}",
            expected="the name of the reward that says whether an answer is right",
        )
    return columns[column]


def tokens_by_group(samples: Samples) -> Counter[int]:
    """Tokens drawn for each group, those of answers that a sampler inside did not keep among them."""
    log = samples.batch.get("log", {})
    drawn = log["sampled_tokens"] if "sampled_tokens" in log.keys() else samples.batch["mask"].sum(1)  # noqa: SIM118
    found: Counter[int] = Counter()
    for group, tokens in zip(samples.batch["group_id"].tolist(), drawn.tolist(), strict=True):
        found[group] += tokens
    return found


def log_tokens(samples: Samples, drawn: Mapping[int, float]) -> None:
    """Log `sampled_tokens`: what was drawn for each group, shared evenly among the rows it came to."""
    groups = samples.batch["group_id"].tolist()
    rows = Counter(groups)
    samples.log("sampled_tokens", [drawn[group] / rows[group] for group in groups])

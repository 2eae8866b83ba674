"""Explanations of known answers: asked with the answer in view, learnt as if it had not been.

    imitating(sampler, explaining(sampler, policy, ask=answer_in_view()), weight=lambda step: 0.04)

Where every answer to a question is wrong, a group has no good example. A chain of thought that the policy
writes once it is told the answer is one: likely under the policy, which wrote it, and more often a way to the
answer than what it writes unaided. `explaining` samples such chains and hangs them on the bare question;
`imitating` puts them beside the usual answers as rows with an `imitation` weight, which are learnt by their
likelihood alone (`training.learners.imitation`). `reciting` is the same with written solutions.

Source: Zhou et al. 2025 (ExPO), sections 3 and 4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict

from policysmith.common.errors import DataError, SettingError
from policysmith.experience.guidance import check_template, failed_groups, solution_of
from policysmith.experience.outcomes import pair_rows
from policysmith.experience.prompts import Prompt, Prompts, rephrased
from policysmith.experience.rollouts import Groups, Sampler, correctness, encode_prompt, hung_on
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, Written, collate, join

Ask = Callable[[Prompt], Prompt]
"""A question -> the question with its answer in view, which asks for an explanation."""

EXPLAIN = (
    "{question}\n\nThe correct answer is {answer}. Give the step-by-step reasoning that leads to it, "
    "and end with the answer."
)
"""How an explanation is asked for."""


def answer_in_view(template: str = EXPLAIN) -> Ask:
    """Puts `{question}` and `{answer}` into the template."""
    check_template(template, "question", "answer")
    return lambda prompt: rephrased(
        prompt, lambda question: template.format(question=question, answer=prompt.answer)
    )


def check_answers(prompts: Prompts) -> None:
    """Raise `DataError` naming the first row that has no answer."""
    for row, prompt in enumerate(prompts):
        if prompt.answer is None:
            raise DataError(
                "a question has no answer to be explained",
                where=f"row {row}: prompt {str(prompt.text)[:80]!r}",
                cure="give it one in the column 'answer', or leave the question out",
            )


# ---- where the rows come from ------------------------------------------------------------------------


def explaining(
    sampler: Sampler,
    policy: LanguagePolicy,
    *,
    ask: Ask,
    closing: str = "",
    only_right: bool = False,
    column: str = "",
    system: str = "",
) -> Sampler:
    """One explanation per question of what its answer is, hung on the question without the answer.

    - `closing`: put behind an explanation that does not end in the right answer, with `{answer}` in it;
      empty: it stays as it is. `only_right`: such an explanation is left out.
    - `column`: the reward of `sampler` that says so, where there are several.
    - `system`: the message before the prompts, as `sampler` has it.

    Empty explanations are left out. Logs the shares of all that are `right` (before the closing) and
    `empty`. Raises `SettingError` where a question is asked in the same words as without its answer, and
    `DataError` where more than half of the explanations are empty.
    """
    if closing:
        check_template(closing, "answer")

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        asked = {group: _asked(ask, prompt) for group, prompt in groups.items()}
        found = sampler(asked, rng=rng, version=version, copies=1 if copies is None else copies)
        right = correctness(found, column) > 0
        found.log("right", float(right.float().mean()))
        written = [row for row, text in enumerate(found.texts) if text.strip()]
        found.log("empty", 1 - len(written) / len(found))
        if len(written) < len(found) / 2:
            raise DataError(
                f"{len(found) - len(written)} of {len(found)} explanations are empty",
                where=f"such as that of {str(found.about[0].text)[:80]!r}",
                cure="ask in words that the model answers; a chat model needs its template",
            )
        chosen = [row for row in written if bool(right[row]) or not only_right]
        found, right = found.select(chosen), right[chosen]
        if not chosen:
            return found
        if closing:
            ends = [
                "" if good else closing.format(answer=prompt.answer)
                for good, prompt in zip(right.tolist(), found.about, strict=True)
            ]
            found = ended_with(found, ends, policy)
        return hung_on(found, [groups[group] for group in _groups(found)], policy, system=system)

    return sample


def reciting(
    policy: LanguagePolicy, *, system: str = "", text_of: Callable[[Prompt], str] = solution_of
) -> Sampler:
    """What somebody wrote to each prompt, by default its solution, as if the policy had written it.

    What explanations are compared with, and a teacher's answers. `text_of` raises `DataError` naming a prompt
    that has none.
    """

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        requests, written = [], []
        for group, prompt in groups.items():
            requests.append(Request(encode_prompt(policy, prompt, system=system), group, about=prompt))
            token = [*policy.encode(text_of(prompt)), policy.end_tokens[0]]
            written.append(Written(token, [0.0] * len(token), finished=True))
        batch = collate(requests, written, pad=policy.tokenizer.pad_token_id, version=-1)
        samples = Samples(batch, requests, [text_of(prompt) for prompt in groups.values()])
        samples.log("answer_tokens", batch["mask"].sum(1))
        return hung_on(samples, list(groups.values()), policy, system=system)

    return sample


def ended_with(samples: Samples, ends: Sequence[str], policy: LanguagePolicy) -> Samples:
    """The answers with a text behind each, learnt like the rest of it; an empty text leaves a row as it was.

    Where the added tokens have a log-probability it is unknown, and 0 as of rows that are `hung_on`.
    """
    requests, written, texts = [], [], []
    for row, end in enumerate(ends):
        old, token = samples.requests[row], samples.answer(row)
        if end:
            if token and token[-1] in policy.end_tokens:
                token = token[:-1]
            token = [*token, *policy.encode(end), policy.end_tokens[0]]
        finished = bool(end) or bool(samples.batch["finished"][row])
        # What had been given of the answer is learnt with the rest: a prefix would be written anew.
        requests.append(replace(old, prefix=(), prefix_log_prob=None, prefix_version=None))
        written.append(Written(token, [0.0] * len(token), finished))
        texts.append(samples.texts[row] + end)
    batch = collate(requests, written, pad=policy.tokenizer.pad_token_id, version=-1)
    batch.update({key: samples.batch[key] for key in samples.batch.keys() if key not in batch.keys()})  # noqa: SIM118
    return replace(samples, batch=batch, requests=requests, texts=texts)


def _asked(ask: Ask, prompt: Prompt) -> Prompt:
    asked = ask(prompt)
    if asked.text == prompt.text:
        raise SettingError(
            "an explanation is asked for in the same words as an answer",
            where=f"prompt {str(prompt.text)[:80]!r}",
            expected="a prompt in which the answer can be seen",
        )
    return asked


def _groups(samples: Samples) -> list[int]:
    return samples.batch["group_id"].tolist()


# ---- kept for a while --------------------------------------------------------------------------------


class Notebook:
    """Rows by the question they belong to, with the step they were written at: what `kept` remembers."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, Samples]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The rows as tensors and text."""
        return {
            key: {"step": step, "text": row.texts[0], "batch": row.batch.to_dict()}
            for key, (step, row) in self.rows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved rows; which prompt a row is of is known when it is asked for again."""
        self.rows = {}
        for key, saved in state.items():
            batch = TensorDict(saved["batch"], batch_size=[1])
            length = int(batch["prompt_length"][0])
            request = Request(batch["token"][0, :length].tolist())
            self.rows[key] = saved["step"], Samples(batch, [request], [saved["text"]])


def kept(sampler: Sampler, notebook: Notebook, *, refresh_every: int) -> Sampler:
    """What `sampler` wrote to a question, for `refresh_every` steps; 0 keeps it for good, 1 keeps nothing.

    One row per question. Each process keeps its own.
    """
    if refresh_every < 0:
        raise SettingError(f"refresh_every is {refresh_every}", expected="0 or more steps")
    if refresh_every == 1:
        return sampler

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        def fresh(prompt: Prompt) -> bool:
            row = notebook.rows.get(_key(prompt))
            return row is not None and (refresh_every == 0 or version - row[0] < refresh_every)

        rows = [
            _moved(notebook.rows[_key(prompt)][1], group, prompt)
            for group, prompt in groups.items()
            if fresh(prompt)
        ]
        wanted = {group: prompt for group, prompt in groups.items() if not fresh(prompt)}
        if wanted:
            found = sampler(wanted, rng=rng, version=version, copies=copies)
            for row, group in enumerate(_groups(found)):
                notebook.rows[_key(groups[group])] = version, found.select([row])
            if not rows:
                return found
            rows.append(found)
        return join(rows)

    return sample


def _key(prompt: Prompt) -> str:
    return prompt.text if isinstance(prompt.text, str) else json.dumps(list(prompt.text))


def _moved(row: Samples, group: int, prompt: Prompt) -> Samples:
    """A row in another group."""
    batch = row.batch.clone()
    batch["group_id"] = torch.tensor([group])
    requests = [replace(row.requests[0], group_id=group, about=prompt)]
    return replace(row, batch=batch, requests=requests, steps=0, prefilled=0)


# ---- beside the usual answers ------------------------------------------------------------------------


def imitating(
    sampler: Sampler,
    extra: Sampler,
    *,
    weight: Callable[[int], float],
    only_failed: bool = False,
    column: str = "",
    name: str = "explanation",
) -> Sampler:
    """Whatever `sampler` answers, and a row of `extra` in each group, to be learnt by its likelihood.

    - `weight`: by step, what the likelihood of a row counts: its `imitation`, which is 0 for usual answers.
      Where it is 0, `extra` is not asked.
    - `only_failed`: only in groups in which no answer is right, by the reward `column`.
    - `name`: what `extra` logs is reported as `name/...`, apart from the same numbers of the usual answers.
    """

    def sample(
        groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        samples = sampler(groups, rng=rng, version=version, copies=copies)
        samples.batch["imitation"] = torch.zeros(len(samples))
        if "off_policy" not in samples.batch.keys():  # noqa: SIM118
            samples.batch["off_policy"] = torch.zeros(len(samples), dtype=torch.bool)
        counts = weight(version)
        chosen = failed_groups(samples, column) if only_failed else list(groups)
        asked = {group: groups[group] for group in chosen} if counts > 0 else {}
        if asked:
            found = extra(asked, rng=rng, version=version)
            if len(found):
                found.batch["imitation"] = torch.full((len(found),), float(counts))
                samples = join(_logged_apart(samples, found, name))
        samples.log(f"{name}/asked", len(asked) / len(groups))
        return samples

    return sample


def _logged_apart(samples: Samples, extra: Samples, name: str) -> list[Samples]:
    """Both with the same keys: in the rows of the other side a log is NaN, and other numbers are 0."""
    own = {f"{name}/{key}": value for key, value in extra.batch["log"].items()}
    usual = list(samples.batch["log"].keys())
    extra.batch["log"] = TensorDict({}, batch_size=[len(extra)])
    for key, value in own.items():
        extra.log(key, value)
        samples.log(key, math.nan)
    for key in usual:
        extra.log(key, math.nan)
    there = set(extra.batch.keys(True, True))
    for key in samples.batch.keys(True, True):
        if key not in there and samples.batch[key].dim() == 1:
            extra.batch[key] = torch.zeros(len(extra), dtype=samples.batch[key].dtype)
    return [samples, extra]


# ---- as pairs ----------------------------------------------------------------------------------------


def explained_pairs(samples: Samples, column: str = "") -> TensorDict:
    """Rows of pairs (`experience.outcomes`): a group's explanation over its first wrong answer.

    Of what `imitating` returned; a group that lacks either gives no pair. Source: Zhou et al. 2025 (ExPO),
    ExP-DPO.
    """
    explained = samples.batch["imitation"] > 0
    right = correctness(samples, column) > 0
    chosen: dict[int, int] = {}
    rejected: dict[int, int] = {}
    for row, group in enumerate(_groups(samples)):
        if bool(explained[row]):
            chosen.setdefault(group, row)
        elif not bool(right[row]):
            rejected.setdefault(group, row)
    return pair_rows(samples, [(chosen[group], rejected[group]) for group in chosen if group in rejected])

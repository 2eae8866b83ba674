"""A rollout in windows: nobody waits for the longest answer.

A fixed number of answers is under way. Every call writes at most `window` further tokens of each, under the
weights of now, finished or not; those that have not ended go on in the next call, and new prompts take the
places of those that have:

    samples = rollout.sample(rng=rng)       a row per answer under way
    rollout.put_back(samples)               the unfinished ones into the queue, with what is known of them

Source: T-PPO (2506.15050), successive batching.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.experience.prompts import Prompt, Prompts, PromptSampler
from policysmith.experience.rollouts import fitting_prompt
from policysmith.policies.language.engine import Engine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples
from policysmith.policies.language.sampling import Sampling


@dataclass
class Waiting:
    """An answer in the queue: how it goes on, and what its tokens were valued when they were drawn."""

    request: Request
    value: list[float]


class TruncatedRollout:
    """The answers under way, `slots` of them, `window` tokens a call, at most `sampling.limit` in all.

    Prompts are drawn in passes with `rng`, and each is asked `copies` times. Raises `SettingError` for a
    window that is not between 1 and the limit, `DataError` for a prompt that does not fit the context.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        engine: Engine,
        prompts: Prompts,
        sampling: Sampling,
        *,
        slots: int,
        window: int,
        copies: int,
        rng: torch.Generator,
        system: str = "",
    ) -> None:
        if not 1 <= window <= sampling.limit:
            raise SettingError(
                f"a window of {window} tokens", expected=f"1 to the limit of an answer, {sampling.limit}"
            )
        if slots < 1 or copies < 1:
            raise SettingError(f"{slots} slots for {copies} answers to a prompt", expected="at least 1")
        self.policy, self.engine, self.sampling, self.system = policy, engine, sampling, system
        self.slots, self.window, self.copies = slots, window, copies
        self.prompts, self.rng = prompts, rng
        self._source = PromptSampler(prompts, rng=rng)
        self._place = {id(prompt): place for place, prompt in enumerate(prompts)}
        self._queue: list[Waiting] = []
        self._groups = 0

    def sample(self, *, rng: torch.Generator, version: int = 0) -> Samples:
        """The next window of every answer under way, oldest first.

        The rows are `Samples` whose `mask` marks what was drawn now, and which know besides

        - `written` [row, time] bool: all tokens of the answer so far, `behaviour_log_prob` with them;
        - `truncated` [row] bool: the answer goes on (it met neither an end token nor the limit);
        - `old_value` [row, time]: what earlier windows' tokens were valued when they were drawn, 0 elsewhere.
        """
        while len(self._queue) < self.slots:
            self._enter()
        taken, self._queue = self._queue[: self.slots], self._queue[self.slots :]
        requests = [waiting.request for waiting in taken]
        samples = self.engine.sample(requests, self.sampling, rng=rng, version=version)
        batch = samples.batch
        written = batch["mask"]
        begin = batch["prompt_length"] + batch["prefix_length"]
        batch["written"] = written
        batch["mask"] = written & (torch.arange(written.shape[1], device=written.device) >= begin[:, None])
        batch["truncated"] = ~batch["finished"] & (written.sum(1) < self.sampling.limit)
        batch["old_value"] = _placed([waiting.value for waiting in taken], batch)
        samples.log("answer_tokens", written.sum(1))
        samples.log("decoding_steps", samples.steps)
        samples.log("occupancy", float(batch["mask"].sum()) / (self.slots * (samples.steps + 1)))
        return samples

    def put_back(self, samples: Samples) -> None:
        """Queue the truncated rows of the last window, in their order, before prompts not yet begun.

        `old_value` is kept with their tokens; log-probabilities and versions are, too.
        """
        batch = samples.batch
        whole = replace(samples, batch=batch.clone(recurse=False))
        # What was written in any window is the policy's own: its log-probabilities are to be kept.
        whole.batch["mask"], whole.batch["finished"] = batch["written"], ~batch["truncated"]
        rows = batch["truncated"].nonzero()[:, 0].tolist()
        back = []
        for row, request in zip(rows, whole.unfinished(), strict=True):
            begin, count = int(batch["prompt_length"][row]), len(request.prefix)
            value = batch["old_value"][row, begin : begin + count].tolist()
            limit = min(self.window, self.sampling.limit - count)
            back.append(Waiting(replace(request, limit=limit), value))
        self._queue = back + self._queue

    def state_dict(self) -> dict[str, Any]:
        """The queue, where the pass over the prompts is, and the number of the next group."""
        return {
            "prompts": self._source.state_dict(),
            "groups": self._groups,
            "queue": [
                {
                    "prompt": self._place[id(waiting.request.about)],
                    "group": waiting.request.group_id,
                    "copy": waiting.request.copy,
                    "token": torch.tensor(list(waiting.request.prefix), dtype=torch.long),
                    "log_prob": torch.tensor(list(waiting.request.prefix_log_prob or ())),
                    "version": torch.tensor(list(waiting.request.prefix_version or ()), dtype=torch.long),
                    "value": torch.tensor(waiting.value),
                }
                for waiting in self._queue
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the answers that were under way; `DataError` where the prompts are others."""
        self._source.load_state_dict(state["prompts"])
        self._groups = state["groups"]
        self._queue = [self._restored(saved) for saved in state["queue"]]

    def _enter(self) -> None:
        """Queue a new prompt, as often as it is asked."""
        [prompt] = self._source.sample(1)
        for copy in range(self.copies):
            self._queue.append(Waiting(self._request(prompt, group=self._groups, copy=copy), []))
        self._groups += 1

    def _request(self, prompt: Prompt, *, group: int, copy: int) -> Request:
        token = fitting_prompt(self.policy, prompt, limit=self.sampling.limit, system=self.system)
        return Request(token, group_id=group, copy=copy, prefix_learnt=True, limit=self.window, about=prompt)

    def _restored(self, saved: Mapping[str, Any]) -> Waiting:
        request = self._request(self.prompts[saved["prompt"]], group=saved["group"], copy=saved["copy"])
        token = saved["token"].tolist()
        if token:
            request = replace(
                request,
                prefix=token,
                prefix_learnt=[True] * len(token),
                prefix_log_prob=saved["log_prob"].tolist(),
                prefix_version=saved["version"].tolist(),
                limit=min(self.window, self.sampling.limit - len(token)),
            )
        return Waiting(request, saved["value"].tolist())


def _placed(values: Sequence[Sequence[float]], batch: TensorDict) -> Float[Tensor, "row time"]:
    """A few values per row, put behind the row's prompt."""
    placed = torch.zeros_like(batch["behaviour_log_prob"])
    for row, (value, begin) in enumerate(zip(values, batch["prompt_length"].tolist(), strict=True)):
        placed[row, begin : begin + len(value)] = placed.new_tensor(value)
    return placed

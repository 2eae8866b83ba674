"""The generation engine: many answers at once, each prompt run once, no slot left idle.

Rows lie in slots. A row that has ended leaves, the last row takes its slot, and rows that wait are taken in
where slots are free; so the cost of a step is that of the rows that are being written. Every row draws from a
random stream of its own, chosen by its group and copy: what it says does not depend on the company it keeps
(to the last bit of a logit, which a product of another size may round differently).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import CapabilityError, DataError, SettingError
from policysmith.common.rng import derive, draw_seed
from policysmith.networks.products import linear
from policysmith.policies.language.decoders import Decoder, decoder
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.policies.language.sampling import Sampling, draw, stream

CACHE_BYTES = 1 << 30
"""Keys and values of all slots take at most so much, where the number of slots is not given."""

Combine = Callable[[Sequence[Float[Tensor, "row vocabulary"]]], Float[Tensor, "row vocabulary"]]
"""Logits of several models for the same texts -> the logits that are drawn from."""


class Engine(Protocol):
    """Whatever writes answers: this process, or a server behind the same call."""

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator, version: int = 0
    ) -> Samples:
        """Write an answer for every request; `version` is stamped on the tokens drawn now."""
        ...


class LocalEngine:
    """Writes with a policy in this process, under the weights it has at the time of the call.

    - `others`, `combine`: further models that read the same text, and how all their logits become those that
      are drawn from; `behaviour_log_prob` is then under the combination.
    - `slots`: rows written at once; None for as many as `CACHE_BYTES` holds.

    Raises `CapabilityError` where models have different vocabularies.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        *,
        others: Sequence[LanguagePolicy] = (),
        combine: Combine | None = None,
        slots: int | None = None,
    ) -> None:
        if slots is not None and slots < 1:
            raise SettingError(f"{slots} slots", expected="at least 1")
        if bool(others) != (combine is not None):
            raise SettingError("further models and `combine` go together", expected="both or neither")
        if wrong := [other for other in others if other.head.shape[0] != policy.head.shape[0]]:
            raise CapabilityError(
                f"vocabularies of {policy.head.shape[0]} and {wrong[0].head.shape[0]} tokens",
                expected="models with the same vocabulary: logits are combined token by token",
            )
        self.policies = [policy, *others]
        self.combine: Combine = combine if combine is not None else (lambda logits: logits[0])
        self.slots = slots

    def sample(
        self, requests: Sequence[Request], sampling: Sampling, *, rng: torch.Generator, version: int = 0
    ) -> Samples:
        """See `Engine`. Raises `DataError` or `SettingError` for rows that cannot be written, naming them."""
        requests = list(requests)
        limits = self._check(requests, sampling)
        with torch.inference_mode():
            run = _Run(self, requests, limits, sampling, seed=draw_seed(rng))
            run.go()
        written = run.written()
        policy = self.policies[0]
        texts = [policy.decode([*r.prefix, *w.token]) for r, w in zip(requests, written, strict=True)]
        batch = collate(requests, written, pad=policy.tokenizer.pad_token_id, version=version)
        return Samples(batch, requests, texts, steps=run.steps, prefilled=run.prefilled)

    def _check(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        """The limit of each row."""
        if not requests:
            raise DataError("nothing to write", expected="at least one request")
        known: set[tuple[int, int]] = set()
        context = min(policy.context for policy in self.policies)
        limits = [sampling.limit if request.limit is None else request.limit for request in requests]
        for request, limit in zip(requests, limits, strict=True):
            if (request.group_id, request.copy) in known:
                raise DataError(
                    "two rows have the same group and copy, and would draw the same random numbers",
                    where=request.name,
                    cure="number the copies of a group",
                )
            known.add((request.group_id, request.copy))
            given = len(request.prompt) + len(request.prefix)
            if given + limit > context:
                raise SettingError(
                    f"a prompt of {len(request.prompt)} tokens, a prefix of {len(request.prefix)} and a "
                    f"limit of {limit} do not fit the context",
                    where=request.name,
                    expected=f"at most {context} tokens together",
                    cure="drop or shorten the prompt" if given >= context else "lower the limit",
                )
        return limits

    def slots_for(self, rows: int, capacity: int) -> int:
        """How many rows of `capacity` tokens are written at once."""
        if self.slots is not None:
            return min(self.slots, rows)
        each = 0
        for policy in self.policies:
            config = policy.causal.config
            heads = config.num_attention_heads
            width = getattr(config, "head_dim", None) or config.hidden_size // heads
            kept = (getattr(config, "num_key_value_heads", None) or heads) * width
            each += 2 * config.num_hidden_layers * kept * policy.head.element_size()
        return max(1, min(rows, CACHE_BYTES // (each * capacity)))


class _Run:
    """One call of `sample`: who waits, who lies in which slot, what has been written."""

    def __init__(
        self,
        engine: LocalEngine,
        requests: list[Request],
        limits: list[int],
        sampling: Sampling,
        *,
        seed: int,
    ) -> None:
        self.requests, self.sampling, self.combine = requests, sampling, engine.combine
        policy = engine.policies[0]
        self.policy, self.device = policy, policy.device
        self.decoders: list[Decoder] = [decoder(each) for each in engine.policies]
        self.heads = [each.head for each in engine.policies]
        text, limit = max(len(request.text) for request in requests), max(limits)
        self.slots = engine.slots_for(len(requests), text + limit)
        for each in self.decoders:
            each.open(self.slots, text=text, limit=limit)
        self.can_join = all(each.can_join for each in self.decoders)
        self.limit = torch.tensor(limits, device=self.device)
        self.end = torch.tensor(policy.end_tokens, dtype=torch.long, device=self.device)
        shape = (len(requests), max(limits))
        self.uniform = torch.zeros(shape)
        for row, request in enumerate(requests):
            numbers = stream(derive(seed, request.group_id, request.copy), limits[row])
            self.uniform[row, : limits[row]] = numbers
        self.uniform = self.uniform.to(self.device)
        self.token = torch.zeros(shape, dtype=torch.long, device=self.device)
        self.log_prob = torch.zeros(shape, device=self.device)
        self.count = torch.zeros(len(requests), dtype=torch.long, device=self.device)
        self.finished = torch.zeros(len(requests), dtype=torch.bool, device=self.device)
        self.prefix_log_prob: dict[int, list[float]] = {}
        self.waiting = 0  # the first request that has not been taken in
        self.row = torch.zeros(0, dtype=torch.long, device=self.device)  # which request lies in each slot
        self.hidden = [head.new_zeros(0, head.shape[1]) for head in self.heads]
        self.stops = _StopStrings(policy, sampling.stop)
        self.steps = self.prefilled = 0

    def go(self) -> None:
        """Write until every request has its answer."""
        while self.waiting < len(self.requests) or len(self.row):
            self._take_in()
            token = self._draw()
            staying = self._let_go(token)
            if len(self.row):
                self.hidden = [each.step(token[staying]) for each in self.decoders]
                self.steps += 1

    def written(self) -> list[Written]:
        """What was drawn, per request."""
        token, log_prob = self.token.tolist(), self.log_prob.tolist()
        counts, finished = self.count.tolist(), self.finished.tolist()
        return [
            Written(token[row][:count], log_prob[row][:count], done, self.prefix_log_prob.get(row))
            for row, (count, done) in enumerate(zip(counts, finished, strict=True))
        ]

    def _take_in(self) -> None:
        """Fill free slots, once there are enough of them to be worth a call of the model."""
        free = min(self.slots - len(self.row), len(self.requests) - self.waiting)
        worth = len(self.row) == 0 or (
            self.can_join and free >= min(len(self.requests) - self.waiting, self.slots // 8)
        )
        if free == 0 or not worth:
            return
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row in range(self.waiting, self.waiting + free):
            rows_of.setdefault(tuple(self.requests[row].text), []).append(row)
        self.waiting += free
        texts, rows = list(rows_of), list(rows_of.values())
        states = [each.admit(texts, [len(group) for group in rows]) for each in self.decoders]
        self.prefilled += sum(map(len, texts))
        for index, group in enumerate(rows):
            self._score_prefixes(group, [of_model[index] for of_model in states])
        copies = torch.tensor([len(group) for group in rows], device=self.device)
        for model, of_model in enumerate(states):
            last = torch.stack([hidden[-1] for hidden in of_model]).repeat_interleave(copies, dim=0)
            self.hidden[model] = torch.cat([self.hidden[model], last])
        taken = torch.tensor([row for group in rows for row in group], device=self.device)
        self.row = torch.cat([self.row, taken])

    def _score_prefixes(self, rows: list[int], states: list[Tensor]) -> None:
        """Log-probabilities of prefixes that are learnt from and that nobody recorded."""
        for row in rows:
            request = self.requests[row]
            if request.prefix_log_prob is not None or not any(request.learnt):
                continue
            begin, end = len(request.prompt) - 1, len(request.text) - 1
            target = torch.tensor(list(request.prefix), device=self.device)
            parts = []
            for start in range(begin, end, 64):  # a few positions at a time: logits are wide
                at = slice(start, min(start + 64, end))
                log_p = (
                    self._logits([hidden[at] for hidden in states]) / (self.sampling.temperature or 1)
                ).log_softmax(1)
                parts.append(log_p.gather(1, target[at.start - begin : at.stop - begin, None])[:, 0])
            self.prefix_log_prob[row] = torch.cat(parts).tolist()

    def _logits(self, hidden: Sequence[Tensor]) -> Tensor:
        products = [linear(states, head) for states, head in zip(hidden, self.heads, strict=True)]
        return self.combine(products).float()

    def _draw(self) -> Int[Tensor, "active"]:
        at = self.count[self.row]
        token, log_prob = draw(self._logits(self.hidden), self.uniform[self.row, at], self.sampling)
        self.token[self.row, at] = token
        self.log_prob[self.row, at] = log_prob
        self.count[self.row] += 1
        return token

    def _let_go(self, token: Tensor) -> Tensor:
        """Empty the slots of rows that have ended; returns which slots' rows now lie in slots 0, 1, ..."""
        ended = torch.isin(token, self.end) | self.stops.complete(self, token)
        self.finished[self.row] = ended
        leaving = ended | (self.count[self.row] >= self.limit[self.row])
        order = torch.arange(len(token), device=self.device)
        if not bool(leaving.any()):
            return order
        active = int((~leaving).sum())
        target = leaving[:active].nonzero()[:, 0]
        source = active + (~leaving[active:]).nonzero()[:, 0]
        order[target] = source
        order = order[:active]
        self.row = self.row[order]
        for each in self.decoders:
            each.move(source.tolist(), target.tolist(), active)
        self.hidden = [hidden[:0] for hidden in self.hidden]
        return order


class _StopStrings:
    """Finds the rows whose newest token completes a stop string."""

    def __init__(self, policy: LanguagePolicy, stop: Sequence[str]) -> None:
        self.policy, self.stop = policy, stop
        # A character is at most four bytes, and a token at least one.
        self.tail = 4 * max(map(len, stop), default=0)
        self.pieces: dict[int, str] = {}

    def complete(self, run: _Run, token: Tensor) -> Tensor:
        """Which slots' rows end with their newest token."""
        if not self.stop:
            return torch.zeros_like(token, dtype=torch.bool)
        rows, counts = run.row.tolist(), run.count[run.row].tolist()
        return torch.tensor(
            [self._ends(run, *row) for row in zip(token.tolist(), rows, counts, strict=True)],
            device=token.device,
        )

    def _ends(self, run: _Run, token: int, row: int, count: int) -> bool:
        if token not in self.pieces:
            self.pieces[token] = self.policy.decode([token])
        piece = self.pieces[token]
        # Most tokens hold no last character of a stop string, and part of a character shows as U+FFFD.
        if not any(stop[-1] in piece or "\ufffd" in piece for stop in self.stop):
            return False
        drawn = run.token[row, max(0, count - self.tail - 1) : count].tolist()
        # A stop string may have begun in the prefix, where an earlier call was cut off in the middle of it.
        given = list(run.requests[row].prefix)[-(self.tail + 1) :] if count <= self.tail else []
        now = self.policy.decode([*given, *drawn])
        before = self.policy.decode([*given, *drawn[:-1]])
        return any(now.count(stop) > before.count(stop) for stop in self.stop)

"""A sampler that answers from a script, scored like any other, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable

import torch

from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import Groups, encode_prompt
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Request, Samples, Written, collate
from policysmith.rewards.scored import score
from policysmith.rewards.scoring import Scoring

Script = Callable[[Prompt, int], str]
"""(the prompt, the copy) -> what is answered."""


class Scripted:
    """Answers `script`; `asked` holds the text of every prompt, call by call."""

    def __init__(self, policy: LanguagePolicy, script: Script, scoring: Scoring, *, copies: int) -> None:
        self.policy, self.script, self.scoring, self.copies = policy, script, scoring, copies
        self.asked: list[list[str]] = []

    def __call__(
        self, groups: Groups, *, rng: torch.Generator, version: int = 0, copies: int | None = None
    ) -> Samples:
        self.asked.append([str(prompt.text) for prompt in groups.values()])
        requests, written, texts = [], [], []
        for group, prompt in groups.items():
            for copy in range(self.copies if copies is None else copies):
                text = self.script(prompt, copy)
                token = [*self.policy.encode(text), self.policy.end_tokens[0]]
                requests.append(
                    Request(encode_prompt(self.policy, prompt), group_id=group, copy=copy, about=prompt)
                )
                written.append(Written(token, [-0.5] * len(token), True))
                texts.append(text)
        batch = collate(requests, written, pad=self.policy.tokenizer.pad_token_id, version=version)
        return score(Samples(batch, requests, texts), self.scoring)

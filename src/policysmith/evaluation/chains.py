"""What makes a chain of thought a good example: it is likely under the policy, and it leads to the answer.

    found = chain_quality(policy, [Chain(prompt, "12+73=85;85-35=50;#", "50")])
    found.surprise, found.answer_log_prob

A step of gradient on a chain moves a policy the less, the less likely the chain is under it, however right it
may be; and it helps with the question as far as the chain makes the answer likely. Both are to be compared
between sources of chains (the policy's own, its explanations, an expert's), on the same questions.

Source: Zhou et al. 2025 (ExPO), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from policysmith.common.errors import DataError
from policysmith.experience.prompts import Prompt
from policysmith.experience.rollouts import encode_prompt
from policysmith.policies.language.policy import LanguagePolicy


@dataclass(frozen=True)
class Chain:
    """A question, a chain of thought up to where its answer begins, and the right answer as it is written."""

    prompt: Prompt
    text: str
    answer: str


@dataclass(frozen=True)
class ChainQuality:
    """`surprise`: minus the mean log-probability of a chain's tokens, given the question, in nats per token.

    `answer_log_prob`: log-probability of the right answer, given the question and the chain, in nats.
    """

    surprise: Float[Tensor, "chain"]
    answer_log_prob: Float[Tensor, "chain"]


def chain_quality(policy: LanguagePolicy, chains: Sequence[Chain], *, system: str = "") -> ChainQuality:
    """Both properties of each chain under the policy, on the question as it is asked.

    Raises `DataError` naming a chain without text or answer, or that does not fit the context.
    """
    if not chains:
        raise DataError("there are no chains", expected="at least one")
    parts = [_parts(policy, chain, row, system) for row, chain in enumerate(chains)]
    shape = (len(parts), max(sum(map(len, three)) for three in parts))
    token = torch.full(shape, policy.tokenizer.pad_token_id)
    of_chain, of_answer, attended = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for row, (question, text, answer) in enumerate(parts):
        begin, middle = len(question), len(question) + len(text)
        end = middle + len(answer)
        token[row, :end] = torch.tensor([*question, *text, *answer])
        attended[row, :end] = True
        of_chain[row, begin:middle] = True
        of_answer[row, middle:end] = True
    device = policy.device
    with torch.no_grad():
        log_prob, _ = policy.log_prob(
            token.to(device), attended.to(device), mask=(of_chain | of_answer).to(device)
        )
    log_prob = log_prob.float().cpu()
    surprise = -(log_prob * of_chain).sum(1) / of_chain.sum(1)
    return ChainQuality(surprise, (log_prob * of_answer).sum(1))


def _parts(
    policy: LanguagePolicy, chain: Chain, row: int, system: str
) -> tuple[list[int], list[int], list[int]]:
    where = f"chain {row}, of the prompt {str(chain.prompt.text)[:80]!r}"
    question = encode_prompt(policy, chain.prompt, system=system)
    text, answer = policy.encode(chain.text), policy.encode(chain.answer)
    if not text or not answer:
        raise DataError("a chain or its answer is empty", where=where, expected="text for both")
    if len(question) + len(text) + len(answer) > policy.context:
        raise DataError(
            f"{len(question) + len(text) + len(answer)} tokens of question, chain and answer",
            where=where,
            expected=f"at most {policy.context}, the policy's context",
        )
    return question, text, answer

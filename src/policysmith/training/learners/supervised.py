"""The supervised learner of language policies: next-token cross-entropy on answers, prompts given.

    loss = - sum over answer tokens of log pi(token | prompt, answer so far) / number of answer tokens

All answer tokens of an optimiser batch count alike, its end token among them; a prompt's tokens are read and
not learnt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.experience.examples import Example, Examples, ExampleSampler
from policysmith.objectives.averaging import token_mean_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learner import Learner, Loss, cosine_schedule
from policysmith.training.loop import Progress, RunState, run, step_policy


@dataclass(frozen=True)
class SupervisedSettings:
    """How examples are imitated.

    - `steps`, `batch_size`: optimiser steps, and examples in each; `micro_batch`: at most so many of them go
      through the model at once, None for all.
    - `learning_rate`, `weight_decay`: of AdamW; the rate rises over `warmup_steps`, then falls to 0 by a
      cosine.
    - `max_grad_norm`: the gradient's norm is clipped to it.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if not self.max_grad_norm > 0:
            raise SettingError(f"max_grad_norm is {self.max_grad_norm}", expected="above 0")


def supervised_batch(policy: LanguagePolicy, examples: Sequence[Example]) -> TensorDict:
    """Examples as `token`, `attended`, `mask` and `weight` [row, time]; see `common.keys`.

    Raises `DataError` naming the example that is longer than the policy's context.
    """
    rows = []
    for example in examples:
        prompt = policy.encode_question(example.prompt)
        answer = [*policy.encode(example.answer), policy.end_tokens[0]]
        if len(prompt) + len(answer) > policy.context:
            raise DataError(
                f"an example of {len(prompt)} and {len(answer)} tokens is longer than the policy's context",
                where=f"the example {example.prompt[:80]!r}",
                expected=f"at most {policy.context} tokens together",
                cure="shorten or drop the example",
            )
        rows.append((prompt, answer))
    shape = (len(rows), max(len(prompt) + len(answer) for prompt, answer in rows))
    token = torch.full(shape, policy.tokenizer.pad_token_id)
    attended, mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        token[row, :end] = torch.tensor([*prompt, *answer])
        attended[row, :end] = True
        mask[row, len(prompt) : end] = True
    batch = {"token": token, "attended": attended, "mask": mask, "weight": token_mean_weight(mask)}
    return TensorDict(batch, batch_size=[len(rows)]).to(policy.device)


def supervised_loss(
    policy: LanguagePolicy, batch: TensorDict
) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
    """Minus the log-probability of each answer token, in nats, and the entropy it was predicted with."""
    log_prob, entropy = policy.log_prob(batch["token"], batch["attended"], mask=batch["mask"])
    return -log_prob, {"entropy": entropy}


def mean_loss(policy: LanguagePolicy, examples: Sequence[Example], *, at_a_time: int = 64) -> float:
    """The loss of examples in nats per answer token, all tokens alike, without gradient."""
    total, tokens = 0.0, 0
    for begin in range(0, len(examples), at_a_time):
        batch = supervised_batch(policy, examples[begin : begin + at_a_time])
        with torch.no_grad():
            values, _ = supervised_loss(policy, batch)
        total += float(values[batch["mask"]].sum())
        tokens += int(batch["mask"].sum())
    return total / tokens


def supervised_learner(
    module: nn.Module, settings: SupervisedSettings, *, loss: Loss = supervised_loss
) -> Learner:
    """AdamW on a module's trainable weights, by default a policy's, under the loss of examples or another."""
    optimizer = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return Learner(
        module,
        loss,
        optimizer=optimizer,
        schedule=cosine_schedule(warmup=settings.warmup_steps, total=settings.steps),
        max_grad_norm=settings.max_grad_norm,
        micro_batch=settings.micro_batch,
    )


def supervised_run(
    policy: LanguagePolicy,
    examples: Examples,
    *,
    settings: SupervisedSettings,
    seed: int,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit `policy` to `examples`, in place; see `run`. What does not learn (a frozen base) stays as it is."""
    learner = supervised_learner(policy, settings)
    sampler = ExampleSampler(examples, rng=generator(seed, "examples"))
    run_state = RunState(
        learners={"policy": learner},
        generators={"examples": sampler.rng},
        sources={"examples": sampler},
    ).restored(state)
    return run(
        run_state,
        collect=lambda state: supervised_batch(policy, sampler.sample(settings.batch_size)),
        update=step_policy,
        steps=settings.steps,
    )

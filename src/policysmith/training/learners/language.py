"""The language learner: answers are sampled, scored and labelled, and the policy takes steps on their tokens.

    collect   draw prompts -> sampler -> rewards -> filter -> reference -> label (advantages)
    update    cut into optimiser batches -> prepare -> weight per token -> loss per token -> step

Each word is a function that a method may put its own in place of; `language_run` puts them together:

    sampler    groups of prompts -> `Samples` with rewards (`experience.rollouts`); methods wrap the usual one
    label      `Samples` -> `Samples` that know what they are worth, `advantage` [row, 1] or [row, time]
    loss       (log_prob, entropy, batch) -> a value per token, and statistics
    prepare    what is chosen over a whole optimiser batch before it is cut, such as tokens to leave out
    weight     what each token counts (`objectives.averaging`)
    reference  a policy that does not learn; its log-probabilities come with the batch
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from policysmith.common.rng import generator, seeded_initialisation
from policysmith.experience.prompts import Prompts, PromptSampler
from policysmith.experience.rollouts import Sampler
from policysmith.experience.world_prompts import table_of
from policysmith.objectives.averaging import token_mean_weight
from policysmith.policies.language.memory import check_memory, training_memory
from policysmith.policies.language.models import open_policy
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training import processes
from policysmith.training.learners.language_collect import (
    collecting,
    usual_sampler,
)
from policysmith.training.learners.language_settings import (
    Label,
    LanguageSettings,
    Prepare,
    Reward,
    TokenLoss,
    Weight,
)
from policysmith.training.learners.language_update import frozen_reference, policy_learner, updating
from policysmith.training.loop import Progress, RunState, Stateful, run


def language_run(
    model: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    settings: LanguageSettings,
    label: Label,
    loss: TokenLoss,
    weight: Weight = lambda batch: token_mean_weight(batch["mask"]),
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    prepare: Prepare | None = None,
    reference: bool = False,
    sources: Mapping[str, Stateful] = MappingProxyType({}),
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train the model on its own scored answers; see the module for what the functions are.

    A model given as a folder or a name is loaded; a policy is trained in place. `wrap` makes the method's
    sampler of the usual one, whose answers come with their rewards; `reward` is None where that sampler has
    rewards of its own. Prompts that are episodes of a world (`experience.world_prompts`) are played, and the
    world pays. With `reference`, the policy as given stays beside the one that learns (for adapters, the
    model without them). `sources` are what the method's functions remember from step to step; they are saved
    with the run.
    """
    policy = opened(model, settings, seed=seed)
    before = frozen_reference(policy, temperature=settings.temperature) if reference else None
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    answers = generator(seed, "answers")
    sampler = usual_sampler(policy, reward, settings, wrap=wrap, table=table_of(prompts))
    run_state = RunState(
        learners={"policy": policy_learner(policy, loss, settings)},
        generators={"prompts": source.rng, "answers": answers, "update": generator(seed, "update")},
        sources={"prompts": source, **sources},
    ).restored(state)
    return run(
        run_state,
        collect=collecting(source, sampler, label, settings, rng=answers, reference=before),
        update=updating(weight, settings, prepare=prepare),
        steps=settings.steps,
    )


def opened(
    model: LanguagePolicy | str | os.PathLike[str], settings: LanguageSettings, *, seed: int
) -> LanguagePolicy:
    """The policy that a language run trains: see `opened_for`."""
    rows = settings.micro_batch or math.ceil(
        settings.prompts * settings.group_size / settings.optimizer_steps / processes.count()
    )
    return opened_for(
        model, lora_rank=settings.lora_rank, rows=rows, answer_limit=settings.answer_limit, seed=seed
    )


def opened_for(
    model: LanguagePolicy | str | os.PathLike[str],
    *,
    lora_rank: int,
    rows: int,
    answer_limit: int,
    seed: int,
) -> LanguagePolicy:
    """The policy that a run trains: loaded where a folder or name is given, with adapters where asked.

    Raises `SettingError` where a step on `rows` rows, of answers up to `answer_limit` tokens behind prompts
    as long, would not fit into memory, with the estimate.
    """
    policy = model if isinstance(model, LanguagePolicy) else open_policy(model)
    if lora_rank and not policy.has_lora:
        with seeded_initialisation(seed):
            policy = policy.with_lora(lora_rank)
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    check_memory(
        training_memory(policy, micro_batch=rows, length=min(policy.context, 2 * answer_limit)),
        policy.device,
        held=weights,
    )
    return policy

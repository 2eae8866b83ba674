"""Direct preference optimisation of a language policy, on pairs made of what a reference writes.

    collect   prompts -> answers of the reference -> rewards -> pairs -> their log-probabilities there
    update    steps on -log sigmoid(beta (log-ratio of the chosen - log-ratio of the rejected))

The reference is the policy at the start of a round: a round without end is offline learning from what the
starting model wrote, short rounds keep the pairs likely under the policy that learns from them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import DataError, SettingError
from policysmith.common.rng import generator
from policysmith.experience.prompts import Prompts, PromptSampler
from policysmith.experience.rollouts import Sampler, correctness
from policysmith.objectives.preferences import dpo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.training.learner import Loss
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_collect import gathered, shown, usual_sampler
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.language_update import adam_learner, logged, optimiser_batches
from policysmith.training.learners.references import MovableReference
from policysmith.training.loop import Progress, RunState, Stateful, run

Pairs = Callable[[Samples], tuple[Samples, Samples]]
"""Answers with rewards -> chosen and rejected rows, as many of one as of the other."""

SIDES = ("chosen", "rejected")


def preference_run(
    model: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    settings: LanguageSettings,
    pairs: Pairs,
    beta: float,
    round_steps: int = 0,
    wrap: Callable[[Sampler, LanguagePolicy], Sampler] = lambda sampler, policy: sampler,
    column: str = "",
    sources: Mapping[str, Stateful] = MappingProxyType({}),
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train the model on pairs of what it wrote at the start of each round.

    - `pairs`: chooses among the answers of a rollout; `wrap`: makes the method's sampler of the usual one.
    - `beta`: weight of the divergence from the reference.
    - `round_steps`: steps in a round; 0: one round without end.
    - `column`: the reward that says whether an answer is right, where there are several.
    - `sources`: what the method's functions remember from step to step.

    Raises `DataError` for a rejected answer that is right, and where no question gives a pair.
    """
    if not beta > 0 or round_steps < 0:
        raise SettingError(
            f"beta {beta} and rounds of {round_steps} steps", expected="beta above 0, and 0 or more steps"
        )
    policy = opened(model, settings, seed=seed)
    reference = MovableReference(policy, temperature=settings.temperature)
    sampler = usual_sampler(reference.policy, reward, settings, wrap=wrap)
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    answers = generator(seed, "answers")

    def collect(state: RunState) -> TensorDict:
        if round_steps and state.step % round_steps == 0:
            reference.take()
        for _ in range(settings.rounds):
            samples = gathered(source, sampler, settings, rng=answers, version=state.step)
            chosen, rejected = pairs(samples)
            if len(chosen):
                break
        else:
            raise DataError(
                f"no question of {settings.rounds} rollouts gave a pair",
                cure="take questions that are neither always nor never answered well",
            )
        state.shown = shown(samples)
        check_rejected(rejected, column)
        batch = pair_batch(chosen, rejected, reference)
        metrics = {"pairs": float(len(batch)), **logged(samples.batch)}
        batch["log"] = {name: torch.full((len(batch),), value) for name, value in metrics.items()}
        return batch

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        parts = optimiser_batches(
            batch.exclude("log"), settings.optimizer_steps, rng=state.generators["update"]
        )
        taken = [state.learners["policy"].step(part) for part in parts]
        return logged(batch) | {name: sum(one[name] for one in taken) / len(taken) for name in taken[0]}

    loss = pair_loss(beta=beta, temperature=settings.temperature)
    run_state = RunState(
        learners={"policy": adam_learner(policy, loss, settings)},
        generators={"prompts": source.rng, "answers": answers, "update": generator(seed, "update")},
        sources={"prompts": source, "reference": reference, **sources},
    ).restored(state)
    return run(run_state, collect=collect, update=update, steps=settings.steps)


def pair_batch(chosen: Samples, rejected: Samples, reference: Callable[[TensorDict], Tensor]) -> TensorDict:
    """Pairs as rows: `chosen` and `rejected`, each with its tokens and the sum of `reference_log_prob`."""
    batch = TensorDict({"group_id": chosen.batch["group_id"]}, batch_size=[len(chosen)])
    for side, samples in zip(SIDES, (chosen, rejected), strict=True):
        part = samples.batch.select("token", "attended", "mask")
        part["reference_log_prob"] = reference(part).sum(1)
        batch[side] = part
    return batch


def pair_loss(*, beta: float, temperature: float = 1.0) -> Loss:
    """The loss of each pair; says how far apart its sides are, and whether the right way round."""

    def loss(policy: LanguagePolicy, batch: TensorDict) -> tuple[Float[Tensor, "pair"], dict[str, Tensor]]:
        chosen, rejected = (_whole_log_prob(policy, batch[side], temperature) for side in SIDES)
        reference = [batch[side, "reference_log_prob"] for side in SIDES]
        margin = beta * ((chosen - reference[0]) - (rejected - reference[1])).detach()
        return dpo_loss(chosen, rejected, *reference, beta=beta), {
            "margin": margin,
            "ordered": (margin > 0).float(),
        }

    return loss


def check_rejected(rejected: Samples, column: str = "") -> None:
    """Raise `DataError` naming the first rejected answer that is right."""
    for row, score in enumerate(correctness(rejected, column).tolist()):
        if score > 0:
            raise DataError(
                "the rejected answer of a pair is right",
                where=f"prompt {str(rejected.about[row].text)[:80]!r}, answer {rejected.texts[row][:80]!r}",
                expected="a wrong one",
            )


def _whole_log_prob(policy: LanguagePolicy, side: TensorDict, temperature: float) -> Float[Tensor, "pair"]:
    log_prob, _ = policy.log_prob(side["token"], side["attended"], mask=side["mask"], temperature=temperature)
    return log_prob.sum(1)

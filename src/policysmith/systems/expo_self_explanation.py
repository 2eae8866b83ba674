"""ExPO: the policy explains the known answer, and learns its explanation as if it had not been told.

Where every answer to a question is wrong, group-relative learning has nothing to go by. Solutions by experts
are right but unlikely under the policy, and a step towards an unlikely sequence moves little. What the policy
itself writes with the answer a* in view is both likely and a path to the answer. With c~ ~ pi(. | q, a*):

    J = J_GRPO + beta E[log pi(c~, a* | q)]

The explanation is scored on the bare question, is no member of the group and has no advantage or ratio. With
`beta` 0 this is `grpo`. The other variant prefers the explanation to a wrong answer of the policy's own, by
direct preference optimisation (`variant` dpo). Other help from a known answer: `ghpo` learns what is written
behind a hint, with the hint; `critique-grpo` learns refinements by their advantage.

Reference: Zhou et al. 2025, ExPO: Unlocking Hard Reasoning with Self-Explanation-Guided Reinforcement
Learning (2507.02834).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args, get_type_hints

from policysmith.common.errors import SettingError
from policysmith.experience.explanations import (
    EXPLAIN,
    Notebook,
    answer_in_view,
    check_answers,
    explained_pairs,
    explaining,
    imitating,
    kept,
    reciting,
)
from policysmith.experience.guidance import check_solutions
from policysmith.experience.prompts import Prompts
from policysmith.experience.rollouts import Sampler
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.averaging import sequence_mean_weight, sequence_sum_weight, token_mean_weight
from policysmith.objectives.preferences import dpo_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.group_relative import clipped, group_relative, with_kl
from policysmith.training.learners.imitation import apart, imitation_weight, with_imitation
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.preference import on_pairs
from policysmith.training.learners.preference_rounds import preference_rounds
from policysmith.training.loop import Progress, RunState

REDUCTIONS = {
    "token_mean": token_mean_weight,
    "sequence_mean": sequence_mean_weight,
    "sum": sequence_sum_weight,
}
"""How the log-likelihood of the explanations' tokens is put together."""


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the paper where it states them: beta (table 5) and the form of the loss.

    - `variant`: `grpo` (ExP-GRPO) or `dpo` (ExP-DPO).
    - `clip`, `kl`: range of the ratio on either side, and weight of the divergence from the model at the
      start; with group size and learning rate the usual values of GRPO, which the paper does not give.
    - `beta`: weight of the explanations' log-likelihood. It falls linearly to 0 over `anneal_steps` steps; 0:
      it stays.
    - `reduction`: `token_mean` over all explanations, so that beta does not depend on their length;
      `sequence_mean`: the mean of each, then of all; `sum`: the log-probability of whole explanations, as the
      paper's formula is printed.
    - `explanation`: how one is asked for, with `{question}` and `{answer}`.
    - `closing`: put behind an explanation that does not end in the right answer, with `{answer}`; empty: it
      stays as it is. `only_right`: leave such explanations out.
    - `only_failed`: explain only where no answer of the group is right. `right`: the reward that says what
      is, where there are several.
    - `refresh_every`: use an explanation for so many steps; 0: the first one for good.
    - `preference`: of `dpo`, the weight of the divergence from the policy at the start of the round (usual
      value); `round_steps`: steps in a round, 0: one without end (offline).
    - `chains`: `explanation`, or `solution` for the written ones of `data["solution"]` in their place, which
      is what the paper compares with.
    """

    variant: Literal["grpo", "dpo"] = "grpo"
    prompts: int = 128
    group_size: int = 8
    answer_limit: int = 1024
    learning_rate: float = 1e-6
    clip: float = 0.2
    kl: float = 0.001
    beta: float = 0.04
    anneal_steps: int = 0
    reduction: Literal["token_mean", "sequence_mean", "sum"] = "token_mean"
    explanation: str = EXPLAIN
    closing: str = "\nThe answer is {answer}."
    only_right: bool = False
    only_failed: bool = False
    right: str = ""
    refresh_every: int = 1
    chains: Literal["explanation", "solution"] = "explanation"
    preference: float = 0.1
    round_steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "kl", "anneal_steps", "refresh_every"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        for name in ("variant", "reduction", "chains"):
            words = get_args(get_type_hints(Config)[name])
            if getattr(self, name) not in words:
                raise SettingError(
                    f"{name} is '{getattr(self, name)}'", expected=f"one of {', '.join(words)}"
                )
        if self.variant == "dpo" and (self.beta == 0 or self.anneal_steps):
            raise SettingError(
                "pairs need an explanation at every step", expected="beta above 0 and anneal_steps 0"
            )

    def weight(self, step: int) -> float:
        """What the likelihood of an explanation counts at a step."""
        return self.beta * max(0.0, 1 - step / self.anneal_steps) if self.anneal_steps else self.beta


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=16, answer_limit=48, steps=100, learning_rate=3e-4, kl=0.0, closing="", only_right=True
    ),
    "tiny": Config(prompts=2, group_size=2, answer_limit=4, optimizer_steps=2, steps=6, refresh_every=2),
}
"""The paper's, a laptop's for a small model learnt from scratch, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model on its scored answers and on its explanations of the right ones.

    Raises `DataError` naming a question without an answer (or solution) to learn from.
    """
    check_answered(prompts, "it explains how a right answer follows from its prompt")
    if config.chains == "explanation":
        check_answers(prompts)
    else:
        check_solutions(prompts)
    notebook = Notebook()

    def explained(sampler: Sampler, policy: LanguagePolicy) -> Sampler:
        return imitating(
            sampler,
            kept(chains(sampler, policy, config), notebook, refresh_every=config.refresh_every),
            weight=config.weight,
            only_failed=config.only_failed,
            column=config.right,
            name=config.chains,
        )

    if config.variant == "dpo":
        return preference_rounds(
            policy,
            prompts,
            reward,
            settings=config,
            build=partial(explained_pairs, column=config.right),
            loss=on_pairs(partial(dpo_loss, beta=config.preference)),
            take_every=config.round_steps,
            writer="reference",
            wrap=explained,
            sources={"explanations": notebook},
            seed=seed,
            state=state,
        )
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        wrap=explained,
        label=apart(group_relative()),
        loss=with_imitation(with_kl(clipped(low=config.clip, high=config.clip), config.kl)),
        weight=imitation_weight(sequence_mean_weight, REDUCTIONS[config.reduction]),
        reference=config.kl > 0,
        sources={"explanations": notebook},
        seed=seed,
        state=state,
    )


def chains(sampler: Sampler, policy: LanguagePolicy, config: Config) -> Sampler:
    """What is imitated: explanations, or written solutions."""
    if config.chains == "solution":
        return reciting(policy, system=config.system)
    return explaining(
        sampler,
        policy,
        ask=answer_in_view(config.explanation),
        closing=config.closing,
        only_right=config.only_right,
        column=config.right,
        system=config.system,
    )

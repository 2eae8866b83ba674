"""TON: think or not; thoughts are made optional by examples, and reinforcement finds when one is needed.

A model that has learnt to think thinks about everything. TON has two stages in one run:

    examples    thought and answer in their tags; each thought emptied with probability p (thought dropout)
    rewards     group-relative learning with the reward of the answer plus that of the form, nothing on length

Each answer counts the mean over its tokens, so that a short one pushes harder per token than a long one:
where both are right, the one that skips its thought gains. One update per rollout, unclipped; the divergence
is from the model at the end of the first stage. Without dropout (`dropout` 0) the second stage is plain
`grpo`, which keeps thinking.

Of the paper, which trains vision-language models, what concerns language is here; questions with images
are not taken.

Reference: Wang et al. 2025, Think or Not? Selective Reasoning via Reinforcement Learning for Vision-Language
Models (2505.16854).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tensordict import TensorDict

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.experience.examples import ExampleSampler
from policysmith.experience.prompts import Prompts, PromptSampler
from policysmith.experience.thoughts import Layout, thinking_examples, thought_dropout
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.averaging import sequence_mean_weight, token_mean_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.form import form
from policysmith.rewards.scoring import Scoring
from policysmith.training.learner import Learner
from policysmith.training.learners.group_relative import group_relative, reinforce, then, with_kl
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_collect import as_scoring, collecting, usual_sampler
from policysmith.training.learners.language_settings import LanguageSettings, Reward
from policysmith.training.learners.language_update import policy_learner, updating
from policysmith.training.learners.references import MovableReference
from policysmith.training.learners.supervised import (
    SupervisedSettings,
    supervised_batch,
    supervised_learner,
)
from policysmith.training.loop import Progress, RunState, run

EXAMPLES, REWARDS = "examples", "rewards"
"""The stages, as `RunState.phase` calls them."""

AVERAGES = {"sequence": sequence_mean_weight, "token": token_mean_weight}
"""Mean of each answer's tokens, then of the answers; or of all tokens, under which length has no pull."""


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the authors' code; what it does not set (steps, stage 1) is said to be ours.

    - `steps`: of both stages together; they begin with the first one's `imitation_steps`, on batches of
      `imitation_batch` examples at `imitation_learning_rate`, behind a rise over `imitation_warmup` (ours).
    - `dropout`: probability that a thought is emptied, drawn once per example (0.5).
    - `beta`: weight of the divergence (0.04, the default of the library the authors use).
    - `eps`: beside the group's deviation (1e-4).
    - `average`: `sequence`, or `token` to see what the choice does.
    - `thought`: the column of `Prompt.data` that has the thought; `think_tags`,
      `answer_tags`: what stands around thought and answer.
    """

    steps: int = 1000
    prompts: int = 16
    group_size: int = 8
    answer_limit: int = 2048
    learning_rate: float = 1e-6
    imitation_steps: int = 500
    imitation_batch: int = 16
    imitation_learning_rate: float = 1e-5
    imitation_warmup: int = 50
    dropout: float = 0.5
    beta: float = 0.04
    eps: float = 1e-4
    average: Literal["sequence", "token"] = "sequence"
    thought: str = "thought"
    think_tags: tuple[str, str] = ("<think>", "</think>")
    answer_tags: tuple[str, str] = ("<answer>", "</answer>")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout <= 1:
            raise SettingError(f"dropout is {self.dropout}", expected="0 to 1")
        if self.average not in AVERAGES:
            raise SettingError(f"the average '{self.average}'", expected=f"one of {', '.join(AVERAGES)}")
        if self.optimizer_steps != 1:
            raise SettingError(
                f"{self.optimizer_steps} optimiser steps per rollout",
                expected="1: there is no ratio to the policy that sampled",
            )
        if self.imitation.steps >= self.steps:
            raise SettingError(
                f"{self.imitation.steps} of {self.steps} steps are for the first stage",
                expected="fewer than all",
            )

    @property
    def layout(self) -> Layout:
        """How an answer is written."""
        return Layout(self.think_tags, self.answer_tags)

    @property
    def imitation(self) -> SupervisedSettings:
        """The first stage."""
        return SupervisedSettings(
            steps=self.imitation_steps,
            batch_size=self.imitation_batch,
            learning_rate=self.imitation_learning_rate,
            warmup_steps=self.imitation_warmup,
        )


PRESETS = {
    "paper": Config(),
    "bench": Config(
        steps=400,
        imitation_steps=300,
        imitation_batch=64,
        imitation_learning_rate=1e-3,
        imitation_warmup=20,
        answer_limit=48,
        learning_rate=3e-4,
        beta=0.0,
        thought="solution",
    ),
    "tiny": Config(
        steps=6,
        imitation_steps=2,
        imitation_batch=2,
        imitation_learning_rate=1e-3,
        imitation_warmup=1,
        prompts=2,
        group_size=2,
        answer_limit=4,
        thought="solution",
    ),
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
    """Imitate the prompts' thoughts and answers with dropout, then learn from `reward` and the form.

    `reward` judges a whole answer: let it look between the answer's tags (`rewards.verifiers.between`).
    Raises `DataError` naming a question without a thought or an answer.
    """
    check_answered(prompts, "the form of thought and answer is that of a single answer")
    layout = config.layout
    examples = thought_dropout(
        thinking_examples(prompts, layout, column=config.thought),
        probability=config.dropout,
        rng=generator(seed, "dropout"),
        layout=layout,
    )
    trained = opened(policy, config, seed=seed)
    imitated = ExampleSampler(examples, rng=generator(seed, "examples"))
    source = PromptSampler(prompts, rng=generator(seed, "prompts"))
    answers = generator(seed, "answers")
    reference = MovableReference(trained, temperature=config.temperature)
    run_state = RunState(
        learners={"policy": learner_of(phase_of(state), trained, config)},
        generators={
            "examples": imitated.rng,
            "prompts": source.rng,
            "answers": answers,
            "update": generator(seed, "update"),
        },
        sources={"examples": imitated, "prompts": source, "reference": reference},
        phase=EXAMPLES,
    ).restored(state)
    collect_answers = collecting(
        source,
        usual_sampler(trained, with_form(reward, layout), config),
        then(logging_skips(layout), group_relative(eps=config.eps)),
        config,
        rng=answers,
        reference=reference if config.beta > 0 else None,
    )
    update_on_answers = updating(lambda batch: AVERAGES[config.average](batch["mask"]), config)

    def collect(state: RunState) -> TensorDict:
        if state.step < config.imitation.steps:
            return supervised_batch(trained, imitated.sample(config.imitation.batch_size))
        if state.phase == EXAMPLES:
            state.phase = REWARDS
            state.learners["policy"] = learner_of(REWARDS, trained, config)
            reference.take()
        return collect_answers(state)

    def update(state: RunState, batch: TensorDict) -> dict[str, float]:
        if state.phase == EXAMPLES:
            return state.learners["policy"].step(batch)
        return update_on_answers(state, batch)

    return run(run_state, collect=collect, update=update, steps=config.steps)


def phase_of(state: RunState | Mapping[str, Any] | None) -> str:
    """The stage that a saved run is in; the first one for a new run."""
    if state is None:
        return EXAMPLES
    return state.phase if isinstance(state, RunState) else state["phase"]


def learner_of(phase: str, policy: LanguagePolicy, config: Config) -> Learner:
    """The stage's own loss and a fresh optimiser, on the same weights."""
    if phase == EXAMPLES:
        return supervised_learner(policy, config.imitation)
    return policy_learner(policy, with_kl(reinforce(), config.beta), config)


def with_form(reward: Reward, layout: Layout) -> Scoring:
    """The reward plus 1 where the answer is laid out as it should be; a reward called `form` is kept."""
    scoring = copy.copy(as_scoring(reward))
    scoring.rewards = {"form": form(layout.pattern), **scoring.rewards}
    scoring.weights = {"form": 1.0, **scoring.weights}
    return scoring


def logging_skips(layout: Layout) -> Callable[[Samples], Samples]:
    """Logs `skipped`: whether an answer leaves its thought out."""

    def label(samples: Samples) -> Samples:
        samples.log("skipped", [float(layout.skips(text)) for text in samples.texts])
        return samples

    return label

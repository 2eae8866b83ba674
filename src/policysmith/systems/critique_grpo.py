"""Critique-GRPO: the model is told in words what was wrong, writes again, and learns from both.

Every answer is criticised, and the same model, shown its answer and the critique, writes it again. One
refinement per question, the first best, takes the place of one of the n answers; hung on the bare question it
is learnt beside the others, with advantages over the mixed group of n - 1 answers and one refinement:

    A_i = r_i - mean(r_1 .. r_n)
    loss = -A rho on answers, unclipped;   -A f(p) on the refinement,  f(p) = p / (p + gamma)

f pulls hardest on tokens that the model finds unlikely (p near gamma), where a refinement has something new.
Values are summed over all tokens and divided by the limit of an answer; an entropy bonus is a mean over
tokens. `ghpo` helps before the answer, with a part of the solution.

Reference: Zhang et al. 2025, Critique-GRPO (2506.03106), and the authors' code. As the paper has it, and
not as the released script runs by default, advantages are not divided by the deviation and one answer is
replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.experience.guidance import check_template
from policysmith.experience.prompts import Prompts
from policysmith.experience.refinement import REFINE, refined
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.mixed_policy import mixed_policy_loss
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.rewards.critiques import Critic, Critique, Wording, truth_of, verdicts, written
from policysmith.training.learners.group_relative import centred
from policysmith.training.learners.language import language_run
from policysmith.training.learners.language_settings import LanguageSettings, Reward, TokenLoss
from policysmith.training.loop import Progress, RunState


@dataclass(frozen=True)
class Config(LanguageSettings):
    """Defaults of the released script (128 prompts, 7 answers and a refinement, up to 6,144 tokens each).

    - `critique`: "simple" says whether the answer is right; "simple_gt" (released) also what is right; "text"
      asks a critic about wrong answers. `wording`: the sentences of the first two.
    - `template`: how a refinement is asked for.
    - `only_right`: leave groups without a right refinement as they are (released: the best one enters, and is
      penalised).
    - `accuracy`: the reward that says whether an answer is right, where there are several.
    - `gamma`: of f(p) = p / (p + gamma), None for f(p) = p; `clip`: of the ratio of answers, None for none.
    - `entropy`: coefficient of the bonus.
    """

    prompts: int = 128
    group_size: int = 8
    answer_limit: int = 6144
    optimizer_steps: int = 2
    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    critique: Literal["simple", "simple_gt", "text"] = "simple_gt"
    wording: Wording = Wording()  # noqa: RUF009  (frozen)
    template: str = REFINE
    only_right: bool = False
    accuracy: str = ""
    gamma: float | None = 0.1
    clip: float | None = None
    entropy: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check_template(self.template, "question", "answer", "critique")
        if self.group_size < 2:
            raise SettingError(
                f"group_size is {self.group_size}", expected="2 or more: one answer gives way to a refinement"
            )
        if self.gamma is not None and self.gamma <= 0:
            raise SettingError(
                f"gamma is {self.gamma}", expected="above 0: the shape is not defined at p = 0 otherwise"
            )
        if self.critique not in ("simple", "simple_gt", "text"):
            raise SettingError(f"critique is '{self.critique}'", expected="simple, simple_gt or text")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=16, answer_limit=48, steps=100, optimizer_steps=2, learning_rate=3e-4, weight_decay=0.0
    ),
    "tiny": Config(
        prompts=2,
        group_size=2,
        answer_limit=4,
        steps=6,
        template="{question}\n{answer}\n{critique}\n",
    ),
}
"""The paper's, a laptop's for a small model learnt from scratch, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    config: Config = PRESETS["paper"],
    critic: Critic | None = None,
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, in place) on its scored answers and their refinements.

    `critic`, for critiques of the kind "text", says of a wrong answer to a prompt what is wrong with it.
    Raises `DataError` naming a row without the answer that its critique is to tell.
    """
    check_answered(prompts, "a critic reads one answer, and the refinement is one answer again")
    critique = criticising(config, prompts, critic)
    return language_run(
        policy,
        prompts,
        reward,
        settings=config,
        wrap=lambda sampler, opened: refined(
            sampler,
            opened,
            critique=critique,
            template=config.template,
            only_right=config.only_right,
            column=config.accuracy,
            system=config.system,
        ),
        label=centred(),
        loss=refinement_loss(config),
        weight=lambda batch: batch["mask"].float() / config.answer_limit,
        prepare=lambda _, batch, rng: with_bonus(batch, config),
        seed=seed,
        state=state,
    )


def criticising(config: Config, prompts: Prompts, critic: Critic | None) -> Critique:
    """The critique that the settings name, where the prompts and the critic allow it."""
    if (config.critique == "text") != (critic is not None):
        raise SettingError(
            f"critiques of the kind '{config.critique}' {'without' if critic is None else 'with'} a critic",
            expected="a critic for 'text', and none for the others",
        )
    if config.critique != "simple":
        for row, prompt in enumerate(prompts):
            truth_of(prompt, where=f"row {row}")
    if critic is not None:
        return written(critic, wording=config.wording, column=config.accuracy)
    return verdicts(tell_truth=config.critique == "simple_gt", wording=config.wording, column=config.accuracy)


def refinement_loss(config: Config) -> TokenLoss:
    """The mixed loss, minus the batch's `bonus` times the entropy of each token."""

    def loss(
        log_prob: Tensor, entropy: Tensor, batch: TensorDict
    ) -> tuple[Float[Tensor, "row time"], dict[str, Tensor]]:
        values = mixed_policy_loss(
            log_prob,
            batch["old_log_prob"],
            batch["advantage"],
            batch["off_policy"],
            gamma=config.gamma,
            clip=config.clip,
        )
        return values - batch["bonus"] * torch.where(batch["mask"], entropy, 0.0), {}

    return loss


def with_bonus(batch: TensorDict, config: Config) -> TensorDict:
    """Adds `bonus` [row, 1], by which the entropy becomes a mean over tokens under the weight 1 / limit."""
    share = config.answer_limit / batch["mask"].sum()
    batch["bonus"] = (config.entropy * share).expand(len(batch), 1).clone()
    return batch

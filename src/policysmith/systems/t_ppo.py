"""T-PPO: truncated proximal policy optimisation, which never waits for the longest answer.

A fixed number of answers is under way. Each step writes at most `window` tokens of every one of them, learns
from these tokens at once, and goes on with the unfinished ones in the next step; new prompts take the places
of the finished ones. Three rules make that sound:

- the policy learns from the tokens of this window, of finished and unfinished answers; earlier windows are
  context (they were learnt from when they were written);
- an unfinished answer has no reward yet, and is judged by how the critic's opinion changed along the window:
  GAE with V(s_n) = V(s_{n-1}) behind the cut (`objectives.truncated`);
- the critic learns from finished answers alone, from all their tokens, and its targets are what they earned.

`token-ppo` is the same with answers that are written to their end. References: Truncated Proximal Policy
Optimization (2506.15050); for settings and details, the public port of a trainer to verl (HanlinDu/verl,
recipe/tppo). The port forms its ratio from an estimate of the divergence; here it is the plain ratio.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.experience.prompts import Prompts
from policysmith.experience.truncated import TruncatedRollout
from policysmith.experience.world_prompts import check_answered
from policysmith.objectives.advantages import whiten
from policysmith.objectives.averaging import sequence_mean_weight
from policysmith.objectives.token_rewards import discounted_return, reward_at_end
from policysmith.objectives.truncated import extended_advantage, length_adaptive_lam, without_tail
from policysmith.policies.language.critic import LanguageCritic
from policysmith.policies.language.engine import LocalEngine
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.rewards.scoring import Scoring
from policysmith.training.learners.critics import CriticSettings, critic_learner, judged, with_critic
from policysmith.training.learners.group_relative import clipped
from policysmith.training.learners.language import opened
from policysmith.training.learners.language_collect import PATIENCE, SpreadEngine, as_scoring, shown
from policysmith.training.learners.language_settings import Reward
from policysmith.training.learners.language_update import policy_learner, updating
from policysmith.training.learners.truncated import (
    chosen,
    finished_answers,
    imitating,
    judge_finished,
    window_mean_weight,
    with_imitation,
)
from policysmith.training.loop import Collect, Progress, RunState, run


@dataclass(frozen=True)
class Config(CriticSettings):
    """Defaults of the port's scripts for a model of 32 billion weights; the number of steps is ours.

    - `prompts` x `group_size` answers are under way, each of at most `answer_limit` tokens, `window` a step.
    - `trained_prompts`: learn from so many prompts of them at most, those with unequal rewards first, then
      those with unfinished answers; None for all.
    - `lam`: the least of the policy's GAE, 1 - 1 / (`lam_scalar` x length) for long answers; `ignore_tail`:
      so many tokens before a cut get no advantage; `advantage_limit`: whitened advantages are clamped to it.
    - `clip_low`, `clip_high`, `ceiling`: of the policy's loss, see `clipped_policy_loss`.
    - `imitation`: weight of the cross-entropy of finished answers with a reward above 0 (the port has 0.1).
    - `carry_value`: V(s_n) = V(s_{n-1}) behind a cut; False takes every cut for a failure, V(s_n) = 0.
    """

    prompts: int = 1536
    group_size: int = 16
    answer_limit: int = 24576
    window: int = 8192
    trained_prompts: int | None = 510
    learning_rate: float = 8e-7
    critic_learning_rate: float = 2e-6
    warmup_steps: int = 20
    weight_decay: float = 0.1
    critic_warmup: int = 10
    recompute_old: bool = True
    lam: float = 0.95
    lam_scalar: float = 0.05
    ignore_tail: int = 8
    advantage_limit: float = 10.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    ceiling: float = 10.0
    value_low: float = 0.5
    value_high: float = 0.6
    imitation: float = 0.0
    carry_value: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.window <= self.answer_limit:
            raise SettingError(f"window is {self.window}", expected=f"1 to answer_limit, {self.answer_limit}")
        if not 0 <= self.ignore_tail < self.window:
            raise SettingError(
                f"ignore_tail is {self.ignore_tail}", expected=f"0 or more, below the window, {self.window}"
            )
        if self.filter_agreeing:
            raise SettingError(
                "filter_agreeing is on",
                expected="off: answers under way cannot be dropped for others",
                cure="set trained_prompts",
            )
        if self.trained_prompts is not None and self.trained_prompts < self.optimizer_steps:
            raise SettingError(
                f"trained_prompts is {self.trained_prompts}", expected="one for each optimiser step or more"
            )
        for name in ("lam_scalar", "advantage_limit"):
            if not 0 < getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="above 0, and finite")
        if not 0 <= self.imitation < math.inf:
            raise SettingError(f"imitation is {self.imitation}", expected="0 or more, and finite")


PRESETS = {
    "paper": Config(),
    "bench": Config(
        prompts=64, group_size=1, answer_limit=96, window=24, trained_prompts=None, ignore_tail=1, steps=400,
        learning_rate=3e-4, critic_learning_rate=1e-3, warmup_steps=0, weight_decay=0.0,
    ),
    "tiny": Config(
        prompts=4, group_size=2, answer_limit=5, window=2, trained_prompts=3, ignore_tail=1, steps=6,
        critic_warmup=1, imitation=0.1,
    ),
}  # fmt: skip
"""The port's, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward,
    *,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, which is then trained in place) on its scored answers."""
    check_answered(prompts, "it writes an answer window by window, and learns before the answer has ended")
    policy = opened(policy, config, seed=seed)
    critic = critic_learner(policy, config)
    module: Any = critic.module
    rollout = TruncatedRollout(
        policy,
        SpreadEngine(LocalEngine(policy)),
        prompts,
        config.sampling,
        slots=config.prompts * config.group_size,
        window=config.window,
        copies=config.group_size,
        rng=generator(seed, "prompts"),
        system=config.system,
    )
    answers = generator(seed, "answers")
    loss = clipped(low=config.clip_low, high=config.clip_high, ceiling=config.ceiling)
    run_state = RunState(
        learners={
            "policy": policy_learner(policy, with_imitation(loss, config.imitation), config),
            "critic": critic,
        },
        generators={
            "prompts": rollout.rng,
            "answers": answers,
            "update": generator(seed, "update"),
            "critic": generator(seed, "critic"),
        },
        sources={"rollout": rollout},
    ).restored(state)
    return run(
        run_state,
        collect=collecting(rollout, module, as_scoring(reward), config, rng=answers),
        update=with_critic(
            updating(window_mean_weight, config, prepare=imitating(config.imitation)),
            config,
            rows=finished_answers,
            weight=lambda batch: sequence_mean_weight(batch["mask"]),
        ),
        steps=config.steps,
    )


# ---- the rollout -------------------------------------------------------------------------------------


def collecting(
    rollout: TruncatedRollout,
    critic: LanguageCritic,
    scoring: Scoring,
    config: Config,
    *,
    rng: torch.Generator,
) -> Collect:
    """A window of every answer, rewards of those that ended, values; the others go back into the queue."""
    idle = 0

    def collect(state: RunState) -> TensorDict:
        nonlocal idle
        samples = rollout.sample(rng=rng, version=state.step)
        batch = samples.batch
        judge_finished(samples, scoring)
        batch["old_value"] = torch.where(batch["mask"], judged(critic, batch), batch["old_value"])
        rollout.put_back(samples)
        state.shown = shown(samples.select((~batch["truncated"]).nonzero()[:, 0].tolist()))
        _log(samples)
        idle = idle + 1 if bool(batch["truncated"].all()) else 0
        if idle == PATIENCE:
            warnings.warn(
                f"no answer has ended for {PATIENCE} steps, so that there is no reward and the critic does "
                "not learn: take a longer window, or a lower limit of an answer",
                stacklevel=2,
            )
        batch = batch[chosen(batch, config.trained_prompts)]
        return label(batch, config)

    return collect


def label(batch: TensorDict, config: Config) -> TensorDict:
    """The policy's advantages over the window, and the critic's targets over all of what has ended."""
    mask, truncated, written = batch["mask"], batch["truncated"], batch["written"]
    reward = reward_at_end(batch["reward"], mask)
    lam = length_adaptive_lam(
        written.sum(1), truncated, window=config.window, floor=config.lam, scalar=config.lam_scalar
    )
    advantage = extended_advantage(
        reward,
        batch["old_value"],
        truncated & config.carry_value,
        mask,
        discount=config.discount,
        lam=lam,
    )
    kept = without_tail(mask, truncated, count=config.ignore_tail)
    if config.whiten:
        limit = config.advantage_limit
        advantage = whiten(advantage, kept).clamp(-limit, limit)
    batch["advantage"] = torch.where(kept, advantage, 0.0)
    batch["value_target"] = discounted_return(
        reward_at_end(batch["reward"], written), written, discount=config.discount
    )
    batch["window"] = mask
    return batch


def _log(samples: Samples) -> None:
    """The mean reward of what ended, the share of it, and how far the critic's opinion jumped at the cuts."""
    batch = samples.batch
    ended = ~batch["truncated"]
    samples.log("ended", ended)
    if bool(ended.any()):
        samples.log("reward", batch["reward"][ended].mean())
    going_on = (batch["prefix_length"] > 0).nonzero()[:, 0]
    if len(going_on):
        first = (batch["prompt_length"] + batch["prefix_length"])[going_on]
        jump = batch["old_value"][going_on, first] - batch["old_value"][going_on, first - 1]
        samples.log("boundary", jump.abs().mean())

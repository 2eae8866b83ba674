"""PPO-max: the choices that keep PPO on a learnt reward from collapsing, each a part that can be taken out.

A policy that climbs a reward model finds what the model overrates: the reward goes on rising while answers
get worse, and neither reward nor loss shows it. What holds it, by the paper's dissection:

- every token costs `kl` times its log-ratio to the model at the start, the one lasting cure;
- rewards are brought to mean 0 and deviation 1 of the whole run, and clipped (`rescale`, `reward_clip`);
- the critic begins as the reward model (`critic`) and learns alone at first (`critic_warmup`);
- rollouts are small and seen once; gradients and the critic's moves are clipped;
- written text is learnt beside (`text_weight`), so that what the model could do is not forgotten.

What shows a collapse coming is logged: `kl_per_token` jumps, `answer_tokens` rise, `perplexity` falls away
from `reference_perplexity`. `token-ppo` is the same loop plain.

One temperature serves sampling and learning here; the authors sample at 0.8 with a penalty on repetition and
learn at 1.

Reference: Zheng et al. 2023, Secrets of RLHF in large language models part I: PPO (2307.04964).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from policysmith.common.errors import SettingError
from policysmith.common.rng import generator
from policysmith.experience.examples import Examples, ExampleSampler
from policysmith.experience.prompts import Prompts
from policysmith.experience.rollouts import Sampler
from policysmith.networks.running import RunningMoments
from policysmith.objectives.averaging import token_mean_weight
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.rewards.normalised import check_rescaling, normalised
from policysmith.training.learners.critics import CriticSettings, language_run_with_critic
from policysmith.training.learners.group_relative import clipped
from policysmith.training.learners.imitation import imitation_weight, with_imitation
from policysmith.training.learners.language_settings import Reward, TokenLoss
from policysmith.training.learners.mixed_text import with_text
from policysmith.training.loop import Progress, RunState

UNCLIPPED = 1e6
"""A `value_low` and `value_high` that a critic never reaches: its loss without a clip."""


@dataclass(frozen=True)
class Config(CriticSettings):
    """Defaults of the paper: its settings (5.1, appendix C.3, figures 7 and 14) and configuration file.

    - `clip`: range of the ratio on either side. `kl`: what a nat of log-ratio to the start costs a token.
    - `rescale`: rewards are `normalise`d by mean and deviation of the run, `scale`d by its deviation, or
      neither (`none`); `reward_clip`: then clipped to plus and minus so much, 0 for no clip.
    - `advantage_clip`: advantages too, 0 for no clip; with `whiten` off they are as the critic gives them.
    - `text_weight`: weight of the likelihood of `text_rows` examples of written text in each optimiser step,
      where `train` is given some (the paper's weight is not known).
    """

    prompts: int = 128
    group_size: int = 1
    optimizer_steps: int = 4
    answer_limit: int = 512
    top_p: float = 0.9
    learning_rate: float = 5e-7
    critic_learning_rate: float = 1.65e-6
    warmup_steps: int = 100
    critic_warmup: int = 50
    lam: float = 0.9
    whiten: bool = False
    clip: float = 0.2
    kl: float = 0.05
    rescale: Literal["normalise", "scale", "none"] = "normalise"
    reward_clip: float = 0.8
    advantage_clip: float = 0.0
    text_weight: float = 0.1
    text_rows: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clip", "kl", "reward_clip", "advantage_clip", "text_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        check_rescaling(how=self.rescale, clip=self.reward_clip or None)
        if self.text_rows < 1:
            raise SettingError(f"text_rows is {self.text_rows}", expected="at least 1")


PRESETS = {
    "paper": Config(),
    "release": Config(rescale="scale", reward_clip=0.0, kl=0.01, lam=0.95, critic_warmup=0, text_weight=0.0),
    "bench": Config(
        prompts=64, answer_limit=48, optimizer_steps=2, steps=300, top_p=1.0, learning_rate=1e-4,
        critic_learning_rate=3e-4, warmup_steps=10, critic_warmup=10, text_weight=0.0,
    ),
    "tiny": Config(
        prompts=4, answer_limit=4, optimizer_steps=2, steps=6, top_p=1.0, critic_warmup=1, warmup_steps=0,
        text_rows=2,
    ),
}  # fmt: skip
"""The paper's recipe, what its released script runs, a laptop's for a small model, and a test's."""


def train(
    policy: LanguagePolicy | str | os.PathLike[str],
    prompts: Prompts,
    reward: Reward | None,
    *,
    text: Examples | None = None,
    config: Config = PRESETS["paper"],
    seed: int = 0,
    state: RunState | Mapping[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train a model (a folder, a name, or a policy, trained in place) on a reward of its answers.

    `text` is what it is not to forget. `config.critic` names the reward model that the critic begins as.
    Warns where rewards, advantages and values are all clipped, which the paper finds to conflict.
    """
    if config.reward_clip and config.advantage_clip and config.value_low < UNCLIPPED:
        warnings.warn(
            "rewards, advantages and values are all clipped: these conflict, keep two of them at most",
            stacklevel=2,
        )
    moments = RunningMoments()
    samplers = {}
    loss: TokenLoss = held(clipped(low=config.clip, high=config.clip), config.advantage_clip)
    options: dict[str, Any] = {"loss": loss}
    if text is not None and config.text_weight:
        samplers["text"] = ExampleSampler(text, rng=generator(seed, "text"))
        options = {
            "loss": with_imitation(loss),
            "weight": imitation_weight(token_mean_weight, token_mean_weight),
            "prepare": with_text(samplers["text"], rows=config.text_rows, weight=config.text_weight),
        }
    return language_run_with_critic(
        policy,
        prompts,
        reward,
        settings=config,
        kl=config.kl,
        around=rescaling(moments, config),
        sources={"moments": moments, **samplers},
        seed=seed,
        state=state,
        **options,
    )


def rescaling(moments: RunningMoments, config: Config) -> Callable[[Sampler], Sampler]:
    """What is put around the sampler so that its rewards are on the run's own scale."""
    return partial(normalised, moments=moments, how=config.rescale, clip=config.reward_clip or None)


def held(loss: TokenLoss, most: float) -> TokenLoss:
    """The loss of advantages held within plus and minus `most`; as it is for 0."""
    if not most:
        return loss

    def apply(log_prob: Any, entropy: Any, batch: Any) -> Any:
        batch = batch.clone(recurse=False)
        batch["advantage"] = batch["advantage"].clamp(-most, most)
        return loss(log_prob, entropy, batch)

    return apply

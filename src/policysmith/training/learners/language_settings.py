"""What a language run is made of: the kinds of functions at its seams, and the settings all runs share.

See `training.learners.language` for what happens when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor

from policysmith.common.errors import SettingError
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.policies.language.samples import Samples
from policysmith.policies.language.sampling import Sampling
from policysmith.rewards.scoring import Scoring

Label = Callable[[Samples], Samples]
"""Samples with rewards -> samples with what the loss asks for."""


TokenLoss = Callable[
    [Float[Tensor, "row time"], Float[Tensor, "row time"], TensorDict],
    tuple[Float[Tensor, "row time"], dict[str, Tensor]],
]
"""(log-probabilities, entropies, batch) -> (value per token, statistics per token)."""


Weight = Callable[[TensorDict], Float[Tensor, "row time"]]
"""An optimiser batch -> what each of its tokens counts."""


Prepare = Callable[[LanguagePolicy, TensorDict, torch.Generator], TensorDict]
"""(policy, optimiser batch, rng) -> the batch with what the loss needs of all its rows together."""


Reward = Scoring | Callable[..., Any] | Mapping[str, Callable[..., Any]]
"""A reward, several by name (their sum), or a `Scoring`, which has weights and limits too."""


@dataclass(frozen=True)
class LanguageSettings:
    """What every language run needs; a system's configuration says where its values are from.

    - `steps`: rollouts; each asks `prompts` prompts for `group_size` answers of at most `answer_limit`
      tokens, drawn at `temperature`, with `top_p` and `stop` as in `Sampling`. `system`: a message before
      each prompt.
    - `filter_agreeing`: drop groups whose rewards all agree and ask further prompts, `rounds` times at most.
    - `optimizer_steps` per rollout, over the prompts in random order; `micro_batch` rows at a time.
    - `learning_rate` (constant behind `warmup_steps`), `weight_decay`, `max_grad_norm`: of AdamW.
    - `lora_rank`: train adapters of this rank, 0 for all weights.
    - `recompute_old`: score the answers again under the weights at the start of the update, instead of
      taking the sampler's word for it; `importance_limit`: weigh tokens by how far the two differ, at most
      so much (None: do not).
    """

    steps: int = 500
    prompts: int = 128
    group_size: int = 8
    answer_limit: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    system: str = ""
    filter_agreeing: bool = False
    rounds: int = 10
    optimizer_steps: int = 1
    micro_batch: int | None = None
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 0
    recompute_old: bool = False
    importance_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "prompts", "group_size", "answer_limit", "optimizer_steps", "rounds"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="at least 1")
        for name in ("learning_rate", "weight_decay", "warmup_steps", "lora_rank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name} is {getattr(self, name)}", expected="0 or more, and finite")
        if not self.temperature > 0:
            raise SettingError(
                f"temperature is {self.temperature}",
                expected="above 0: answers are learnt from because they differ",
            )
        if self.optimizer_steps > self.prompts:
            raise SettingError(
                f"{self.optimizer_steps} optimiser steps on {self.prompts} prompts",
                expected="at least one prompt per step",
            )
        if self.importance_limit is not None and not (self.recompute_old and self.importance_limit > 0):
            raise SettingError(
                f"importance_limit is {self.importance_limit}",
                expected="above 0, with recompute_old: it weighs one by the other",
            )

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn."""
        return Sampling(
            limit=self.answer_limit, temperature=self.temperature, top_p=self.top_p, stop=tuple(self.stop)
        )

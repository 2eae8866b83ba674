"""Text that somebody wrote, learnt in the very steps of a policy gradient: so much is not forgotten.

    loss = policy loss + weight x mean over the text's tokens of -log pi(token)

The rows of text are put beside those of each optimiser batch when it is prepared; they have an `imitation`
weight, no advantage and no ratio (`training.learners.imitation`). A critic does not see them.

Source: Ouyang et al. 2022 (PPO-ptx), equation 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from tensordict import TensorDict

from policysmith.common.errors import SettingError
from policysmith.experience.examples import ExampleSampler
from policysmith.policies.language.policy import LanguagePolicy
from policysmith.training.learners.language_settings import Prepare
from policysmith.training.learners.supervised import supervised_batch


def with_text(sampler: ExampleSampler, *, rows: int, weight: float) -> Prepare:
    """`rows` examples beside each optimiser batch, whose likelihood counts `weight` in all.

    Use with `with_imitation` and `imitation_weight`, and save the sampler with the run.
    """
    if rows < 1 or not 0 < weight < math.inf:
        raise SettingError(f"{rows} rows of text with weight {weight}", expected="1 or more, above 0")

    def prepare(policy: LanguagePolicy, batch: TensorDict, rng: torch.Generator) -> TensorDict:
        text = supervised_batch(policy, sampler.sample(rows)).exclude("weight")
        usual = batch.clone(recurse=False)
        usual["imitation"] = torch.zeros(len(batch), device=batch.device)
        usual["off_policy"] = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
        time = max(part["token"].shape[1] for part in (usual, text))
        return torch.cat([_filled(usual, usual, time), _filled(text, usual, time, weight=weight)])  # type: ignore

    return prepare


def _filled(part: TensorDict, like: TensorDict, time: int, *, weight: float = 0.0) -> TensorDict:
    """The rows with all keys of `like`, zeros where they have none, and `time` tokens."""
    width, rows = like["token"].shape[1], len(part)
    filled: dict[str, Any] = {}
    for key in map(str, like.keys()):
        model = like[key]
        if not isinstance(model, torch.Tensor):
            continue
        value = part[key] if key in part.keys() else None  # noqa: SIM118
        per_token = model.dim() == 2 and model.shape[1] == width
        if value is None:
            value = model.new_zeros(rows, *model.shape[1:])
        if per_token and value.shape[1] < time:
            value = F.pad(value, (0, time - value.shape[1]))
        filled[key] = value[:, :time] if per_token else value
    if weight:
        filled["imitation"] = torch.full((rows,), weight)
        filled["off_policy"] = torch.ones(rows, dtype=torch.bool)
    return TensorDict(filled, batch_size=[rows])

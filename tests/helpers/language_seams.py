"""What a recipe puts at the seams of the language run, tried on samples made by hand."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from policysmith.policies.language.samples import Request, Samples


def seams(module: ModuleType, config: Any) -> dict[str, Any]:
    """The keyword arguments with which `module.train` calls `language_run`."""
    caught: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "language_run", lambda *inputs, **given: caught.update(given))
        module.train(None, None, None, config=config)
    return caught


def made_samples(
    rewards: list[float], *, lengths: list[int], group_size: int = 2, finished: list[bool] | None = None
) -> Samples:
    """Answers of these lengths with these rewards, `group_size` to a prompt, of random likelihood."""
    rows, time = len(rewards), max(lengths) + 1
    rng = torch.Generator().manual_seed(0)
    mask = torch.arange(time) - 1 < torch.tensor(lengths)[:, None]
    mask[:, 0] = False  # the prompt
    log_prob = torch.where(mask, -2 * torch.rand(rows, time, generator=rng), 0.0)
    batch = {
        "mask": mask,
        "reward": torch.tensor(rewards),
        "group_id": torch.arange(rows) // group_size,
        "behaviour_log_prob": log_prob,
        "old_log_prob": log_prob.clone(),
        "reference_log_prob": torch.where(mask, log_prob - 0.1, 0.0),
        "finished": torch.tensor(finished or [True] * rows),
    }
    requests = [Request([3], group_id=row // group_size, copy=row % group_size) for row in range(rows)]
    return Samples(TensorDict(batch, batch_size=[rows]), requests, [""] * rows)


def gradient(parts: dict[str, Any], samples: Samples, *, moved: float = 0.0) -> Tensor:
    """The gradient that a step gives each token's log-probability, all having moved up by `moved`."""
    batch = parts["label"](samples).batch
    log_prob = (batch["old_log_prob"] + moved).requires_grad_()
    values, _ = parts["loss"](log_prob, torch.zeros_like(log_prob), batch)
    weight = parts["weight"](batch) if "weight" in parts else batch["mask"] / batch["mask"].sum()
    (found,) = torch.autograd.grad((values * weight).sum(), log_prob)
    return torch.where(batch["mask"], found, 0.0)

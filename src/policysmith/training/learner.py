"""A learner: parameters, an optimiser and a loss, stepped on rows of its own.

A loss maps (module, batch) to a value per row and named statistics; averaging is separate. The learner gives
every row a weight over the whole optimiser batch (the batch's own `weight`, or one over the number of rows)
before the batch is cut into micro-batches, so that the step does not depend on the cut, nor on how many
processes share the micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import CapabilityError, NotFiniteError, SettingError, ShapeError
from policysmith.networks.ema import ExponentialAverage
from policysmith.training import processes

Batch = TensorDict | dict[str, Any]
"""Rows to learn from: a TensorDict at the seams, in hot loops a plain dictionary of tensors."""

Loss = Callable[[Any, Any], tuple[Float[Tensor, "row"], dict[str, Tensor]]]
"""(module, batch) -> (value per row, statistics per row); for language per token, [row, time]."""

Acts = Callable[[Any], nn.Module]
"""From a copy of what is learnt to what acts: a part of it, or with its noise switched off."""

Schedule = Callable[[int], float]
"""Optimiser steps taken so far -> factor on the learning rate."""


def cosine_schedule(*, warmup: int, total: int) -> Schedule:
    """Linear from 0 over `warmup` steps, then a half cosine down to 0 at `total`."""

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def linear_schedule(*, total: int) -> Schedule:
    """Straight down from 1 to 0 at `total`."""
    return lambda step: max(0.0, 1 - step / total)


def staircase_schedule(*, every: int, factor: float) -> Schedule:
    """Multiplied by `factor` after every `every` steps."""
    return lambda step: factor ** (step // every)


class Learner:
    """Steps one module on batches.

    - `module`: what is learnt; `loss`: see `Loss`; `optimizer`: over the module's parameters.
    - `schedule`: factor on each parameter group's learning rate, by steps taken.
    - `max_grad_norm`: the gradient's norm over all parameters is clipped to it.
    - `average`: a moving average of the weights; `acting()` returns the module with those.
    - `micro_batch`: at most so many rows at a time go through the module.
    - `acts`: what of a copy of the module acts, by default all of it as it is.
    - `compiled`: the loss of plain dictionaries goes through `torch.compile`, which takes a C++ compiler and
      half a minute at the first step, and is worth it where networks are small and steps are many.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None = None,
        max_grad_norm: float | None = None,
        average: ExponentialAverage | None = None,
        micro_batch: int | None = None,
        acts: Acts = lambda module: module,
        compiled: bool = False,
    ) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise SettingError(f"micro-batches of {micro_batch} rows", expected="at least one row")
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.max_grad_norm = max_grad_norm
        self.average = average
        self.micro_batch = micro_batch
        self.acts = acts
        self._loss = compiled_loss(loss) if compiled else loss
        self.steps = 0
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._all = self._parameters()
        self._functional = _LossModule(module, loss)

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the loss, the gradient's norm and the statistics' weighted means.

        A plain dictionary is learnt from as a whole, its rows counting the same.

        Raises `NotFiniteError` before the weights are touched where loss or gradient is not finite.
        """
        if self.schedule is not None:
            for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * self.schedule(self.steps)
        if not self.module.training:
            self.module.train()
        if isinstance(batch, TensorDict):
            metrics = self._accumulate(batch)
            metrics["grad_norm"] = float(self._clip())
        else:
            metrics = self._at_once(batch)
        if not all(map(math.isfinite, (metrics["loss"], metrics["grad_norm"]))):
            raise self._not_finite(batch, metrics)
        self.optimizer.step()
        self.steps += 1
        if self.average is not None:
            self.average.update()
        return metrics

    def functional_loss(self, parameters: Mapping[str, Tensor], batch: TensorDict) -> Float[Tensor, ""]:
        """The averaged loss as a function of `parameters` (named as in the module), for `torch.func`."""
        named = {f"module.{name}": value for name, value in parameters.items()}
        values, _ = torch.func.functional_call(self._functional, named, (batch,))
        return _weighted(values, row_weight(batch))

    def acting(self) -> nn.Module:
        """A copy of the module to act with: the averaged weights where there are any, in eval mode."""
        module = deepcopy(self.module)
        if self.average is not None:
            self.average.copy_to(module)
        return self.acts(module).eval()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimiser, average and the count of steps."""
        state = {
            "module": dict(self.module.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
        }
        return state if self.average is None else state | {"average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a copy of what `state_dict` returned."""
        self.module.load_state_dict(state["module"])
        # An optimiser keeps the tensors it is given and would write into the caller's state.
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self.steps = state["steps"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def _accumulate(self, batch: TensorDict) -> dict[str, float]:
        weight = row_weight(batch)
        # Statistics are means, whatever the weights of the loss sum to.
        share = weight / weight.sum()
        size = self.micro_batch or math.ceil(len(batch) / processes.count())
        totals: dict[str, float] = {"loss": 0.0}
        kept = self._zeroed_gradients()
        for start in processes.share(range(0, len(batch), size)):
            rows = slice(start, start + size)
            values, statistics = self.loss(self.module, batch[rows])
            loss = _weighted(values, weight[rows])
            if loss.requires_grad:  # a micro-batch without a token to learn from has no gradient
                loss.backward()
            totals["loss"] += float(loss.detach())
            for name, value in statistics.items():
                totals[name] = totals.get(name, 0.0) + float((value.detach() * share[rows]).sum())
        for parameter, gradient, version in kept:
            if gradient._version == version:  # nothing was added: it is not learnt in this step
                parameter.grad = None
        processes.sum_gradients(self._parameters())
        return processes.sum_numbers(totals)

    def _zeroed_gradients(self) -> list[tuple[Tensor, Tensor, int]]:
        """The gradients there are, now zero, with their parameters and versions.

        They stay where they lie: made anew in the midst of what a micro-batch leaves behind, they would cut
        the memory that it gives back in pieces.
        """
        held = [(p, p.grad) for p in self._parameters() if p.grad is not None]
        if held:
            torch._foreach_zero_([gradient for _, gradient in held])
        return [(parameter, gradient, gradient._version) for parameter, gradient in held]

    def _at_once(self, batch: dict[str, Any]) -> dict[str, float]:
        """Gradients of the rows as a whole, clipped; as few calls as it can be, and one wait for numbers."""
        for parameter in self._all:
            parameter.grad = None
        values, statistics = self._loss(self.module, batch)
        values.mean().backward()
        gradients = [p.grad for p in self._all if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        rows = [values.detach(), *(value.detach() for value in statistics.values())]
        if all(row.shape == rows[0].shape for row in rows):
            means = torch.stack(rows).flatten(1).mean(1)
        else:
            means = torch.stack([row.mean() for row in rows])
        *found, grad_norm = torch.cat([means, norm[None]]).tolist()
        if self.max_grad_norm is not None and grad_norm > self.max_grad_norm:
            torch._foreach_mul_(gradients, self.max_grad_norm / (grad_norm + 1e-6))
        return dict(zip(("loss", *statistics), found, strict=True)) | {"grad_norm": grad_norm}

    def _clip(self) -> Tensor:
        parameters = self._parameters()
        limit = math.inf if self.max_grad_norm is None else self.max_grad_norm
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if math.isfinite(limit):
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _not_finite(self, batch: Batch, metrics: Mapping[str, float]) -> NotFiniteError:
        """Name the first tensor at fault: an input before a weight, a weight before a gradient."""
        entries = batch.items(True, True) if isinstance(batch, TensorDict) else batch.items()
        named: dict[str, Any] = {
            f"batch entry '{key}'": value for key, value in entries if isinstance(value, Tensor)
        }
        named |= {f"weight '{name}'": value for name, value in self.module.named_parameters()}
        named |= {
            f"gradient of '{name}'": value.grad
            for name, value in self.module.named_parameters()
            if value.grad is not None
        }
        culprits = (name for name, value in named.items() if not bool(value.isfinite().all()))
        return NotFiniteError(
            f"the loss is {metrics['loss']} and the gradient's norm {metrics['grad_norm']}",
            where=f"optimiser step {self.steps + 1}; first tensor that is not finite: "
            f"{next(culprits, 'none of the inputs (the loss itself overflowed)')}",
            cure="check the data (`policysmith data`), or lower the learning rate; "
            "the last checkpoint is kept and the weights of this process were not changed",
        )


def compiled_loss(loss: Loss) -> Loss:
    """`loss` through `torch.compile`; `CapabilityError` where nothing can be compiled here."""
    fast = torch.compile(loss, dynamic=False)

    def compiled(module: Any, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            return fast(module, batch)
        except torch._dynamo.exc.BackendCompilerFailed as error:  # type: ignore[attr-defined]
            raise CapabilityError(
                f"the loss could not be compiled: {str(error).strip().splitlines()[0]}",
                expected="a C++ compiler (g++ or clang), which torch.compile calls",
                cure="install one, or set compile to False",
            ) from error

    return compiled


def row_weight(batch: TensorDict) -> Float[Tensor, "row"]:
    """What each row counts: the batch's `weight`, or the same for all with a sum of one."""
    if len(batch) == 0:
        raise ShapeError("a batch without rows", expected="at least one row")
    if "weight" in batch.keys():  # noqa: SIM118  (a TensorDict iterates over rows)
        return batch["weight"]
    return torch.full((len(batch),), 1 / len(batch), device=batch.device)


def _weighted(values: Tensor, weight: Tensor) -> Float[Tensor, ""]:
    # Unequal shapes would broadcast, each value meeting the weights of all rows.
    if values.shape != weight.shape:
        raise ShapeError(
            f"the loss has values of shape {list(values.shape)} for weights of shape {list(weight.shape)}",
            expected="a value and a weight per row",
        )
    return (values * weight).sum()


class _LossModule(nn.Module):
    """Wraps module and loss as one module, because `torch.func.functional_call` calls modules."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: TensorDict) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(self.module, batch)

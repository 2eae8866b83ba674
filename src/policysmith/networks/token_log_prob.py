"""Log-probabilities of tokens from hidden states, without ever holding [token, vocabulary] logits.

The last layer of a language model is a matrix of [vocabulary, width]. Its logits for a whole batch are by far
the largest tensor of a training step, and all that is wanted of them is one number per token. Here a few
tokens at a time are multiplied, reduced and forgotten, and again on the way back: memory does not grow with
the vocabulary or the batch, at the price of one more product.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError
from policysmith.networks.products import linear

LOGITS_AT_A_TIME = 1 << 22
"""At most so many logits exist at once (16 MB of float32)."""


def token_log_prob(
    hidden: Float[Tensor, "token width"],
    weight: Float[Tensor, "vocabulary width"],
    target: Int[Tensor, "token"],
    *,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, "token"], Float[Tensor, "token"]]:
    """Log-probability of each target, and the entropy in nats of the distribution it was one draw of.

    Logits are `hidden` times `weight`, over `temperature`. Both results are differentiable in `hidden` and
    `weight`. Raises `ShapeError` where sizes differ and `SettingError` unless the temperature is above 0.
    """
    if hidden.dim() != 2 or target.shape != hidden.shape[:1] or hidden.shape[1:] != weight.shape[1:]:
        raise ShapeError(
            f"hidden states {list(hidden.shape)}, targets {list(target.shape)}, weights {list(weight.shape)}",
            expected="[token, width], [token], [vocabulary, width]",
        )
    if not temperature > 0:
        raise SettingError(f"a temperature of {temperature}", expected="above 0")
    return _TokenLogProb.apply(hidden, weight, target, temperature)  # type: ignore[return-value]


class _TokenLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float) -> Any:
        log_prob, entropy = hidden.new_empty(len(hidden)), hidden.new_empty(len(hidden))
        for rows in _chunks(len(hidden), len(weight)):
            logits = _logits(hidden[rows], weight, temperature)
            normaliser = logits.logsumexp(1)
            log_prob[rows] = logits.gather(1, target[rows, None])[:, 0] - normaliser
            # H = log Z - sum p z
            mean = (logits - normaliser[:, None]).exp_().mul_(logits).sum(1)
            entropy[rows] = normaliser - mean
        ctx.save_for_backward(hidden, weight, target, entropy)
        ctx.temperature = temperature
        return log_prob, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        of_log_prob, of_entropy = gradients
        hidden, weight, target, entropy = ctx.saved_tensors
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        wants_entropy = bool(of_entropy.any())
        for rows in _chunks(len(hidden), len(weight)):
            logits = _logits(hidden[rows], weight, ctx.temperature)
            log_p = logits.sub_(logits.logsumexp(1, keepdim=True))
            p = log_p.exp()
            # d log_prob / d logits = onehot - p;  d H / d logits = -p (log p + H)
            change = p * -of_log_prob[rows, None]
            if wants_entropy:
                change -= of_entropy[rows, None] * p * (log_p + entropy[rows, None])
            change.scatter_add_(1, target[rows, None], of_log_prob[rows, None])
            change /= ctx.temperature
            if to_hidden is not None:
                torch.mm(change, weight, out=to_hidden[rows])
            if to_weight is not None:
                to_weight.addmm_(change.t(), hidden[rows])
        return to_hidden, to_weight, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = linear(hidden, weight)
    return logits if temperature == 1 else logits.div_(temperature)


def _chunks(tokens: int, vocabulary: int) -> list[slice]:
    size = max(1, LOGITS_AT_A_TIME // vocabulary)
    return [slice(start, start + size) for start in range(0, tokens, size)]

"""Hidden states of models of the Llama family, with what the way back needs kept to a minimum.

A layer is  x + O attention(Q n, K n, V n),  then  x + D (silu(G m) * U m),  n and m being RMS norms of x.

Left to itself, automatic differentiation keeps every result on the way. Here a norm together with the
products behind it is one function that keeps its input alone, and the gated part keeps G m and U m: the rest
is elementwise and made again on the way back, which costs less than to write it down and read it. Half of the
memory remains.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from policysmith.networks.products import evened
from policysmith.policies.language.shared_prompts import Layout, attend, attend_apart, packed


def of_the_family(config: Any) -> bool:
    """Whether a model's arithmetic is Llama's: RMS norms, rotated keys, a gated MLP with SiLU."""
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    return (
        config.model_type in ("llama", "qwen2", "mistral")
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and rope in ("default", "linear", "llama3", "yarn")
    )


def hidden_states(
    body: Any, token: Int[Tensor, "row time"], position: Int[Tensor, "row time"], layout: Layout | None
) -> Float[Tensor, "row time width"]:
    """What the Hugging Face module `body` of the family gives, without adapters and dropout.

    With a `layout`, the one row of tokens is laid out as it says.
    """
    config = body.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    x = F.embedding(token, body.embed_tokens.weight)
    cos, sin = (table[:, None] for table in body.rotary_emb(x, position_ids=position))
    for layer in body.layers:
        attention, mlp = layer.self_attn, layer.mlp
        products = (attention.q_proj, attention.k_proj, attention.v_proj)
        projected = _NormedProducts.apply(
            x,
            layer.input_layernorm.weight,
            config.rms_norm_eps,
            *(product.weight for product in products),
            *(product.bias for product in products),
        )
        query, key, value = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in projected)
        query, key, out = _rotated(query, cos, sin), _rotated(key, cos, sin), attention.o_proj
        if layout is None:
            x = x + out(attend(query, key, value).flatten(2))
        else:
            parts = attend_apart(query, key, value, layout)
            x = x + _PackedProduct.apply(layout.packed, out.weight, out.bias, *parts)
        x = x + _GatedMlp.apply(
            x,
            layer.post_attention_layernorm.weight,
            config.rms_norm_eps,
            mlp.gate_proj.weight,
            mlp.up_proj.weight,
            mlp.down_proj.weight,
        )
    return _Norm.apply(x, body.norm.weight, config.rms_norm_eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


# ---- functions that keep little -----------------------------------------------------------------------


class _Norm(torch.autograd.Function):
    """norm(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        size = _inverse_size(x, eps)
        ctx.save_for_backward(x, size, scale)
        return _normed(x, size, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_normed: Tensor) -> Any:
        x, size, scale = ctx.saved_tensors
        return *_back_through_norm((x * size).to(x.dtype), size, scale, of_normed), None


class _PackedProduct(torch.autograd.Function):
    """What attention found apart, on the line again, times a matrix; kept apart, as attention keeps it."""

    @staticmethod
    def forward(ctx: Any, place: Tensor, weight: Tensor, bias: Tensor | None, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(place, weight, *parts)
        ctx.has_bias = bias is not None
        return F.linear(packed(parts, place), weight, bias)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_output: Tensor) -> Any:
        place, weight, *parts = ctx.saved_tensors
        of_line = of_output[0]
        to_weight = _outer(of_line, packed(parts, place))
        to_bias = of_line.sum(0) if ctx.has_bias else None
        sizes = [part.shape[0] * part.shape[1] for part in parts]
        spread = weight.new_zeros(sum(sizes), weight.shape[1]).index_copy_(0, place, of_line @ weight)
        to_parts = [grad.view_as(part) for grad, part in zip(spread.split(sizes), parts, strict=True)]
        return None, to_weight, to_bias, *to_parts


class _NormedProducts(torch.autograd.Function):
    """norm(x) times several matrices, each with a bias or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float, *parameters: Tensor | None) -> Any:
        count = len(parameters) // 2
        weights, biases = parameters[:count], parameters[count:]
        size = _inverse_size(x, eps)
        normed = _normed(x, size, scale)
        ctx.save_for_backward(x, size, scale, *weights)
        ctx.has_bias = [bias is not None for bias in biases]
        return tuple(F.linear(normed, w, b) for w, b in zip(weights, biases, strict=True))  # type: ignore[arg-type]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_outputs: Tensor) -> Any:
        x, size, scale, *weights = ctx.saved_tensors
        to_x, to_scale, to_weights = _back(x, size, scale, weights, of_outputs)
        to_biases = [
            out.flatten(0, -2).sum(0) if has else None
            for out, has in zip(of_outputs, ctx.has_bias, strict=True)
        ]
        return to_x, to_scale, None, *to_weights, *to_biases


class _GatedMlp(torch.autograd.Function):
    """down (silu(gate n) * up n), n the norm of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, eps: float, gate: Tensor, up: Tensor, down: Tensor
    ) -> Tensor:
        size = _inverse_size(x, eps)
        normed = _normed(x, size, scale)
        ctx.wide = len(gate)
        gate, up, down = evened(gate, 0), evened(up, 0), evened(down, 1)
        gated, raised = F.linear(normed, gate), F.linear(normed, up)
        ctx.save_for_backward(x, size, scale, gate, up, down, gated, raised)
        return F.linear(F.silu(gated).mul_(raised), down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_output: Tensor) -> Any:
        x, size, scale, gate, up, down, gated, raised = ctx.saved_tensors
        opening = gated.sigmoid()
        opened = gated * opening
        inner = opened * raised
        to_down = _outer(of_output, inner)
        of_inner = torch.matmul(of_output, down, out=inner)
        # silu'(g) = s + g s - g s s, s = sigmoid(g)
        slope = torch.addcmul(opened, opened, opening, value=-1).add_(opening)
        of_raised = opened.mul_(of_inner)
        of_gated = slope.mul_(of_inner).mul_(raised)
        to_x, to_scale, (to_gate, to_up) = _back(x, size, scale, (gate, up), (of_gated, of_raised))
        wide = ctx.wide
        return to_x, to_scale, None, to_gate[:wide], to_up[:wide], to_down[:, :wide]


def _inverse_size(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean of squares + eps), in float32 or better."""
    precise = torch.promote_types(x.dtype, torch.float32)
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise)
    return (size.square_() / x.shape[-1] + eps).rsqrt_()


def _normed(x: Tensor, size: Tensor, scale: Tensor) -> Tensor:
    return (x * size).to(x.dtype).mul_(scale)


def _back(x: Tensor, size: Tensor, scale: Tensor, weights: Any, of_outputs: Any) -> Any:
    """Gradients of x, the norm's scale and the matrices behind it, from those of the products."""
    straight = (x * size).to(x.dtype)
    normed = straight * scale
    to_weights = [_outer(of_output, normed) for of_output in of_outputs]
    of_normed = of_outputs[0] @ weights[0]
    for of_output, weight in zip(of_outputs[1:], weights[1:], strict=True):
        of_normed = of_normed + of_output @ weight
    to_x, to_scale = _back_through_norm(straight, size, scale, of_normed)
    return to_x, to_scale, to_weights


def _back_through_norm(straight: Tensor, size: Tensor, scale: Tensor, of_normed: Tensor) -> Any:
    """Gradients of x and the scale; `straight` is x over its size."""
    to_scale = (of_normed * straight).flatten(0, -2).sum(0)
    # d(x / |x|): what lies along x itself changes nothing.
    of_straight = of_normed * scale
    along = (of_straight * straight).mean(-1, keepdim=True)
    to_x = torch.addcmul(of_straight, straight, along, value=-1).mul_(size)
    return to_x.to(straight.dtype), to_scale


def _outer(of_output: Tensor, given: Tensor) -> Tensor:
    """The gradient of a matrix: the sum over tokens of output gradient times input."""
    return of_output.flatten(0, -2).t() @ given.flatten(0, -2)

"""A transformer that denoises: every state, goal and noisy action is a token, in the order

    [level, goal_1 ... goal_G, s_1, a_1, s_2, a_2, ..., a_H],

and what comes out at the action tokens is the prediction. States and goals are embedded by the same layer,
and a state shares its learned position with its action, so that a token's place says which time it belongs to
and not how many tokens came before. Attention is causal (an action is told of the past only, so that a
sequence cut short is predicted as the beginning of the whole one) or goes both ways.

Source: Reuss et al. 2023 (BESO), the score transformer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from policysmith.common.errors import SettingError, ShapeError
from policysmith.common.saving import saveable
from policysmith.networks.denoiser import BoundDenoiser, Denoiser
from policysmith.networks.embeddings import SinusoidalEmbedding
from policysmith.networks.unet_blocks import under_transform


@saveable
class TransformerDenoiser(Denoiser):
    """A denoiser whose tokens are states, goals and actions.

    The condition is `goal_tokens` goals and then `observation_tokens` states, oldest first, all of one width,
    flattened into one vector per row. State t is at the time of action t; where there are fewer states than
    actions (`horizon`), the remaining actions follow one another. Without any tokens the condition is empty.

    A sequence may be shorter than the horizon: with n actions the condition then holds the goals and the
    first min(n, `observation_tokens`) states. What the network is told of the noise (`level_embedding`) is
    "linear", for numbers of the size of one such as ln(sigma) / 4 or a flow's time, or "sinusoidal", for
    integers; one level per sample is a token in front, one per position (`level_positions` = `horizon`) is
    added to its action's token.

    `width` is the size of a token, a multiple of `heads`; `depth` blocks, each four times as wide inside.
    Attention weights and what a block adds to a token have dropout of their own.
    """

    def __init__(
        self,
        action_size: int,
        horizon: int,
        condition_size: int,
        *,
        observation_tokens: int,
        goal_tokens: int = 0,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        causal: bool = True,
        level_embedding: str = "linear",
        level_positions: int = 1,
        attention_dropout: float = 0.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__(action_size, horizon, condition_size, level_positions=level_positions)
        if width < 1 or heads < 1 or width % heads:
            raise SettingError(
                f"tokens of width {width} cannot be shared out among {heads} heads",
                expected="a width that is a multiple of the number of heads",
            )
        self.observation_tokens, self.goal_tokens = observation_tokens, goal_tokens
        self.token_size = self._split_condition()
        self.condition_input = nn.Linear(self.token_size, width) if self.token_size else None
        self.action_input = nn.Linear(action_size, width)
        self.level_input = _level_encoder(level_embedding, width)
        self.position = nn.Parameter(torch.empty(goal_tokens + horizon, width))
        self.blocks = nn.Sequential(
            *(
                Block(
                    width,
                    heads,
                    causal=causal,
                    attention_dropout=attention_dropout,
                    residual_dropout=residual_dropout,
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, action_size)
        self._initialise()

    def forward(
        self,
        noisy: Float[Tensor, "batch positions action"],
        level: Tensor,
        condition: Float[Tensor, "batch condition"],
    ) -> Float[Tensor, "batch positions action"]:
        """Predict from a noisy sequence of up to `horizon` positions; see `Denoiser.forward`."""
        level = self.check(noisy, level, condition)
        return self._denoise(noisy, level, self._embed_condition(condition))

    def bind(self, condition: Float[Tensor, "batch condition"]) -> BoundDenoiser:
        """A function (noisy, level) -> prediction that has the tokens of goals and states ready."""
        tokens = self._embed_condition(condition)
        return lambda noisy, level: self._denoise(noisy, self.check(noisy, level, condition), tokens)

    def check(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """The level as the network takes it; `ShapeError` where sizes differ, shorter sequences allowed."""
        batch, positions = noisy.shape[0], noisy.shape[1] if noisy.dim() == 3 else 0
        if not 1 <= positions <= self.horizon or noisy.shape[2] != self.action_size:
            raise ShapeError(
                f"the noisy sequence has shape {tuple(noisy.shape)}",
                expected=f"[batch, 1 to {self.horizon} positions, action {self.action_size}]",
            )
        states = min(positions, self.observation_tokens)
        size = (self.goal_tokens + states) * self.token_size
        if condition.shape != (batch, size):
            raise ShapeError(
                f"the condition has shape {tuple(condition.shape)}",
                expected=f"[batch {batch}, condition {size}]: {self.goal_tokens} goals and {states} states "
                f"of width {self.token_size} for a sequence of {positions}",
            )
        return self.check_level(level, batch, positions)

    def _embed_condition(self, condition: Tensor) -> Tensor:
        """Tokens of goals and states [batch, token, width]: their positions are the first ones in order."""
        if self.condition_input is None:
            return condition.new_zeros(len(condition), 0, self.action_input.out_features)
        tokens = self.condition_input(condition.unflatten(1, (-1, self.token_size)))
        return tokens + self.position[: tokens.shape[1]]

    def _denoise(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        goals, states = condition.split([self.goal_tokens, condition.shape[1] - self.goal_tokens], dim=1)
        paired = states.shape[1]
        actions = self.action_input(noisy) + self.position[self.goal_tokens :][: noisy.shape[1]]
        told = self.level_input(level.unsqueeze(-1).to(noisy.dtype))
        if level.dim() == 2:
            actions, front = actions + told, goals
        else:
            front = torch.cat([told.unsqueeze(1), goals], dim=1)
        pairs = torch.stack([states, actions[:, :paired]], dim=2).flatten(1, 2)
        tokens = self.blocks(torch.cat([front, pairs, actions[:, paired:]], dim=1))
        tokens = tokens[:, front.shape[1] :]
        acted = torch.cat([tokens[:, 1 : 2 * paired : 2], tokens[:, 2 * paired :]], dim=1)
        return self.output(self.norm(acted))

    def _split_condition(self) -> int:
        """The width of one state or goal."""
        tokens = self.observation_tokens + self.goal_tokens
        if self.goal_tokens < 0 or not 0 <= self.observation_tokens <= self.horizon:
            raise SettingError(
                f"{self.observation_tokens} states and {self.goal_tokens} goals were set beside "
                f"{self.horizon} actions",
                expected="no more states than actions, and none below 0",
            )
        if (self.condition_size > 0) != (tokens > 0) or (tokens and self.condition_size % tokens):
            raise SettingError(
                f"a condition of {self.condition_size} numbers cannot be cut into {self.goal_tokens} goals "
                f"and {self.observation_tokens} states of one width",
                expected="a multiple of their number",
            )
        return self.condition_size // tokens if tokens else 0

    def _initialise(self) -> None:
        nn.init.normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


class Block(nn.Module):
    """Self-attention and a layer of GELUs, both of the normalised tokens and both added to them."""

    def __init__(
        self, width: int, heads: int, *, causal: bool, attention_dropout: float, residual_dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.attention_dropout = heads, causal, attention_dropout
        self.attention_norm, self.layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.layer = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(residual_dropout)

    def forward(self, tokens: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """The tokens with what the block adds to them."""
        tokens = tokens + self.dropout(self.attended(self._attend(self.attention_norm(tokens))))
        return tokens + self.dropout(self.layer(self.layer_norm(tokens)))

    def _attend(self, tokens: Tensor) -> Tensor:
        heads = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        dropout = self.attention_dropout if self.training else 0.0
        if under_transform():
            # The fused kernels have no second derivative, and `torch.func` is what asks for one.
            with sdpa_kernel(SDPBackend.MATH):
                mixed = F.scaled_dot_product_attention(
                    query, key, value, dropout_p=dropout, is_causal=self.causal
                )
        else:
            mixed = F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, is_causal=self.causal
            )
        return mixed.transpose(1, 2).flatten(2)


def _level_encoder(kind: str, width: int) -> nn.Module:
    """From a level [..., 1] to a token [..., width]."""
    if kind == "linear":
        return nn.Linear(1, width)
    if kind == "sinusoidal":
        return nn.Sequential(SinusoidalEmbedding(width), nn.Flatten(-2), nn.Linear(width, width))
    raise SettingError(
        f"a level embedding called '{kind}' was asked for", expected='"linear" or "sinusoidal"'
    )

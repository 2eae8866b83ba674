"""Bodies: what turns an observation into features, before a head says what to do or what it is worth.

One class for everything Gymnasium shows: vectors go through an MLP, planes (boards, stacked frames, given as
one flat vector) through convolutions first, pictures through an encoder per camera, a goal is joined to the
state. With a cell (GRU or LSTM) behind them the features depend on what came before, and the memory is an
explicit vector that whoever runs the body hands on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from tensordict import TensorDict
from torch import Tensor, nn

from policysmith.common.errors import SettingError
from policysmith.common.observations import GOAL, STATE, Observation
from policysmith.common.saving import saveable
from policysmith.networks.running import RunningNormalizer
from policysmith.networks.vision import PictureEncoder

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
}
"""The activations a configuration can name."""

CELLS = ("", "gru", "lstm")
"""The recurrent cells a body can have; none by default."""


def activation_named(name: str) -> Callable[[], nn.Module]:
    """The activation called `name`; `SettingError` with those there are."""
    if name not in ACTIVATIONS:
        raise SettingError(f"no activation is called '{name}'", expected=", ".join(ACTIVATIONS))
    return ACTIVATIONS[name]


@saveable
class Body(nn.Module):
    """Observations to features.

    - `observation_size`: width of the state (0 for none), `goal_size` of the goal, joined behind it.
    - `planes`: (height, width, channels) where the state is a board or a stack of frames, flattened; it then
      passes a convolution of 3 x 3 for each of `channels`, the numbers of maps.
    - `cameras`, `sizes`: pictures beside the state, or stacks of them, see `PictureEncoder`.
    - `hidden`: widths of the layers; each is Linear, (LayerNorm), activation, (dropout).
    - `normalise`: scale state and goal by their running moments, which whoever collects keeps up to date.
    - `cell`: "gru" or "lstm" of `memory_width` behind the layers.

    `width` is the number of features.
    """

    def __init__(
        self,
        observation_size: int,
        *,
        goal_size: int = 0,
        planes: Sequence[int] = (),
        channels: Sequence[int] = (16,),
        cameras: Sequence[str] = (),
        sizes: Sequence[Sequence[int]] = (),
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        layer_norm: bool = False,
        dropout: float = 0.0,
        normalise: bool = False,
        cell: str = "",
        memory_width: int = 128,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise SettingError(f"no recurrent cell is called '{cell}'", expected="gru, lstm, or none")
        self.observation_size, self.goal_size = observation_size, goal_size
        self.pictures = {name: tuple(size) for name, size in zip(cameras, sizes, strict=True)}
        make = activation_named(activation)
        vector = observation_size + goal_size
        self.normalizer = RunningNormalizer(vector) if normalise and vector else None
        self.convolutions = _convolutions(planes, channels, make) if planes else None
        self.encoder = (
            PictureEncoder(tuple(cameras), tuple(self.pictures.values())) if self.pictures else None
        )
        self.borrows = False
        before = _convolved(planes, channels) + goal_size if planes else vector
        before += self.encoder.output_size if self.encoder is not None else 0
        self.plain = not (planes or self.pictures or goal_size)
        layers: list[nn.Module] = []
        for width, after in pairwise((before, *hidden)):
            layers.append(nn.Linear(width, after))
            layers += [nn.LayerNorm(after)] if layer_norm else []
            layers.append(make())
            layers += [nn.Dropout(dropout)] if dropout > 0 else []
        self.layers = nn.Sequential(*layers)
        features = hidden[-1] if hidden else before
        cells = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}
        self.cell = cells[cell](features, memory_width) if cell else None
        self.width = memory_width if cell else features
        self.memory_size = memory_width * (2 if cell == "lstm" else 1) if cell else 0

    def forward(self, observation: Observation) -> Float[Tensor, "row width"]:
        """Features of [row, ...] observations; of a body without a memory."""
        if self.plain and isinstance(observation, Tensor):
            vector = observation if self.normalizer is None else self.normalizer(observation)
            return self.layers(vector)
        return self.layers(self._joined(observation))

    def step(
        self, observation: Observation, memory: Float[Tensor, "row memory"]
    ) -> tuple[Float[Tensor, "row width"], Float[Tensor, "row memory"]]:
        """Features of one step and the memory after it."""
        return self._remember(self(observation), memory)

    def sequence(
        self,
        observation: Observation,
        memory: Float[Tensor, "row memory"],
        begins: Bool[Tensor, "time row"],
    ) -> tuple[Float[Tensor, "time row width"], Float[Tensor, "row memory"]]:
        """Features of [time, row, ...] observations; the memory is empty again where an episode `begins`."""
        time, rows = begins.shape
        features = self(observation.flatten(0, 1)).unflatten(0, (time, rows))
        if self.cell is None:
            return features, memory
        steps = []
        for step in range(time):
            memory = memory * (~begins[step])[:, None]
            seen, memory = self._remember(features[step], memory)
            steps.append(seen)
        return torch.stack(steps), memory

    def empty_memory(self, rows: int) -> Float[Tensor, "row memory"]:
        """The memory of episodes that have just begun."""
        return torch.zeros(rows, self.memory_size)

    def observe(self, observation: Observation) -> None:
        """Take observations [*batch, ...] into the running moments, where there are any."""
        if self.normalizer is not None:
            self.normalizer.update(_vectors(observation))

    def look_through(self, other: Body) -> None:
        """See pictures by the encoder of `other`, which learns from what `other` is for, and not from this.

        What this body's features are used for then gives the encoder no gradient. Source: Yarats et al. 2021
        (SAC+AE), section 5.2, and DrQ, whose actors see by the critics' encoder.
        """
        self.encoder, self.borrows = other.encoder, True

    def _remember(self, features: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        if self.cell is None:
            return features, memory
        if isinstance(self.cell, nn.LSTMCell):
            hidden, cell = self.cell(features, tuple(memory.chunk(2, -1)))
            return hidden, torch.cat([hidden, cell], -1)
        hidden = self.cell(features, memory)
        return hidden, hidden

    def _joined(self, observation: Observation) -> Tensor:
        found = []
        if self.observation_size + self.goal_size:
            vector = _vectors(observation)
            vector = vector if self.normalizer is None else self.normalizer(vector)
            if self.convolutions is not None:
                seen = self.convolutions(vector[:, : self.observation_size])
                vector = torch.cat([seen, vector[:, self.observation_size :]], -1)
            found.append(vector)
        if self.encoder is not None:
            assert isinstance(observation, TensorDict)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.borrows):
                found.append(self.encoder(observation))
        return found[0] if len(found) == 1 else torch.cat(found, -1)


@torch.no_grad()
def spread_memory(cell: nn.GRUCell | nn.LSTMCell, steps: int) -> None:
    """Start `cell` with units that remember for T = 2 to `steps` steps, evenly spread; in place.

    As PyTorch starts them, all units forget about half of what they hold at every step, and no gradient
    reaches far back. A unit whose gate has the bias log(T - 1) keeps the share 1 - 1/T instead; the gate that
    takes in, where there is one of its own (LSTM), begins with the opposite bias. Raises `SettingError` for
    fewer than 2 steps.
    Source: Tallec and Ollivier 2018, "Can recurrent neural networks warp time?", section 2, with T spread
    evenly where they draw it.
    """
    if steps < 2:
        raise SettingError(f"memories of {steps} steps", expected="at least 2")
    width = cell.hidden_size
    bias = torch.linspace(1, steps - 1, width).log()
    # Rows [gate * width : (gate + 1) * width]: the second gate keeps (z of a GRU, f of an LSTM).
    cell.bias_ih[width : 2 * width], cell.bias_hh[width : 2 * width] = bias, 0.0
    if isinstance(cell, nn.LSTMCell):
        cell.bias_ih[:width], cell.bias_hh[:width] = -bias, 0.0


def _vectors(observation: Observation) -> Tensor:
    """State and goal as one vector."""
    if isinstance(observation, Tensor):
        return observation
    return torch.cat([observation[name] for name in (STATE, GOAL) if name in observation.keys()], -1)  # noqa: SIM118


def _convolutions(planes: Sequence[int], channels: Sequence[int], make: Callable[[], nn.Module]) -> nn.Module:
    height, width, depth = planes
    layers: list[nn.Module] = [nn.Unflatten(1, (height, width, depth)), _ChannelsFirst()]
    for before, after in pairwise((depth, *channels)):
        layers += [nn.Conv2d(before, after, 3), make()]
    return nn.Sequential(*layers, nn.Flatten())


def _convolved(planes: Sequence[int], channels: Sequence[int]) -> int:
    height, width, _ = planes
    edge = 2 * len(channels)
    return (height - edge) * (width - edge) * channels[-1]


class _ChannelsFirst(nn.Module):
    def forward(self, planes: Tensor) -> Tensor:
        return planes.permute(0, 3, 1, 2)

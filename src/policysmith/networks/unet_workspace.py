"""The U-Net for a few sequences at a time, where the time goes into calling operations, not into them.

A sampling loop calls the network many times on one sequence of perhaps 16 positions, and each of the few
hundred operations of `UNet1d` takes longer to call than to compute. A `Workspace` holds the buffers between
the layers with all views of them ready-made, so that a convolution block is four calls: a matrix product that
reads its windows out of a buffer with zero margins, the normalisation, Mish in place, and FiLM or the
residual sum written into the next convolution's buffer. The numbers are those of `UNet1d`.

A workspace holds no weights: `run` is given them, and it serves any weights of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policysmith.networks.unet_blocks import ConvolutionBlock, ConvolutionWeights, ResidualBlock, Stage


class ResidualWeights(NamedTuple):
    """What a residual block has learnt, FiLM apart; `shortcut` is (weight [before, after], bias) or None."""

    first: ConvolutionWeights
    second: ConvolutionWeights
    shortcut: tuple[Tensor, Tensor] | None


class StageWeights(NamedTuple):
    """What a stage has learnt; `resample` is None where the sequence keeps its length."""

    first: ResidualWeights
    second: ResidualWeights
    resample: Callable[[Tensor], Tensor] | None


class NetworkWeights(NamedTuple):
    """What a U-Net has learnt between its FiLM and its output layer."""

    stages: list[StageWeights]
    final: ConvolutionWeights


def gather_weights(stages: Iterable[Stage], final: ConvolutionBlock) -> NetworkWeights:
    """The tensors of a U-Net in the form in which `Workspace.run` takes them."""

    def residual(block: ResidualBlock) -> ResidualWeights:
        shortcut = block.shortcut
        linear = (shortcut.weight.t(), shortcut.bias) if isinstance(shortcut, nn.Linear) else None
        return ResidualWeights(block.first.weights(), block.second.weights(), linear)

    return NetworkWeights(
        [
            StageWeights(
                residual(stage.first),
                residual(stage.second),
                None if isinstance(stage.resample, nn.Identity) else stage.resample.forward,
            )
            for stage in stages
        ],
        final.weights(),
    )


class Workspace:
    """Buffers for the U-Net of these stages and one batch size; for one call at a time, without gradients."""

    def __init__(self, stages: Iterable[Stage], final: ConvolutionBlock, batch: int, *, like: Tensor) -> None:
        stages = list(stages)
        self.key = batch, like.dtype
        # Ordinary tensors even where built in inference mode, so that they can be written to outside it.
        with torch.inference_mode(False), torch.no_grad():
            self._film = like.new_empty(batch, sum(4 * stage.first.first.after for stage in stages))
            scales_and_biases = iter(
                self._film.view(batch, -1, 1, 1).split(
                    [stage.first.first.after for stage in stages for _ in range(4)], dim=1
                )
            )
            self._final = _ConvolutionSlot(final, batch, like)
            self._stages = [_StageSlot(stage, batch, scales_and_biases, like) for stage in stages]
        self._connect()

    def _connect(self) -> None:
        """Tell every stage where its output goes: to the next and, on the way down, to its counterpart."""
        readers = [*(slot.source for slot in self._stages[1:]), self._final.source]
        deepest = len(self._stages) // 2 - 1
        for index, (slot, reader) in enumerate(zip(self._stages, readers, strict=True)):
            slot.next = reader.channels[:, : slot.width]
            if 1 <= index <= deepest:
                slot.counterpart = self._stages[-index].source.channels[:, slot.width :]

    def run(self, weights: NetworkWeights, noisy: Tensor, film: Tensor) -> Tensor:
        """[batch, horizon, action] and [batch, FiLM of all blocks] -> [batch, horizon, width]."""
        self._film.copy_(film)
        self._stages[0].source.sequence.copy_(noisy)
        for slot, stage_weights in zip(self._stages, weights.stages, strict=True):
            slot(stage_weights)
        return self._final(weights.final).squeeze(2).transpose(1, 2)


class _Padded:
    """A sequence between zero margins, seen as [batch, time, channel], as channels first, and as windows."""

    def __init__(self, batch: int, length: int, channels: int, kernel: int, like: Tensor) -> None:
        margin = kernel // 2
        memory = like.new_zeros(batch, length + 2 * margin, channels)
        self.sequence = memory[:, margin : margin + length]
        self.channels = self.sequence.transpose(1, 2).unsqueeze(2)
        self.windows = memory.as_strided((batch, length, kernel * channels), (memory.stride(0), channels, 1))


class _ConvolutionSlot:
    """One convolution block: reads `source`, returns [batch, channel, 1, time] of its own."""

    def __init__(self, block: ConvolutionBlock, batch: int, like: Tensor) -> None:
        kernel, length, after = block.convolution.kernel, block.length, block.after
        self.source = _Padded(batch, length, block.before, kernel, like)
        self.rows = (batch * length, kernel * block.before)
        self.product = like.new_empty(batch * length, after)
        self.channels = _channels(self.product, batch)
        self.norm = (batch, after, length, block.norm.num_groups, block.norm.eps)

    def __call__(self, weights: ConvolutionWeights) -> Tensor:
        weight, bias, norm_weight, norm_bias = weights
        torch.addmm(bias, self.source.windows.reshape(self.rows), weight, out=self.product)
        normal = torch.native_group_norm(self.channels, norm_weight, norm_bias, *self.norm)[0]
        return F.mish(normal, inplace=True)


class _ResidualSlot:
    """One residual block: reads `source`, writes where it is told."""

    def __init__(self, block: ResidualBlock, batch: int, scale: Tensor, bias: Tensor, like: Tensor) -> None:
        self.first = _ConvolutionSlot(block.first, batch, like)
        self.second = _ConvolutionSlot(block.second, batch, like)
        self.source = self.first.source
        self.scale, self.bias = scale, bias
        self.rows = (batch * block.first.length, block.first.before)
        self.straight = like.new_empty(self.rows[0], block.first.after)
        self.straight_channels = _channels(self.straight, batch)

    def __call__(self, weights: ResidualWeights, into: Tensor) -> None:
        hidden = self.first(weights.first)
        torch.addcmul(self.bias, hidden, self.scale, out=self.second.source.channels)
        straight = self.source.channels
        if weights.shortcut is not None:
            weight, bias = weights.shortcut
            torch.addmm(bias, self.source.sequence.reshape(self.rows), weight, out=self.straight)
            straight = self.straight_channels
        torch.add(self.second(weights.second), straight, out=into)


class _StageSlot:
    """One stage; `next` and `counterpart` are views of the buffers that read its output."""

    next: Tensor
    counterpart: Tensor | None = None

    def __init__(self, stage: Stage, batch: int, films: Iterator[Tensor], like: Tensor) -> None:
        self.width = stage.second.first.after
        self.first = _ResidualSlot(stage.first, batch, next(films), next(films), like)
        self.second = _ResidualSlot(stage.second, batch, next(films), next(films), like)
        self.source = self.first.source
        self.output = like.new_empty(batch, stage.second.first.length, self.width)
        self.output_channels = _channels(self.output.flatten(0, 1), batch)

    def __call__(self, weights: StageWeights) -> None:
        into = self.next if weights.resample is None else self.output_channels
        self.first(weights.first, self.second.source.channels)
        self.second(weights.second, into)
        if self.counterpart is not None:
            self.counterpart.copy_(into)
        if weights.resample is not None:
            self.next.squeeze(2).transpose(1, 2).copy_(weights.resample(self.output))


def _channels(rows: Tensor, batch: int) -> Tensor:
    """[batch * time, channel] as [batch, channel, 1, time], over memory in which channels come last."""
    return rows.view(batch, 1, -1, rows.shape[1]).permute(0, 3, 1, 2)


class WorkspacePool:
    """The workspaces of one network that are not in use; copied and pickled without them.

    Taking one out while it is used keeps threads from sharing it.
    """

    def __init__(self) -> None:
        self._idle: dict[tuple[int, torch.dtype], list[Workspace]] = {}

    def __reduce__(self) -> tuple[type[WorkspacePool], tuple[()]]:
        return WorkspacePool, ()

    def take(
        self, stages: Iterable[Stage], final: ConvolutionBlock, batch: int, *, like: Tensor
    ) -> Workspace:
        """An idle workspace, or else a new one."""
        idle = self._idle.setdefault((batch, like.dtype), [])
        try:
            return idle.pop()
        except IndexError:
            return Workspace(stages, final, batch, like=like)

    def give_back(self, workspace: Workspace) -> None:
        """Put a workspace back among the idle ones."""
        self._idle[workspace.key].append(workspace)

"""Convolutions over time as matrix products, on sequences laid out [batch, time, channel].

A convolution over 16 positions is too short for the usual kernels to be efficient, and short enough to be
done exactly in the frequency domain by small dense matrices:

    y = S ((A x) * (B w)),        A: time -> frequency,  B the same for the kernel,  S: back to time

where * multiplies the matrices of channels of each frequency. Real sequences of N points have N / 2
frequencies, each a complex product of three real ones (Gauss), so a kernel of 5 over 16 positions takes
26 products of channel matrices instead of 80. The trigonometric matrices are orthogonal up to scale: the
result agrees with the direct sum to float32 rounding. Everything is a matrix product, so autograd,
`torch.func` and any device do the rest.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from policysmith.common.errors import SettingError

_PASS = 48
"""To bring one weight into the frequency domain and use it takes as long as so many multiplications in a
matrix product (measured on CPUs, for widths from 64 to 1024)."""


class _TimeConvolution(nn.Module):
    """A weight matrix [rows, columns] and a bias [after], initialised as `nn.Conv1d` does."""

    def __init__(self, rows: int, columns: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.bias = nn.Parameter(torch.empty(after))
        bound = 1 / math.sqrt(rows * columns / after)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)


class Convolution(_TimeConvolution):
    """A convolution of odd width over sequences of a known length, zero beyond both ends.

    Equal to `nn.Conv1d(before, after, kernel, padding=kernel // 2)`, whose weight [after, before, kernel]
    becomes [kernel * before, after] here: all that one output is made of, in one column.
    """

    analysis: Tensor
    kernel_analysis: Tensor
    synthesis: Tensor

    def __init__(self, before: int, after: int, kernel: int, *, length: int) -> None:
        if kernel % 2 == 0:
            raise SettingError(
                f"a convolution kernel of width {kernel} was asked for", expected="an odd width"
            )
        super().__init__(kernel * before, after, after)
        self.kernel = kernel
        matrices = frequency_matrices(length, kernel)
        for name, matrix in zip(("analysis", "kernel_analysis", "synthesis"), matrices, strict=True):
            self.register_buffer(name, matrix.float(), persistent=False)
        self.frequency_batch = _batch_from_which_frequencies_pay(
            before, after, kernel, length, len(matrices[0])
        )

    def forward(self, x: Float[Tensor, "batch time before"]) -> Float[Tensor, "batch time after"]:
        """Convolve over time."""
        return self._by_frequency(x) if len(x) >= self.frequency_batch else self._direct(x)

    def _direct(self, x: Tensor) -> Tensor:
        batch, time, channel = x.shape
        padded = F.pad(x, (0, 0, self.kernel // 2, self.kernel // 2))
        windows = padded.unfold(1, self.kernel, 1).transpose(2, 3)
        rows = windows.reshape(batch * time, self.kernel * channel)
        return torch.addmm(self.bias, rows, self.weight).view(batch, time, -1)

    def _by_frequency(self, x: Tensor) -> Tensor:
        batch, (products, _) = len(x), self.analysis.shape
        spectrum = torch.bmm(self.analysis.expand(batch, -1, -1), x).transpose(0, 1)
        weight = self.kernel_analysis @ self.weight.view(self.kernel, -1)
        weight = weight.view(products, -1, self.weight.shape[1])
        product = torch.bmm(spectrum, weight).transpose(0, 1)
        return torch.baddbmm(self.bias, self.synthesis.expand(batch, -1, -1), product)


class Halving(_TimeConvolution):
    """Half as many positions: equal to `nn.Conv1d(channels, channels, 3, stride=2, padding=1)`.

    The weight is laid out as in `Convolution`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(3 * channels, channels, channels)

    def forward(self, x: Float[Tensor, "batch time channel"]) -> Float[Tensor, "batch half channel"]:
        """Convolve around every second position; the number of positions is even."""
        batch, time, channel = x.shape
        pairs = x.reshape(batch, time // 2, 2 * channel)
        before = F.pad(pairs[:, :-1, channel:], (0, 0, 1, 0))
        rows = torch.cat([before, pairs], dim=2).view(-1, 3 * channel)
        return torch.addmm(self.bias, rows, self.weight).view(batch, time // 2, -1)


class Doubling(_TimeConvolution):
    """Twice as many positions: equal to `nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)`.

    That one's weight [before, after, kernel] becomes [before, kernel * after] here: all that one input
    contributes, in one row.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 4 * channels, channels)

    def forward(self, x: Float[Tensor, "batch time channel"]) -> Float[Tensor, "batch double channel"]:
        """Spread each position over four, of which neighbours share two."""
        batch, time, channel = x.shape
        rows = x.reshape(-1, channel) @ self.weight
        # Position t reaches 2t-1, 2t (its first half) and 2t+1, 2t+2 (its second).
        first, second = rows.view(batch, time, 2, 2 * channel).unbind(2)
        pairs = F.pad(first, (0, 0, 0, 1)) + F.pad(second, (0, 0, 1, 0))
        return pairs.view(batch, 2 * time + 2, channel)[:, 1:-1] + self.bias


def _batch_from_which_frequencies_pay(
    before: int, after: int, kernel: int, length: int, products: int
) -> float:
    """By counting multiplications; infinite where they never pay, as for a few positions or channels."""
    direct = kernel * length * before * after
    # To frequencies and back costs about twice its count, the matrices being so narrow.
    indirect = products * before * after + 2 * products * length * (before + after)
    return _PASS * products * before * after / (direct - indirect) if direct > indirect else math.inf


def frequency_matrices(length: int, kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (A [product, length], B [product, kernel], S [length, product]) that convolve.

    For any x of that length, zero beyond its ends, and any odd kernel w centred on its middle,
    S ((A x) * (B w)) is their correlation (what networks call convolution). float64.
    """
    half = kernel // 2
    # Cyclic over so many points, what wraps around lands on positions that are not read.
    points = length + half
    time = torch.arange(length, dtype=torch.float64)
    tap = torch.arange(kernel, dtype=torch.float64) - half
    rows_x, rows_w, columns = [], [], []
    for frequency in range(points // 2 + 1):
        turn = 2 * math.pi * frequency / points
        real_x, imag_x = (turn * time).cos(), -(turn * time).sin()
        # Conjugated, because the kernel is correlated and not flipped.
        real_w, imag_w = (turn * tap).cos(), (turn * tap).sin()
        if frequency in (0, points / 2):
            rows_x += [real_x]
            rows_w += [real_w]
            columns += [real_x / points]
            continue
        # (a + bi)(c + di): with p = c(a + b), q = a(d - c), r = b(c + d) it is (p - r) + (p + q)i; the real
        # signal is twice the real part of the product turned back, 2/N (real cos - imag sin).
        real_y, imag_y = 2 / points * real_x, 2 / points * imag_x
        rows_x += [real_x + imag_x, real_x, imag_x]
        rows_w += [real_w, imag_w - real_w, real_w + imag_w]
        columns += [real_y + imag_y, imag_y, -real_y]
    return torch.stack(rows_x), torch.stack(rows_w), torch.stack(columns, dim=1)

"""What a reward is fitted to where people have only said which of two outcomes is better.

    P(first better) = sigmoid(r(first) - r(second)),      loss = -log P(chosen better than rejected)

An outcome is anything that has a score: an answer of a language model, a stretch of a robot's trajectory
whose rewards are summed. Any loss of a margin (`objectives.preferences`) can stand in the place of this one:
a smoothed or a robust one where labels are noisy, a hinge.

Sources: Bradley and Terry 1952; Christiano et al. 2017, equation 1; Ouyang et al. 2022, equation 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from policysmith.common.errors import SettingError, ShapeError


def bradley_terry_loss(margin: Float[Tensor, "pair"], *, floor: float = 0.0) -> Float[Tensor, "pair"]:
    """-log(sigmoid(margin) + `floor`), the margin being the chosen outcome's score less the rejected one's.

    A floor above 0 bounds the loss of a pair at -log(floor), and lets go of pairs that are hopelessly the
    wrong way round. Source of the floor: the code of Zheng et al. 2023 (PPO-max), which has 1e-5.
    """
    if not 0 <= floor < 1:
        raise SettingError(f"a floor of {floor}", expected="0 or more, and below 1")
    return -torch.log(torch.sigmoid(margin) + floor) if floor else -F.logsigmoid(margin)


def ordered_pairs(
    label: Float[Tensor, "row outcome"], present: Bool[Tensor, "row outcome"]
) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"], Int[Tensor, "pair"]]:
    """The row, the better outcome and the worse one of every pair whose labels differ.

    A list of K outcomes with different labels gives K (K - 1) / 2; ties give none. In order of the rows, then
    of the better outcome. Raises `ShapeError` where the two have different shapes.
    """
    if label.dim() != 2 or label.shape != present.shape:
        raise ShapeError(
            f"labels {list(label.shape)}, present {list(present.shape)}", expected="[row, outcome] both"
        )
    both = present[:, :, None] & present[:, None]
    row, better, worse = (both & (label[:, :, None] > label[:, None])).nonzero().unbind(1)
    return row, better, worse


def mean_over_pairs(
    values: Float[Tensor, "pair"], row: Int[Tensor, "pair"], *, rows: int
) -> Float[Tensor, "row"]:
    """The mean of each row's pairs, 0 for a row without any: a list counts as one, however long it is.

    Source: Ouyang et al. 2022, equation 1, for the mean: pairs of one list are not independent.
    """
    total = values.new_zeros(rows).index_add(0, row, values)
    count = values.new_zeros(rows).index_add(0, row, torch.ones_like(values))
    return total / count.clamp(min=1)

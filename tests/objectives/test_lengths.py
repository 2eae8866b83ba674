"""Lengths: the soft penalty by hand."""

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.objectives.lengths import overlong_penalty


def test_the_penalty_grows_evenly_over_the_buffer_by_hand():
    tokens = torch.tensor([0, 5, 6, 7, 9, 10, 30])
    penalty = overlong_penalty(tokens, limit=10, buffer=4)
    assert penalty.tolist() == pytest.approx([0, 0, 0, -0.25, -0.75, -1, -1])


@pytest.mark.parametrize("buffer", [0, -1, 11])
def test_a_buffer_that_is_no_part_of_the_limit_is_refused(buffer):
    with pytest.raises(SettingError, match=f"a buffer of {buffer} tokens before a limit of 10"):
        overlong_penalty(torch.tensor([3]), limit=10, buffer=buffer)

"""The number of threads is borrowed and given back."""

import pytest
import torch

from policysmith.common.errors import SettingError
from policysmith.common.threads import torch_threads


def test_the_number_of_threads_is_put_back_even_after_an_error():
    before = torch.get_num_threads()
    within = []

    def fail():
        with torch_threads(before + 1):
            within.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert within == [before + 1]
    assert torch.get_num_threads() == before


def test_none_leaves_the_number_alone():
    before = torch.get_num_threads()
    with torch_threads(None):
        assert torch.get_num_threads() == before


def test_no_threads_at_all_are_refused():
    with pytest.raises(SettingError, match="0 threads"), torch_threads(0):
        pass

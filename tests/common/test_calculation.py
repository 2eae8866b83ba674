"""Arithmetic that somebody wrote: worked by hand, refused with a reason, and never run."""

import warnings
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policysmith.common.calculation import LONGEST, calculated
from policysmith.common.errors import DataError


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12+73-35", "50"),
        ("2*(3+4)", "14"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("7/2", "3.5"),
        ("6/3", "2"),
        ("1/3", "0.3333333333"),
        ("2^10", "1024"),
        ("2**64", str(2**64)),
        (".5 + 1.", "1.5"),
        (" 3 ", "3"),
    ],
)
def test_values_are_those_worked_by_hand(expression, value):
    assert calculated(expression) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "no expression"),
        ("  ", "no expression"),
        ("1/0", "division by zero"),
        ("5 % (2-2)", "division by zero"),
        ("(3+4", "unreadable"),
        ("3+4)", "unreadable"),
        ("3+", "unreadable"),
        ("3 4", "unreadable"),
        ("07+1", "unreadable"),
        ("(-8)**0.5", "unreadable"),
        ("(1, 2)", "not arithmetic"),
        ("3(4)", "unreadable"),
        ("9**9**9", "too large"),
        ("2**65", "too large"),
        ("9" * 101, "too large"),
        ("10**60*10**60", "too large"),
        ("99.9**64*99.9", "too large"),
        ("1+" * (LONGEST // 2) + "1", "too long"),
        ("__import__('os')", "not arithmetic"),
        ("1 if 1 else 2", "not arithmetic"),
        ("1e5", "not arithmetic"),
        ("3+\x00", "not arithmetic"),
        ("\u0663+\u0664", "not arithmetic"),
        ("(" * 200 + "1" + ")" * 199, "unreadable"),
    ],
)
def test_what_has_no_value_is_refused_with_the_reason(expression, why):
    with pytest.raises(DataError) as refused:
        calculated(expression)
    assert refused.value.what == why


@given(st.text(alphabet="0123456789.+-*/%^() \n", max_size=60))
def test_whatever_is_written_has_a_value_or_is_refused(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(DataError):
            float(calculated(text))


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_whole_numbers_are_exact(a, b):
    assert calculated(f"{a}+({b})") == str(a + b)
    assert calculated(f"({a})*({b})") == str(a * b)

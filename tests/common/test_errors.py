"""Errors: parts in a fixed order, caught as what they are, and the same after crossing a process."""

from __future__ import annotations

import copy
import pickle

import pytest

from policysmith.common import errors
from policysmith.common.errors import PolicysmithError

KINDS = [
    (errors.SettingError, ValueError),
    (errors.ShapeError, ValueError),
    (errors.DataError, ValueError),
    (errors.FileError, OSError),
    (errors.NotFiniteError, ArithmeticError),
    (errors.UnknownNameError, LookupError),
    (errors.MissingExtraError, ImportError),
    (errors.CapabilityError, TypeError),
    (errors.StaleError, TimeoutError),
]


def test_every_kind_is_listed_here():
    assert {kind for kind, _ in KINDS} == set(PolicysmithError.__subclasses__())


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
def test_an_error_reads_what_where_expected_cure(kind, builtin):
    error = kind("the horizon is 5", where="config.json", expected="a multiple of 4", cure="choose 8")
    lines = [
        "the horizon is 5",
        "  where: config.json",
        "  expected: a multiple of 4",
        "  what to do: choose 8",
    ]
    assert str(error) == "\n".join(lines)
    assert (error.what, error.where, error.expected, error.cure) == (
        "the horizon is 5", "config.json", "a multiple of 4", "choose 8",
    )  # fmt: skip
    assert isinstance(error, builtin)


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
def test_empty_parts_are_left_out(kind, builtin):
    assert str(kind("what")) == "what"
    assert str(kind("what", cure="this")) == "what\n  what to do: this"


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
@pytest.mark.parametrize("through", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_the_way_from_a_worker_process(kind, builtin, through):
    error = kind("what", where="here", expected="that", cure="do")
    again = through(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.what, again.where, again.expected, again.cure) == ("what", "here", "that", "do")


def test_a_lookup_error_does_not_quote_its_message():
    assert str(errors.UnknownNameError("no system is called 'x'")) == "no system is called 'x'"


def test_parts_are_keyword_only():
    with pytest.raises(TypeError):
        PolicysmithError("what", "where")

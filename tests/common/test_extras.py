"""Optional packages: absent ones name the extra, broken ones show their own error."""

from __future__ import annotations

import math

import pytest

from policysmith.common.errors import MissingExtraError
from policysmith.common.extras import require


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package made up on the spot: name -> file contents of its modules."""

    def make(name, **modules):
        (tmp_path / name).mkdir()
        for module, text in {"__init__": "", **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    return make


def test_an_installed_module_is_returned():
    assert require("math", extra="none") is math
    assert require("os.path", extra="none").join("a", "b")


@pytest.mark.parametrize("module", ["surely_absent", "surely_absent.inner.most"])
def test_an_absent_package_names_itself_and_its_extra(module):
    with pytest.raises(MissingExtraError) as caught:
        require(module, extra="metaworld")
    assert caught.value.what == "the package 'surely_absent' is not installed"
    assert caught.value.cure == "pip install 'policysmith[metaworld]'"
    assert isinstance(caught.value, ImportError)


def test_an_installed_package_is_not_said_to_be_absent_when_a_part_of_it_is(package):
    package("half_there")
    with pytest.raises(MissingExtraError, match=r"'half_there\.part' is not installed"):
        require("half_there.part", extra="x")


def test_what_an_installed_package_lacks_itself_is_passed_on(package):
    package("lacking", __init__="import surely_absent")
    with pytest.raises(ModuleNotFoundError, match="surely_absent") as caught:
        require("lacking", extra="x")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_missing_module_inside_an_installed_package_is_passed_on(package):
    package("torn", part="import torn.gone")
    with pytest.raises(ModuleNotFoundError, match=r"torn\.gone") as caught:
        require("torn.part", extra="x")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_package_whose_name_begins_alike_is_not_mistaken_for_it(package):
    package("surely", __init__="import sure")
    with pytest.raises(ModuleNotFoundError) as caught:
        require("surely", extra="x")
    assert not isinstance(caught.value, MissingExtraError)


def test_other_errors_of_an_import_are_passed_on(package):
    package("broken_import", __init__="from math import nothing")
    package("broken_code", __init__="1 / 0")
    with pytest.raises(ImportError, match="nothing") as caught:
        require("broken_import", extra="x")
    assert not isinstance(caught.value, MissingExtraError)
    with pytest.raises(ZeroDivisionError):
        require("broken_code", extra="x")

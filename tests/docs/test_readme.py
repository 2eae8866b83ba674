"""The catalogue in the README."""

from __future__ import annotations

import pytest
import readme


def test_the_readme_is_up_to_date():
    text = readme.README.read_text(encoding="utf-8")
    assert text == readme.with_catalogue(text), "run `make readme`"


def test_what_is_outside_the_markers_stays():
    text = f"before\n\n{readme.BEGIN}\nbygone\n{readme.END}\n\nafter\n"
    written = readme.with_catalogue(text)
    assert written.startswith(f"before\n\n{readme.BEGIN}\n\n| system |")
    assert written.endswith(f"{readme.END}\n\nafter\n")
    assert "bygone" not in written
    assert readme.with_catalogue(written) == written


def test_lost_markers_are_an_error():
    with pytest.raises(ValueError, match="lost its markers"):
        readme.with_catalogue(f"text {readme.BEGIN} text")

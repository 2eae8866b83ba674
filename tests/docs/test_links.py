"""Links from the checkout to pages of the site, and the check of a built site."""

from __future__ import annotations

import pytest
from docsite import links


@pytest.mark.parametrize(
    ("file", "page"),
    [
        ("docs/guides/numbers.md", "guides/numbers.md"),
        ("CHANGELOG.md", "changelog.md"),
        ("benchmarks/README.md", "benchmarks.md"),
        ("examples/docking.py", "examples/docking.md"),
        ("src/policysmith/policies/streaming.py", "reference/policies.md#policies-streaming"),
        (
            "src/policysmith/training/learners/diffusion.py",
            "reference/training.md#training-learners-diffusion",
        ),
        ("pyproject.toml", None),
    ],
)
def test_files_of_the_checkout_have_their_page(file, page):
    assert links.site_path(file) == page


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[a](../src/policysmith/policies/streaming.py)", "[a](reference/policies.md#policies-streaming)"),
        ("[a](../CONTRIBUTING.md#style)", "[a](contributing.md#style)"),
        ("[a](guides/numbers.md#verdicts)", "[a](guides/numbers.md#verdicts)"),
        ("[a](#here) [b](https://example.org/x.py)", "[a](#here) [b](https://example.org/x.py)"),
        ("[a](../pyproject.toml)", "[a](../pyproject.toml)"),
        (
            "```\n[a](../CHANGELOG.md)\n```\n[a](../CHANGELOG.md)",
            "```\n[a](../CHANGELOG.md)\n```\n[a](changelog.md)",
        ),
    ],
)
def test_links_of_a_page_lead_to_pages(written, read):
    assert links.rewrite(written, origin="docs/write-a-system.md", page="write-a-system.md") == read


def test_links_begin_at_the_folder_of_their_file():
    text = "[a](docs/systems/sdp.md)"
    assert links.rewrite(text, origin="CHANGELOG.md", page="changelog.md") == "[a](systems/sdp.md)"
    text = "[a](../../src/policysmith/common/keys.py)"
    found = links.rewrite(text, origin="docs/systems/sdp.md", page="systems/sdp.md")
    assert found == "[a](../reference/common.md#common-keys)"


def test_markers_are_filled_and_unknown_ones_refused():
    text = "before\n<!-- site: counts -->\nafter\n"
    assert links.fill(text, {"counts": lambda: "| 1 |"}) == "before\n| 1 |\nafter\n"
    with pytest.raises(KeyError):
        links.fill(text, {})


def built(folder, **pages):
    """A site of the given pages, a stylesheet and a folder with an index."""
    (folder / "guides").mkdir()
    (folder / "style.css").write_text("")
    (folder / "guides" / "index.html").write_text('<h1 id="top"></h1><a href="../index.html">home</a>')
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text)
    return links.problems(folder)


def test_a_sound_site_has_no_problems(tmp_path):
    text = """<link rel="stylesheet" href="style.css"><a href="guides/#top">a</a>
    <a href="guides/index.html">b</a>
    <a href="#here" id="here">c</a><a href="https://example.org">d</a><a href="mailto:a@example.org">e</a>"""
    assert built(tmp_path, index=text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<a href="gone.html">a</a>', "gone.html is not there"),
        ('<a href="guides/index.html#gone">a</a>', "guides/index.html#gone has no such anchor"),
        ('<a href="#gone">a</a>', "#gone has no such anchor"),
        ('<img src="gone.png">', "gone.png is not there"),
        ('<a href="../../etc/passwd">a</a>', "../../etc/passwd is not there"),
        ('<script src="https://example.org/x.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "from another host"),
    ],
)
def test_what_leads_nowhere_or_elsewhere_is_found(tmp_path, text, said):
    (problem,) = built(tmp_path, index=text)
    assert problem.startswith("index.html: ")
    assert said in problem

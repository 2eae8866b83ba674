"""Pages made from the catalogue, the claim records and the key names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from docsite import pages
from docsite.pages import Entry

from policysmith.claims.records import find_record
from policysmith.common.catalogue import find_system
from policysmith.common.keys import KEYS

ROOT = Path(__file__).parents[2]
SDP = Entry(find_system("sdp"), find_record("sdp"))
BASELINE = Entry(find_system("diffusion-policy"), None)
PLANNED = Entry(dataclasses.replace(SDP.system, name="not-here"), None)


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table, head and rule left out."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_whole_catalogue_is_listed_once():
    entries = pages.catalogue()
    numbers = [entry.system.number for entry in entries if entry.system.number is not None]
    assert numbers == list(range(1, 92))
    text = pages.family_tables(entries)
    for entry in entries:
        assert text.count(f"[`{entry.system.name}`](") == 1


def test_every_family_of_the_catalogue_has_a_title():
    assert {entry.system.family for entry in pages.catalogue()} == set(pages.FAMILIES)


def test_a_verdict_is_the_records_own_or_says_why_there_is_none():
    assert SDP.claim is not None
    assert SDP.verdict == SDP.claim.verdict
    assert BASELINE.verdict == "baseline"
    assert Entry(SDP.system, None).verdict == "not measured yet"
    assert PLANNED.verdict == "planned"


def test_counts_add_up_over_the_families():
    *families, total = rows(pages.family_counts([SDP, BASELINE, PLANNED]))
    assert families == [["Generative policies", "2", "1"]]
    assert total == ["**all**", "**2**", "**1**"]
    every = rows(pages.family_counts(pages.catalogue()))
    assert sum(int(ready) + int(planned) for _, ready, planned in every[:-1]) == len(pages.catalogue())


def test_only_ready_systems_are_in_the_table_of_ready_ones():
    (one, two) = rows(pages.ready_table([SDP, PLANNED, BASELINE], folder="docs/systems/"))
    assert one[0].endswith("(docs/systems/sdp.md)")
    assert one[3] == f"**{SDP.verdict}**"
    assert two[3] == "baseline"


def test_planned_systems_lead_to_their_paper_and_ready_ones_to_their_page():
    text = pages.family_tables([SDP, PLANNED])
    assert "[`sdp`](sdp.md)" in text
    assert f"[`not-here`](https://arxiv.org/abs/{SDP.system.arxiv})" in text
    assert "## Generative policies {#generative-policies}" in text


def test_a_systems_page_keeps_the_prose_and_adds_facts_settings_and_record():
    text = pages.system_page(SDP, "# A title\n\n## The idea\n\nWords.\n", picture="sdp.png")
    order = [
        "# A title",
        'class="facts"',
        "## The idea\n\nWords.",
        "## Settings",
        "## Claim record",
        "sdp.png",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "| `noise_levels` | `100` | `100` | `50` | `6` |" in text


def test_the_record_on_a_page_is_the_committed_one():
    assert SDP.claim is not None
    text = pages.record_section(SDP)
    for one in SDP.claim.comparisons:
        assert str(one.difference).replace(", ", ",&nbsp;") in text
    assert SDP.claim.date in text
    assert '<details markdown="1">' in text


def test_settings_in_the_record_are_not_touched():
    assert SDP.claim is not None
    assert "&nbsp;" not in pages.record_section(SDP).partition("<details")[2]


def test_a_system_without_record_says_so_and_a_baseline_why():
    assert "has not been run yet" in pages.record_section(Entry(SDP.system, None))
    assert "baseline" in pages.record_section(BASELINE)


def test_without_prose_the_recipes_own_words_stand_in():
    text = pages.system_page(SDP, "")
    assert text.startswith("# SDP: Streaming Diffusion Policy\n")
    assert "The buffer of Tp actions is noisier the further ahead it looks" in text


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "systems").glob("*.md")), ids=lambda path: path.stem)
def test_prose_does_not_repeat_what_is_generated(path):
    text = path.read_text(encoding="utf-8")
    assert "<summary>Settings</summary>" not in text
    assert "| arm | runs |" not in text


def test_every_key_is_on_the_page_in_its_group():
    source = (ROOT / "src" / "policysmith" / "common" / "keys.py").read_text(encoding="utf-8")
    text = pages.key_tables(source)
    for key in KEYS:
        assert text.count(f"| `{key}` |") == 1
    assert "## Other" not in text
    assert (
        "| `noise_level` | `[row, time] int` | the level of each position: -1 clean, N-1 pure noise |" in text
    )


def test_a_bar_does_not_end_its_cell():
    assert pages.table(["a"], [["x | y"]]).splitlines()[-1] == "| x \\| y |"


def test_plain_text_is_not_markup_but_code_is():
    assert pages.escape("a_b *c* <d> [e]") == "a\\_b \\*c\\* &lt;d> \\[e\\]"
    assert pages.escape("`a_b <c>` & d") == "`a_b <c>` &amp; d"

"""What the build of the site adds, and what it complains of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docsite.pages import Entry
from mkdocs.config import load_config
from mkdocs.structure.files import Files

from policysmith.common.catalogue import find_system

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config():
    return load_config(str(ROOT / "mkdocs.yml"))


@pytest.fixture
def hook(config) -> Any:
    """The hook as MkDocs has loaded it."""
    return config["hooks"]["scripts/docs_hook.py"]


def added(config) -> set[str]:
    """The pages and pictures that are added to a site without any written page."""
    return {file.src_uri for file in config.plugins.on_files(Files([]), config=config)}


def leaves(navigation: Any) -> Iterator[str]:
    """The pages of a navigation, whatever sections they are in."""
    if isinstance(navigation, str):
        yield navigation
        return
    for entry in navigation.values() if isinstance(navigation, dict) else navigation:
        yield from leaves(entry)


def test_generated_pages_are_added(config):
    files = added(config)
    assert {"changelog.md", "contributing.md", "examples/docking.md", "reference/policies.md"} <= files
    assert {"systems/sdp.md", "systems/sdp.png"} <= files


def test_the_navigation_leads_to_every_generated_page(config, hook):
    before = set(leaves(config.nav))
    hook.on_config(config)
    assert set(leaves(config.nav)) - before == {*hook.READY, *hook.EXAMPLES, *hook.STAGE_PAGES}


def test_a_ready_system_without_prose_is_a_warning(config, caplog):
    with caplog.at_level(logging.WARNING):
        added(config)
    assert "'sdp' is ready and has no prose (docs/systems/sdp.md)" in caplog.text


def test_a_ready_system_without_record_is_told_unless_it_is_a_baseline(config, hook, caplog, monkeypatch):
    entries = {f"systems/{name}.md": Entry(find_system(name), None) for name in ("sdp", "diffusion-policy")}
    monkeypatch.setattr(hook, "READY", entries)
    with caplog.at_level(logging.INFO):
        added(config)
    assert "'sdp' is ready and has no claim record" in caplog.text
    assert "'diffusion-policy' is ready and has no claim record" not in caplog.text


def test_every_ready_system_has_its_prose(hook):
    missing = [page for page in hook.READY if not (ROOT / "docs" / page).is_file()]
    assert not missing, "docs/write-a-system.md says what to write"

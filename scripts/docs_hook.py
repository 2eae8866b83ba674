"""What MkDocs calls while it builds the site: puts generated pages beside the written ones.

- A page per ready system: its prose (docs/systems/NAME.md) with facts, settings and claim record.
- A page per stage from the docstrings, one per example, and the documents at the top of the checkout.
- `<!-- site: NAME -->` on a line of its own, in any written page, is replaced by what `PARTS` makes.

A ready system without prose is a warning, which ends a strict build; one without a record is told, and its
page says so. After the build, every link of every page is followed.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docsite import links, pages, reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from policysmith.claims.records import record_path
from policysmith.cli.main import VERBS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "policysmith"
log = logging.getLogger("mkdocs.hooks.policysmith")

ENTRIES = pages.catalogue()
READY = {f"systems/{entry.system.name}.md": entry for entry in ENTRIES if entry.ready}
STAGE_PAGES = {f"reference/{stage}.md": stage for stage in reference.stages(PACKAGE)}
EXAMPLES = {f"examples/{path.stem}.md": path for path in sorted((ROOT / "examples").glob("*.py"))}
PARTS: dict[str, Callable[[], str]] = {
    "catalogue": lambda: pages.family_tables(ENTRIES),
    "counts": lambda: pages.family_counts(ENTRIES, catalogue_page="systems/index.md"),
    "ready": lambda: pages.ready_table(ENTRIES, folder="systems/"),
    "keys": lambda: pages.key_tables((PACKAGE / "common" / "keys.py").read_text(encoding="utf-8")),
    "options": lambda: reference.option_tables(PACKAGE / "cli", VERBS),
    "stages": lambda: reference.stage_list(PACKAGE),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation."""
    families = pages.by_family(READY.values())
    systems: list[Any] = [
        {pages.FAMILIES.get(family, family): [f"systems/{entry.system.name}.md" for entry in members]}
        for family, members in families.items()
    ]
    more = {"Systems": systems, "Examples": list(EXAMPLES), "Reference": list(STAGE_PAGES)}
    for section in config.nav or []:
        for title, members in more.items():
            if title in section:
                section[title] += members
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated files."""
    made: dict[str, str | bytes] = {
        page: reference.stage_page(PACKAGE, stage) for page, stage in STAGE_PAGES.items()
    }
    made |= {page: _example(path) for page, path in EXAMPLES.items()}
    made |= {page: (ROOT / file).read_text(encoding="utf-8") for page, file in links.INCLUDED.items()}
    for page, entry in READY.items():
        if files.get_file_from_path(page) is None:
            log.warning("The system '%s' is ready and has no prose (docs/%s).", entry.system.name, page)
            made[page] = ""
        if entry.claim is None and entry.system.number is not None:
            log.info("The system '%s' is ready and has no claim record.", entry.system.name)
        if (picture := record_path(entry.system.name).with_suffix(".png")).is_file():
            made[f"systems/{picture.name}"] = picture.read_bytes()
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill a written page's markers, dress a system's prose, and lead links to pages of the site."""
    path = page.file.src_uri
    if path in READY:
        picture = f"{READY[path].system.name}.png"
        there = files.get_file_from_path(f"systems/{picture}") is not None
        markdown = pages.system_page(READY[path], markdown, picture=picture if there else "")
    markdown = links.fill(markdown, PARTS)
    return links.rewrite(markdown, origin=links.INCLUDED.get(path, f"docs/{path}"), page=path)


def on_post_build(config: MkDocsConfig) -> None:
    """Follow every link of the built site."""
    for problem in links.problems(Path(config.site_dir)):
        log.warning("%s", problem)


def _example(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    summary = (ast.get_docstring(ast.parse(source)) or path.stem).split("\n")[0]
    return f"# {path.name}\n\n{pages.escape(summary)}\n\n```python\n{source}```\n"

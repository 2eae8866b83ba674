"""Links: from files of the checkout to pages of the site, and whether every one of a built site arrives.

A page in docs/ is read in two places. In the checkout it links to source files, examples and other documents
by their paths; on the site the same links lead to the pages that show them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

INCLUDED: dict[str, str] = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "benchmarks.md": "benchmarks/README.md",
}
"""Documents outside docs/ that are pages too: the page, and the file in the checkout."""

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def site_path(path: str) -> str | None:
    """Where the site shows the file `path` of the checkout, None where it does not."""
    for page, file in INCLUDED.items():
        if path == file:
            return page
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if example := re.fullmatch(r"examples/(\w+)\.py", path):
        return f"examples/{example[1]}.md"
    if module := re.fullmatch(r"src/policysmith/(\w+)/([\w/]+)\.py", path):
        return f"reference/{module[1]}.md#{anchor(f'{module[1]}.{module[2]}')}"
    return None


def anchor(module: str) -> str:
    """The anchor of a module on the page of its stage: `policies.streaming` is `policies-streaming`."""
    return module.removeprefix("policysmith.").replace(".", "-").replace("/", "-").replace("_", "-")


def rewrite(text: str, *, origin: str, page: str) -> str:
    """The Markdown of the file `origin` of the checkout with its links made right for `page` of the site.

    Links within docs/, to elsewhere on the network and to anchors stay; so does one that the site does not
    show, which the build then reports. Code is left alone.
    """

    def replace(match: re.Match[str]) -> str:
        target, _, fragment = match[2].partition("#")
        if not target or urlsplit(target).scheme:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        found = site_path(path)
        if found is None:
            return match[0]
        relative, _, own = found.partition("#")
        address = posixpath.relpath(relative, posixpath.dirname(page) or ".")
        fragment = fragment or own
        return f"{match[1]}{address}{'#' + fragment if fragment else ''}{match[3]}"

    pieces = _FENCE.split(text)
    return "".join(piece if i % 2 else _LINK.sub(replace, piece) for i, piece in enumerate(pieces))


_MARKER = re.compile(r"^<!-- site: ([a-z-]+) -->$", re.MULTILINE)


def fill(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Put the part called NAME after each line `<!-- site: NAME -->`; KeyError names one that is unknown."""
    return _MARKER.sub(lambda match: parts[match[1]](), text)


# ---- the built site ----------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Collects the addresses a page refers to, what it loads while it is shown, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag == "link" and values.get("rel") in ("canonical", "next", "prev", "alternate"):
            pass
        else:
            self.loaded |= {values[name] for name in ("src", "href", "poster") if name in values}


def problems(folder: Path) -> list[str]:
    """What is wrong with the links of a built site: pages, files and anchors that are not there, and whatever
    a page would load from another host."""
    pages = {
        path.relative_to(folder).as_posix(): _Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
    }
    found = []
    for name, page in pages.items():
        if name == "404.html":  # shown at any depth, so its addresses begin at the site's root
            continue
        for address in sorted(page.links | page.loaded):
            parts = urlsplit(address)
            if parts.scheme in ("data", "mailto", "javascript"):
                continue
            if parts.scheme or parts.netloc:
                if address in page.loaded:
                    found.append(f"{name}: loads {address} from another host")
                continue
            target = _target(folder, name, unquote(parts.path))
            if target is None:
                found.append(f"{name}: {address} is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{name}: {address} has no such anchor")
    return found


def _target(folder: Path, page: str, path: str) -> str | None:
    """The file of the site that a path on `page` leads to, None where there is none."""
    if not path:
        return page
    name = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    for candidate in (name, posixpath.join(name, "index.html")):
        if not candidate.startswith("..") and (folder / candidate).is_file():
            return posixpath.normpath(candidate)
    return None

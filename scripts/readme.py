"""Write the catalogue into README.md, between its markers, from the same data as the site's pages.

python scripts/readme.py            # what `make readme` runs
"""

from __future__ import annotations

import sys
from pathlib import Path

from docsite import pages

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- catalogue: written by `make readme` -->", "<!-- end of the catalogue -->"


def with_catalogue(text: str) -> str:
    """The README's text with the catalogue between its markers as it is now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the README has lost its markers: {BEGIN} and {END}")
    entries = pages.catalogue()
    parts = [pages.ready_table(entries, folder="docs/systems/"), pages.family_counts(entries)]
    return f"{before}{begin}\n\n" + "\n\n".join(parts) + f"\n\n{end}{after}"


def main() -> int:
    """Rewrite the README where it is out of date."""
    text = README.read_text(encoding="utf-8")
    written = with_catalogue(text)
    if written != text:
        README.write_text(written, encoding="utf-8")
    sys.stdout.write(f"README.md is {'rewritten' if written != text else 'up to date'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

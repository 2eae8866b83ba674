"""A report: one HTML file with tables, figures, videos and samples, that needs nothing but itself.

Pictures and videos are inside the file; there are no scripts and no outside fonts or styles, and the page's
own policy forbids the browser to load any. All text is escaped. Light and dark follow the reader's system.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from policysmith.common.errors import DataError
from policysmith.common.saving import write_beside
from policysmith.evaluation.findings import Table, shown
from policysmith.evaluation.report_style import STYLE
from policysmith.evaluation.statistics import Verdict

_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class _Block:
    """A piece of the page; neighbouring pictures share a row where the page is wide."""

    html: str
    picture: bool = False


class Report:
    """A page under a title, filled from top to bottom; every adder returns the report, so calls chain.

    Values in tables and facts are shown by `str`, numbers with four significant digits.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[_Block] = []

    def heading(self, text: str) -> Report:
        """Begin a section."""
        return self._add(f"<h2>{_escape(text)}</h2>")

    def text(self, *paragraphs: str) -> Report:
        """Paragraphs of plain text; an empty line within one starts another."""
        parts = [part.strip() for paragraph in paragraphs for part in paragraph.split("\n\n")]
        return self._add("".join(f"<p>{_escape(part)}</p>" for part in parts if part))

    def verdict(self, verdict: Verdict, reason: str = "") -> Report:
        """Whether a claim holds, set off from the rest, with the reason."""
        if verdict not in get_args(Verdict):
            raise DataError(f"the verdict is '{verdict}'", expected=", ".join(get_args(Verdict)))
        return self._add(
            f'<p class="verdict {verdict}"><strong>{verdict.capitalize()}</strong> {_escape(reason)}</p>'
        )

    def facts(self, facts: Mapping[str, object], caption: str = "") -> Report:
        """Names and values, side by side."""
        pairs = "".join(
            f"<div><dt>{_escape(name)}</dt><dd>{_escape(shown(value))}</dd></div>"
            for name, value in facts.items()
        )
        return self._add(f"{_heading(caption)}<dl>{pairs}</dl>")

    def table(self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Report:
        """A table; columns of numbers and intervals are aligned to the right.

        Raises `ShapeError` where a row has not as many cells as there are columns.
        """
        Table(caption, columns, rows)  # checks the widths
        cells = [[shown(value) for value in row] for row in rows]
        right = [bool(cells) and all(_is_numeric(row[i]) for row in cells) for i in range(len(columns))]
        head = _row("th", columns, right)
        body = "".join(_row("td", row, right) for row in cells)
        return self._add(
            f'{_heading(caption)}<div class="scroll" tabindex="0"><table aria-label="{_escape(caption)}">'
            f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
        )

    def figure(self, svg: str, caption: str) -> Report:
        """A picture, as the SVG text that `plots.svg` gives."""
        # As an image and not as markup: what an image holds can neither run nor change the page.
        image = f'<img alt="{_escape(caption)}" src="{_data("image/svg+xml", svg.encode())}">'
        content = f'<div class="scroll">{image}</div><figcaption>{_escape(caption)}</figcaption>'
        self._blocks.append(_Block(f"<figure>{content}</figure>", picture=True))
        return self

    def video(self, mp4: bytes, caption: str) -> Report:
        """A film on a row of its own, as the bytes that `video.encode` gives; the reader starts it."""
        return self._add(
            f'<figure class="film"><video controls loop muted playsinline preload="auto" '
            f'aria-label="{_escape(caption)}" src="{_data("video/mp4", mp4)}"></video>'
            f"<figcaption>{_escape(caption)}</figcaption></figure>"
        )

    def samples(
        self,
        caption: str,
        samples: Sequence[Mapping[str, object]],
        *,
        text: Sequence[str] = ("prompt", "answer"),
    ) -> Report:
        """Sampled text, a card each: the fields named in `text` as they are, the others as small facts.

        Line breaks and spaces are kept; text of more than 1200 characters can be unfolded.
        """
        cards = []
        for sample in samples:
            texts = "".join(_sampled(name, str(sample[name])) for name in text if name in sample)
            cards.append(f"<article>{_marks(sample, but=text)}{texts}</article>")
        return self._add(f'{_heading(caption)}<div class="samples">{"".join(cards)}</div>')

    def conversations(self, caption: str, samples: Sequence[Mapping[str, Any]]) -> Report:
        """Conversations, a card each: `conversation` as lines of (who, text), the rest as small facts.

        What the policy said is set apart from what the world said.
        """
        cards = []
        for sample in samples:
            lines = "".join(
                f'<p class="said {"policy" if who == "policy" else "world"}"><b>{_escape(who)}</b>'
                f"<span>{_escape(text)}</span></p>"
                for who, text in sample["conversation"]
            )
            cards.append(f"<article>{_marks(sample, but=('conversation',))}{lines}</article>")
        return self._add(f'{_heading(caption)}<div class="samples">{"".join(cards)}</div>')

    def html(self) -> str:
        """The whole page."""
        subtitle = f'<p class="subtitle">{_escape(self.subtitle)}</p>' if self.subtitle else ""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{_escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<header><h1>{_escape(self.title)}</h1>{subtitle}</header>\n{self._body()}\n"
            "</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page; a reader of `path` sees the old page or the whole new one."""
        with write_beside(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")

    def _add(self, block: str) -> Report:
        self._blocks.append(_Block(block))
        return self

    def _body(self) -> str:
        parts, row = [], []
        for block in [*self._blocks, _Block("")]:
            if block.picture:
                row.append(block.html)
                continue
            if row:
                parts.append(f'<div class="pictures">{"".join(row)}</div>')
                row = []
            parts.append(block.html)
        return "\n".join(part for part in parts if part)


# ---- parts -------------------------------------------------------------------------------------------


def _escape(text: str) -> str:
    return html.escape(str(text), quote=True)


def _heading(caption: str) -> str:
    return f"<h3>{_escape(caption)}</h3>" if caption else ""


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _row(tag: str, cells: Sequence[str], right: Sequence[bool]) -> str:
    aligned = zip(cells, right, strict=True)
    return "<tr>" + "".join(f"<{tag}{' class=n' * r}>{_escape(c)}</{tag}>" for c, r in aligned) + "</tr>"


def _is_numeric(text: str) -> bool:
    """Whether a cell reads as a number, perhaps with an interval, a sign of percent, or nothing."""
    first = text.split(" [")[0].split(" (")[0].rstrip("%").replace(",", "")
    if first in ("", "-"):
        return True
    try:
        return not math.isnan(float(first))
    except ValueError:
        return False


def _marks(sample: Mapping[str, object], *, but: Sequence[str]) -> str:
    """The small facts of a card: all of a sample but its texts."""
    facts = "".join(
        f"<span>{_escape(name)} <b>{_escape(shown(value))}</b></span>"
        for name, value in sample.items()
        if name not in but
    )
    return f"<p class=marks>{facts}</p>" if facts else ""


def _sampled(name: str, text: str) -> str:
    block = f"<pre>{_escape(text)}</pre>"
    if len(text) > 1200:
        start = _escape(text[:160].rstrip())
        block = f"<details><summary>{start}… ({len(text)} characters)</summary>{block}</details>"
    return f"<h4>{_escape(name)}</h4>{block}"

import base64
import re
from html.parser import HTMLParser

import pytest

from policysmith.common.errors import DataError, ShapeError
from policysmith.evaluation.report import Report
from policysmith.evaluation.statistics import Interval

NASTY = """<script>alert(1)</script>"'&<img src=x onerror=y>"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


class Page(HTMLParser):
    """Tags with their attributes, and the text, as a browser would read them."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def names(self) -> list[str]:
        return [tag for tag, _ in self.tags]


def full(text: str = "words") -> Report:
    report = Report(text, text).heading(text).text(text).verdict("holds", text).facts({text: text}, text)
    report.table(text, [text, "b"], [[text, 1.0]]).figure(SVG, text).video(b"film", text)
    return report.samples(text, [{"prompt": text, "answer": text, text: text}])


def test_whatever_is_given_is_text_and_never_markup():
    nasty, plain = Page(full(NASTY).html()), Page(full().html())
    assert nasty.names() == plain.names()
    assert "script" not in nasty.names()
    assert nasty.text["h1"] == [NASTY]
    assert nasty.text["title"] == [NASTY]
    assert nasty.text["pre"] == [NASTY, NASTY]
    images = [attributes for tag, attributes in nasty.tags if tag == "img"]
    assert [image["alt"] for image in images] == [NASTY]
    assert set(images[0]) == {"alt", "src"}


def test_tags_are_closed_in_their_order():
    assert Page(full().html()).open == []


def test_the_page_needs_and_allows_nothing_from_outside():
    page = Page(full().html())
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    addresses = [a[key] for _, a in page.tags for key in ("src", "href", "srcset") if key in a]
    assert all(address.startswith("data:") for address in addresses)
    style = "".join(page.text["style"])
    assert not re.search(r"url\(|@import|https?:", style)


def test_pictures_and_films_are_inside_as_they_were_given():
    page = Page(full().html())
    found = {tag: a["src"] for tag, a in page.tags if "src" in a}
    kind, _, content = found["img"].partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(content).decode() == SVG
    assert base64.b64decode(found["video"].partition(";base64,")[2]) == b"film"
    assert found["video"].startswith("data:video/mp4")


def test_columns_of_numbers_are_aligned_to_the_right():
    rows = [["a", Interval(0.8, 0.7, 0.9), "1.5 %", 1.0], ["b", "0.5 (no interval)", "12%", 0.123456]]
    page = Page(Report("t").table("c", ["arm", "success", "late", "ms"], rows).html())
    cells = [a.get("class") for tag, a in page.tags if tag == "td"]
    assert cells == [None, "n", "n", "n"] * 2
    assert page.text["td"][-1] == "0.1235"
    assert page.text["td"][1] == "0.80 [0.70, 0.90]"


def test_an_empty_table_keeps_its_head():
    page = Page(Report("t").table("c", ["arm"], []).html())
    assert page.text["th"] == ["arm"]


def test_neighbouring_pictures_share_a_row():
    report = Report("t").figure(SVG, "a").figure(SVG, "b").text("between").figure(SVG, "c")
    rows = [a for tag, a in Page(report.html()).tags if tag == "div" and a.get("class") == "pictures"]
    assert len(rows) == 2


def test_blocks_stay_in_the_order_in_which_they_were_added():
    html = Report("t").text("first").figure(SVG, "second").text("third").facts({"fourth": 4}).html()
    places = [html.index(word) for word in (">first<", ">second<", ">third<", ">fourth<")]
    assert places == sorted(places)


def test_an_empty_line_begins_a_paragraph():
    assert Page(Report("t").text("a\n\nb", "c").html()).text["p"] == ["a", "b", "c"]


def test_samples_keep_their_line_breaks_and_long_ones_are_folded():
    samples = [{"answer": "one\n  two", "reward": 0.5}, {"answer": "x" * 1500}]
    page = Page(Report("t").samples("c", samples).html())
    assert page.text["pre"] == ["one\n  two", "x" * 1500]
    assert page.names().count("details") == 1
    assert "(1500 characters)" in page.text["summary"][0]
    assert page.text["b"] == ["0.5"]


def test_conversations_say_who_spoke_and_nobodys_words_are_markup():
    said = [("world", "<b>1\n2</b>"), ("policy", NASTY), ("world", "right")]
    page = Page(Report("t").conversations("c", [{"conversation": said, "reward": 0.5}]).html())
    assert page.text["b"] == ["0.5", "world", "policy", "world"]
    assert page.text["span"][-3:] == [text for _, text in said]
    marks = [attributes.get("class") for tag, attributes in page.tags if tag == "p"]
    assert marks[-3:] == ["said world", "said policy", "said world"]
    assert page.open == []


def test_both_themes_and_the_phone_are_provided_for():
    html = full().html()
    assert "prefers-color-scheme:dark" in html
    assert 'name="viewport" content="width=device-width' in html


def test_writing_replaces_the_page_as_a_whole(tmp_path):
    path = tmp_path / "pages" / "report.html"
    Report("old").write(path)
    Report("new ✓").write(path)
    assert Page(path.read_text(encoding="utf-8")).text["h1"] == ["new ✓"]
    assert list(path.parent.iterdir()) == [path]


def test_misuse_is_told_in_words():
    with pytest.raises(ShapeError, match="row 1 has 1 cells"):
        Report("t").table("c", ["a", "b"], [[1, 2], [3]])
    with pytest.raises(DataError, match="holds, fails, undecided"):
        Report("t").verdict("true")

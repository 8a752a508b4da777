"""Hits and explanations as HTML: whatever users wrote is text, and what matched is marked."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import Explanation, Hit, Match
from tansaku.plugin.search.explain_html import Explained, explain_page, explanation_html, hits_html


class Page(HTMLParser):
    """The text that a reader sees, the tags, and the marked words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.marks = "", [], []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data
        if self._open and self._open[-1] == "mark":
            self.marks.append(data)


def explanation(text="京都は794年から都だった。", query="首都", span=(9, 10), weight=2.0):
    return Explanation(
        "kyoto", 1.8, text, (Match(0.9, weight, (0, len(query)), query, span, text[slice(*span)]),), cut=True
    )


@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_what_users_wrote_is_text(text, query, doc_id):
    span = (0, 1)
    one = Explanation(doc_id, 1.0, text, (Match(0.9, 1.0, (0, len(query)), query, span, text[:1]),))
    page = Page(explain_page([Explained(query, [one])]))
    assert {tag for tag, _ in page.tags} <= set("html head meta title style body main h1 section h2 p mark details "
                                                 "summary div table thead tbody tr th td meter".split())  # fmt: skip
    assert all(part in page.text for part in (text, query, doc_id))


def test_the_page_asks_for_nothing_from_outside():
    page = explain_page([Explained("首都", [explanation()])])
    assert "script" not in page
    assert not re.search(r"( src=| href=|url\(|@import)", page)
    assert "default-src 'none'" in page


def test_what_matched_is_marked_and_explained():
    page = Page(explain_page([Explained("首都", [explanation()])]))
    assert page.marks == ["都"]
    (mark,) = [attributes for tag, attributes in page.tags if tag == "mark"]
    assert mark == {"class": "s7", "title": "首都 0.90"}
    assert "京都は794年から都だった。" in page.text
    assert "longer than the model reads" in page.text


def test_the_page_speaks_japanese():
    page = explain_page([Explained("首都", [explanation()]), Explained("海", [])], language="ja")
    assert '<html lang="ja">' in page
    assert "スコア 1.800" in page
    assert "何も見つかりませんでした" in page


@pytest.mark.parametrize("weight", [0.0, 1e-9, 5.0])
def test_shades_follow_what_a_match_adds(weight):
    strong = Match(0.9, 5.0, (0, 1), "犬", (0, 1), "犬")
    other = Match(0.9, weight, (1, 2), "の", (1, 2), "の")
    page = Page(explanation_html(Explanation("a", 1.0, "犬の話", (strong, other))))
    assert page.marks == (["犬", "の"] if weight == 5 else ["犬"])


def test_hits_are_a_table():
    hits = [Hit("<b>", 1.5, "題", "文" * 300)]
    page = Page(hits_html(hits))
    assert "<b>" in page.text
    assert "文" * 200 + "…" in page.text


def test_notebooks_show_both():
    assert "kyoto" in explanation()._repr_html_()

"""Snippets: the part of a text that matches most, and what is marked in it."""

from __future__ import annotations

import pytest

from tansaku import Index, InputError, Searcher, Snippet

from ...support.fakes import FakeEncoder

FILLER = "海の水は塩辛く、地球の表面の七割を占める。"


@pytest.fixture(scope="module")
def searcher(default_encoder, tmp_path_factory):
    db = tmp_path_factory.mktemp("snippets")
    documents = [
        {"id": "late", "title": "首都", "text": FILLER * 8 + "日本の首都は\n東京である。" + FILLER * 3},
        {"id": "short", "text": "日本の首都は東京である。"},
    ]
    Index.create(db, "t", documents, encoder=default_encoder)
    return Searcher.open(db, "t", encoder=default_encoder)


def marked(snippet: Snippet) -> list[str]:
    return [snippet.text[start:end] for start, end in snippet.marks]


def test_the_place_that_matches_is_shown_and_marked(searcher):
    query = "日本の首都は東京？"
    late, short = searcher.snippets(query, ["late", "short"], chars=40)
    (hit,) = searcher.search(query, ids=["late"])
    assert hit.text[late.start : late.start + 40] == late.text
    assert late.start > 0
    assert "日本の首都は\n東京" in late.text
    assert "東京" in "".join(marked(late))
    assert (short.text, short.start) == ("日本の首都は東京である。", 0)
    assert "海" not in "".join(marked(late))


def test_marks_are_in_order_apart_and_within_the_snippet(searcher):
    for chars in (1, 7, 80, 10_000):
        for snippet in searcher.snippets("首都の水は東京", ["late", "short"], chars=chars):
            assert len(snippet.text) <= chars
            places = [0, *(place for mark in snippet.marks for place in mark), len(snippet.text)]
            assert places == sorted(places)
            assert all(text and not text[0].isspace() for text in marked(snippet))


def test_of_a_document_in_passages_the_best_one_is_shown(tmp_path):
    Index.create(tmp_path, "t", [{"id": "a", "text": "0123. 4567. 89ab."}], encoder=FakeEncoder(), passage_tokens=6)
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
    document, passage = searcher.snippets("4567", ["a", "a#2"])
    assert (document.text, passage.text) == ("4567.", "89ab.")
    assert "".join(marked(document)) in "4567."


def test_pooled_vectors_have_no_place(tmp_path):
    pytest.importorskip("scipy")
    Index.create(tmp_path, "t", [{"id": "a", "text": "0123456789"}], encoder=FakeEncoder(), pool=2)
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
    assert searcher.snippets("89", ["a"], chars=4) == [Snippet("0123", 0)]


def test_unknown_ids_and_numbers_below_one_are_refused(searcher):
    with pytest.raises(InputError, match="no document with the id 'cat'"):
        searcher.snippets("首都", ["cat"])
    with pytest.raises(InputError, match="chars is 0"):
        searcher.snippets("首都", ["late"], chars=0)

"""An index that began small and has grown: its codec has too few centroids, and that is noticed and made up for."""

from __future__ import annotations

import logging

import pytest

from tansaku import Index, Searcher
from tansaku.indexer.codec.codec import default_centroids

from ...support.fakes import FakeEncoder, corpus

DOCS = corpus(700)


@pytest.fixture
def grown(tmp_path):
    index = Index.create(tmp_path, "t", DOCS[:1], encoder=FakeEncoder())
    index.add(DOCS[1:])
    return tmp_path


def test_documents_are_found_as_in_an_exact_search(grown):
    searcher = Searcher.open(grown, "t", encoder=FakeEncoder())
    for document in DOCS[::50]:
        assert searcher.search(document["text"]) == searcher.search(document["text"], recall="exact")


def test_is_said_when_adding_and_opening_and_by_info_until_the_rebuild(tmp_path, caplog):
    index = Index.create(tmp_path, "t", DOCS[:1], encoder=FakeEncoder())
    with caplog.at_level(logging.WARNING):
        index.add(DOCS[1:11])
        searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
        assert (caplog.text, index.info().outgrown) == ("", False)
        index.add(DOCS[11:])
        assert caplog.text.count("train a new codec with Index.rebuild") == 1
        searcher.refresh()
        assert caplog.text.count("train a new codec with Index.rebuild") == 2
        index.add([{"id": "more", "text": "abc"}])
        searcher.refresh()
        assert caplog.text.count("train a new codec with Index.rebuild") == 3  # of the add alone
        assert index.info().outgrown
        caplog.clear()
        index.rebuild()
        assert (Searcher.open(tmp_path, "t", encoder=FakeEncoder())._codes.outgrown, caplog.text) == (False, "")
    assert not index.info().outgrown
    assert index.info().centroids == default_centroids(index.info().tokens)

"""`search_many`: the hits of each query alone, from work that is done once for all."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from tansaku import Condition, Index, InputError, Searcher, UncheckedSQL
from tansaku.plugin.search import fetch, many
from tansaku.plugin.search import searcher as searcher_module
from tansaku.plugin.search.choices import RecallName

from ...support.fakes import FakeEncoder, corpus

QUERIES = ["02468ace", "d", "ffee01", "a", "d", "0123456789abcdef" * 3, "02468ace"]
N_DISTINCT = 5


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    documents = corpus(900, year=lambda i: 1000 + i, tags=lambda i: ["寺"] * (i % 3))
    Index.create(folder, "t", documents, encoder=FakeEncoder(), fulltext=True)
    index = Index.create(folder, "passages", documents[:200], encoder=FakeEncoder(), passage_tokens=4)
    index.delete(["d7"])
    return folder


@pytest.fixture(scope="module")
def searcher(db):
    return Searcher.open(db, "t", encoder=FakeEncoder())


def counted(monkeypatch, module, name):
    """The calls of a function from now on."""
    calls: list[Any] = []
    function = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(given) or function(*given))
    return calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fields": []},
        {"fields": ["year"], "where": Condition("year < ?", 1500)},
        {"ids": ["d3", "d5", "nowhere"], "k": 1},
        {"recall": "fast", "phrase_weight": 0.5},
        {"recall": "exact", "where": "year >= 1100"},
        {"recall": 0.95, "ids": ["d3", "d5", "d800"]},
        {"source": "fused", "bm25_weight": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [2, 256])
def test_the_hits_are_those_of_each_query_alone(searcher, monkeypatch, options, at_once):
    monkeypatch.setattr(searcher_module, "QUERIES_AT_ONCE", at_once)
    monkeypatch.setattr(fetch, "_ROWS_READ_AT_ONCE", 3 * at_once)
    for threads in (1, 3):
        found = searcher.search_many(QUERIES, threads=threads, **options)
        for hits, query in zip(found, QUERIES, strict=True):
            alone = searcher.search(query, **options)
            assert hits == alone
            for name in ("scored", "missing", "version", "query_tokens", "truncated"):
                assert getattr(hits, name) == getattr(alone, name)
            assert hits.stages.keys() == alone.stages.keys()


@pytest.mark.parametrize("passages", [True, False])
def test_also_in_an_index_of_passages(db, passages):
    searcher = Searcher.open(db, "passages", encoder=FakeEncoder())
    alone = [searcher.search(query, passages=passages) for query in QUERIES]
    assert searcher.search_many(QUERIES, passages=passages) == alone


def test_a_query_given_twice_is_searched_once_and_each_answer_is_the_callers_own(searcher, monkeypatch):
    ranked = counted(monkeypatch, many, "rank")
    found = searcher.search_many(QUERIES)
    assert len(ranked) == N_DISTINCT
    assert found[1] == found[4]
    found[1][0].fields["tags"].append("changed")
    found[1].pop()
    assert found[4] == searcher.search("d")


def test_filters_are_resolved_once_and_the_table_is_read_once_for_many_queries(searcher, monkeypatch):
    filtered, read = counted(monkeypatch, many, "allowed_rows"), counted(monkeypatch, fetch, "take_rows")
    searcher.search_many(QUERIES, where=UncheckedSQL("year % 2 = 0"), ids=[f"d{i}" for i in range(50)])
    assert (len(filtered), len(read)) == (1, 1)
    monkeypatch.setattr(searcher_module, "QUERIES_AT_ONCE", 2)
    searcher.search_many(QUERIES, where=UncheckedSQL("year % 2 = 0"))
    assert (len(filtered), len(read)) == (2, 1 + 3)
    searcher.search_many(QUERIES, fields=[])
    assert len(read) == 4


def test_a_number_of_threads_below_1_is_refused(searcher):
    with pytest.raises(InputError, match="threads is 0"):
        searcher.search_many(QUERIES, threads=0)


@pytest.mark.parametrize("recall", [*get_args(RecallName), 0.95, 1.0])
@pytest.mark.parametrize("n_left", [0, 1, 7, 700])
def test_more_hits_than_a_filter_leaves_are_what_there_is(searcher, recall, n_left):
    """700 are more than are scored one by one where nothing else asks for it."""
    expected = {f"d{i}" for i in range(n_left)}
    for filters in ({"where": f"year < {1000 + n_left}"}, {"ids": sorted(expected)}):
        options = {"recall": recall, "fields": [], **filters}
        (many_hits,) = searcher.search_many(["d"], 750, **options)
        for hits in (many_hits, searcher.search("d", 750, **options)):
            assert ({hit.id for hit in hits}, len(hits)) == (expected, n_left)


@pytest.mark.parametrize("recall", [*get_args(RecallName), 0.95])
def test_also_where_a_document_has_several_passages(db, recall):
    searcher = Searcher.open(db, "passages", encoder=FakeEncoder())
    for n_left in (3, 150):
        (hits,) = searcher.search_many(["d"], 200, recall=recall, where=f"year < {1000 + n_left}", fields=[])
        assert len(hits) == n_left - (n_left > 7)
        assert len({hit.id for hit in hits}) == len(hits)

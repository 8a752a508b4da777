from __future__ import annotations

import lancedb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import Condition, Index, InputError, NotAnIndexError, Searcher, UncheckedSQL
from tansaku.indexer.table.fulltext import FULLTEXT_FIELD, normalized
from tansaku.plugin.evaluation.ranking import search_all
from tansaku.plugin.search.fulltext import fused, with_bm25

from ...support.fakes import FakeEncoder, corpus

pytestmark = pytest.mark.integration

WORDS = ["金閣寺", "讃岐うどん", "新幹線", "富士山", "鰹節"]


def documents(n, start=0):
    return [
        {"id": f"w{i}", "title": "", "text": f"{WORDS[i % 5]}について。番号は{i}です。", "year": i}
        for i in range(start, start + n)
    ]


@pytest.fixture
def index(tmp_path):
    return Index.create(tmp_path, "t", documents(40), encoder=FakeEncoder(), fulltext=True)


def open_searcher(tmp_path):
    return Searcher.open(tmp_path, "t", encoder=FakeEncoder())


def found(hits):
    return {hit.id for hit in hits}


def test_candidates_from_text_share_a_word_with_the_query(index, tmp_path):
    hits = open_searcher(tmp_path).search("富士山", 20, source="text", candidates=10)
    assert found(hits) == {f"w{i}" for i in range(3, 40, 5)}
    assert hits.scored == 8
    assert "text" in hits.stages
    assert "gather" not in hits.stages
    assert FULLTEXT_FIELD not in hits[0].fields


def test_both_sides_are_brought_to_nfkc(tmp_path):
    texts = ["ｶﾂｵﾌﾞｼの出汁", "㈱タンサク", "ＡＢＣ放送", "海"]
    records = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    Index.create(tmp_path, "t", records, encoder=FakeEncoder(), fulltext=True)
    searcher = open_searcher(tmp_path)
    for query, expected in (("カツオブシ", "0"), ("(株)タンサク", "1"), ("abc", "2"), ("ﾀﾝｻｸ", "1")):
        assert expected in found(searcher.search(query, source="text", candidates=3)), query
    assert normalized("ｶﾞ㌔") == "ガキロ"


def test_what_is_written_later_is_found_and_what_is_deleted_is_not(index, tmp_path):
    searcher = open_searcher(tmp_path)
    index.add([{"id": "new", "text": "富士山の噴火", "year": 1}])
    index.upsert([{"id": "w8", "text": "琵琶湖", "year": 8}])
    index.delete(["w3"])
    searcher.refresh()
    expected = {f"w{i}" for i in range(13, 40, 5)} | {"new"}
    assert found(searcher.search("富士山", 30, source="text", candidates=20)) == expected
    index.optimize()
    index.rebuild()
    assert found(open_searcher(tmp_path).search("富士山", 30, source="text", candidates=20)) == expected
    assert index.info().rows == 40


def test_filters_hold_for_candidates_from_text(index, tmp_path):
    searcher = open_searcher(tmp_path)
    some = searcher.search("富士山", 30, source="text", candidates=4, where="year >= 20")
    assert found(some) == {"w23", "w28", "w33", "w38"}
    ids = [f"w{i}" for i in range(30)]
    some = searcher.search("富士山", 30, source="text", candidates=4, where="year >= 10", ids=ids)
    assert found(some) == {"w13", "w18", "w23", "w28"}


@pytest.mark.parametrize("source", ["text", "fused"])
@pytest.mark.parametrize(
    "where",
    [
        Condition("year >= $year", year=20),
        "length(title) = 0 AND year > 19.5",
        UncheckedSQL("year % 40 >= 20"),
    ],
)
def test_full_text_search_gets_the_condition_that_was_checked(index, tmp_path, source, where):
    some = open_searcher(tmp_path).search("富士山", 30, source=source, candidates=4, bm25_weight=0.1, where=where)
    assert {"w23", "w28", "w33", "w38"} <= found(some) <= {f"w{i}" for i in range(20, 40)}


def test_the_sources_are_fused(index, tmp_path):
    searcher = open_searcher(tmp_path)
    hits = searcher.search("新幹線", 12, source="fused", candidates=12)
    assert hits.scored == 12
    assert len(found(hits) & {f"w{i}" for i in range(2, 40, 5)}) >= 6
    assert {"text", "probe", "gather", "prune"} <= set(hits.stages)


def test_fusion_is_by_reciprocal_rank():
    assert fused([np.array([5, 3, 9]), np.array([3, 7])], 2).tolist() == [3, 5]
    assert fused([np.array([5, 3, 9]), np.array([3, 7])], 9).tolist() == [3, 5, 7, 9]
    assert fused([np.array([], int), np.array([4])], 3).tolist() == [4]


@pytest.mark.parametrize(
    "options",
    [
        {"source": "fused"},  # forty documents: all are scored
        {"source": "fused", "recall": "exact"},
        {"source": "fused", "candidates": 30},
        {"source": "text", "candidates": 30},
        {"source": "fused", "where": "year >= 10", "candidates": 12},
    ],
)
def test_bm25_counts_beside_maxsim(index, tmp_path, options):
    searcher = open_searcher(tmp_path)
    query = "富士山の番号"
    rows = lancedb.connect(tmp_path).open_table("t").search(query, query_type="fts", fts_columns=FULLTEXT_FIELD)
    bm25 = {row["id"]: row["_score"] for row in rows.limit(40).to_list()}
    assert len(set(bm25.values())) > 1
    hits = searcher.search(query, 40, bm25_weight=0.5, **options)
    by_id = searcher.score(query, [hit.id for hit in hits])
    expected = [maxsim + 0.5 * bm25[hit.id] for hit, maxsim in zip(hits, by_id, strict=True)]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-4)
    assert expected == sorted(expected, reverse=True)
    assert found(hits) >= found(searcher.search(query, 40, **options))
    assert [hit.id for hit in searcher.search(query, 3, bm25_weight=0.5, **options)] == [hit.id for hit in hits[:3]]


def test_it_can_be_evaluated(index, tmp_path):
    searcher = open_searcher(tmp_path)
    queries = {"a": "富士山の番号", "b": "新幹線"}
    run = search_all(searcher, queries, source="fused", bm25_weight=0.5)
    for query_id, text in queries.items():
        hits = searcher.search(text, source="fused", bm25_weight=0.5)
        assert run[query_id] == {hit.id: pytest.approx(hit.score) for hit in hits}


@given(st.data())
def test_sums_are_ranked_and_what_full_text_did_not_find_has_no_bm25(data):
    ranked = np.array(data.draw(st.lists(st.integers(0, 20), unique=True)), np.int64)
    scores = np.sort(np.array(data.draw(st.lists(st.integers(0, 9), min_size=21, max_size=21)), np.float32))[::-1]
    scores = scores[: len(ranked)]
    bm25 = data.draw(st.dictionaries(st.integers(0, 20), st.integers(1, 9)))
    documents, sums = with_bm25(ranked, scores, np.array([*bm25], np.int64), np.array([*bm25.values()], np.float32), 2)
    expected = [(s + 2 * bm25.get(d, 0), d) for d, s in zip(ranked.tolist(), scores.tolist(), strict=True)]
    expected.sort(key=lambda pair: -pair[0])
    assert list(zip(sums.tolist(), documents.tolist(), strict=True)) == expected


@pytest.mark.parametrize("weight", [-0.1, np.nan, np.inf])
def test_a_weight_below_0_or_not_finite_is_refused(index, tmp_path, weight):
    with pytest.raises(InputError, match="bm25_weight is"):
        open_searcher(tmp_path).search("富士山", source="fused", bm25_weight=weight)


def test_a_weight_without_full_text_is_refused(index, tmp_path):
    with pytest.raises(InputError, match="set source to 'fused'"):
        open_searcher(tmp_path).search("富士山", bm25_weight=0.1)


def test_an_index_without_full_text_and_a_query_without_text_are_refused(index, tmp_path):
    Index.create(tmp_path, "plain", corpus(30), encoder=FakeEncoder())
    plain = Searcher.open(tmp_path, "plain", encoder=FakeEncoder())
    with pytest.raises(InputError, match="--fulltext"):
        plain.search("a", source="text", candidates=5)
    with pytest.raises(InputError, match="need the query's text"):
        open_searcher(tmp_path).search_vectors(FakeEncoder().vectors("a"), source="text", candidates=5)
    with pytest.raises(InputError, match="unknown source 'bm25'"):
        plain.search("a", source="bm25")  # type: ignore[arg-type]


def test_the_column_is_reserved_only_where_it_is_ours(tmp_path):
    records = [{"id": "a", "text": "海", FULLTEXT_FIELD: "mine"}]
    Index.create(tmp_path, "own", records, encoder=FakeEncoder())
    assert Searcher.open(tmp_path, "own", encoder=FakeEncoder()).search("海")[0].fields == {FULLTEXT_FIELD: "mine"}
    with pytest.raises(InputError, match=FULLTEXT_FIELD):
        Index.create(tmp_path, "t", records, encoder=FakeEncoder(), fulltext=True)
    Index.create(tmp_path, "cut", documents(3), encoder=FakeEncoder(), fulltext=True)
    lancedb.connect(tmp_path).open_table("cut").drop_columns([FULLTEXT_FIELD])
    with pytest.raises(NotAnIndexError, match=FULLTEXT_FIELD):
        Searcher.open(tmp_path, "cut", encoder=FakeEncoder())

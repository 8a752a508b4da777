"""LanceDB's own queries, vector, full text and hybrid, in the order of MaxSim."""

from __future__ import annotations

import logging

import lancedb
import pyarrow as pa
import pytest
from lancedb.index import FTS
from lancedb.rerankers import Reranker as LanceReranker

from tansaku import Index, InputError, Reranker, Searcher
from tansaku.plugin.hosts.lancedb import TansakuReranker

from ...support.fakes import FakeEncoder, corpus, exhaustive, small_chunks

DOCS = corpus(12)
QUERY = "3a9f"


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def searcher(tmp_path, monkeypatch, encoder):
    small_chunks(monkeypatch)
    Index.create(tmp_path / "db", "t", DOCS, encoder=encoder)
    encoder.encoded.clear()
    return Searcher.open(tmp_path / "db", "t", encoder=encoder)


@pytest.fixture
def table(tmp_path):
    """The host's own: a dense vector, and a text in which every row has the word of every search."""
    rows = [
        {"id": d["id"], "text": d["text"], "words": f"common w{i}", "vector": [float(i), 1.0]}
        for i, d in enumerate(DOCS)
    ]
    made = lancedb.connect(tmp_path / "host").create_table("docs", rows)
    made.create_index("words", config=FTS())
    return made


@pytest.fixture
def expected(tmp_path, encoder, searcher):
    return [doc_id for doc_id, _ in exhaustive(tmp_path / "db", encoder.vectors(QUERY))]


def ids(table: pa.Table) -> list[str]:
    return table["id"].to_pylist()


class TestQueries:
    def test_a_vector_search_comes_in_the_order_of_maxsim(self, table, searcher, expected, encoder):
        reranker = TansakuReranker(Reranker(searcher=searcher))
        found = table.search([0.0, 1.0]).limit(12).rerank(reranker, query_string=QUERY).to_arrow()
        assert ids(found) == expected
        assert encoder.encoded == []
        scores = found["_relevance_score"].to_pylist()
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([r.score for r in Reranker(searcher=searcher).rerank(QUERY, ids=expected)])

    def test_a_full_text_search_too(self, table, searcher):
        reranker = TansakuReranker(Reranker(searcher=searcher))
        found = table.search("common", query_type="fts", fts_columns="words").limit(12).rerank(reranker).to_arrow()
        best = Reranker(searcher=searcher).rerank("common", ids=[d["id"] for d in DOCS])
        assert ids(found) == [r.id for r in best]
        assert "_score" not in found.column_names

    def test_a_hybrid_search_has_every_row_once(self, table, searcher):
        reranker = TansakuReranker(Reranker(searcher=searcher))
        search = table.search(query_type="hybrid").vector([0.0, 1.0]).text("common w3 w11").limit(12)
        found = search.rerank(reranker).to_arrow()
        best = Reranker(searcher=searcher).rerank("common w3 w11", ids=[d["id"] for d in DOCS])
        assert ids(found) == [r.id for r in best]
        assert not {"_distance", "_score", "_rowid"} & set(found.column_names)

    def test_all_scores_stay_if_asked_for(self, table, searcher):
        reranker = TansakuReranker(Reranker(searcher=searcher), return_score="all")
        search = table.search(query_type="hybrid").vector([0.0, 1.0]).text("common").limit(12).rerank(reranker)
        for row in search.to_arrow().to_pylist():
            assert row["_distance"] == int(row["id"][1:]) ** 2
            assert row["_score"] > 0

    def test_a_row_that_one_search_found_has_only_its_score(self, searcher):
        vector = pa.table({"id": ["d1", "d2"], "_rowid": [1, 2], "_distance": pa.array([0.5, 0.7], pa.float32())})
        words = pa.table({"id": ["d3", "d2"], "_rowid": [3, 2], "_score": pa.array([4.0, 2.0], pa.float32())})
        reranker = TansakuReranker(Reranker(searcher=searcher), return_score="all")
        rows = {row["id"]: row for row in reranker.rerank_hybrid(QUERY, vector, words).to_pylist()}
        scores = {name: (row["_distance"], row["_score"]) for name, row in rows.items()}
        assert scores == {"d1": (0.5, None), "d2": (pytest.approx(0.7), 2.0), "d3": (None, 4.0)}

    def test_a_search_that_finds_nothing_is_empty(self, table, searcher):
        reranker = TansakuReranker(Reranker(searcher=searcher))
        nothing = table.search("nowhere", query_type="fts", fts_columns="words").rerank(reranker).to_arrow()
        assert (len(nothing), "_relevance_score" in nothing.column_names) == (0, True)
        half = table.search(query_type="hybrid").vector([0.0, 1.0]).text("nowhere").limit(3).rerank(reranker).to_arrow()
        assert len(half) == 3

    def test_multivector_results_are_merged(self, table, searcher, expected):
        reranker = TansakuReranker(Reranker(searcher=searcher))
        parts = [table.search([x, 1.0]).limit(12).with_row_id(True).to_arrow() for x in (0.0, 11.0)]
        found = reranker.rerank_multivector(parts, QUERY, deduplicate=True)
        assert sorted(ids(found)) == sorted(expected)


class TestRows:
    def test_unknown_ids_are_ranked_by_their_texts(self, searcher, encoder):
        rows = pa.table({"id": ["d1", "zz", "d2"], "text": ["never read", QUERY, "never read"]})
        ranked = TansakuReranker(Reranker(searcher=searcher)).rerank_fts(QUERY, rows)
        assert ids(ranked)[0] == "zz"
        assert encoder.encoded == [QUERY]

    def test_rows_that_cannot_be_scored_come_last_and_are_counted(self, searcher, caplog):
        rows = pa.table({"id": ["zz", "d1", None], "text": pa.array([None, None, None], pa.string())})
        with caplog.at_level(logging.WARNING):
            ranked = TansakuReranker(Reranker(searcher=searcher)).rerank_vector(QUERY, rows)
        assert ids(ranked) == ["d1", "zz", None]
        assert ranked["_relevance_score"].to_pylist()[1:] == [None, None]
        assert "2 of 3 rows" in caplog.text

    def test_numbers_are_ids_too(self, tmp_path, encoder):
        Index.create(tmp_path / "n", "t", [{"id": "1", "text": QUERY}, {"id": "2", "text": "zz"}], encoder=encoder)
        encoder.encoded.clear()
        reranker = Reranker(searcher=Searcher.open(tmp_path / "n", "t", encoder=encoder))
        ranked = TansakuReranker(reranker, id_column="n").rerank_fts(QUERY, pa.table({"n": [2, 1]}))
        assert ranked["n"].to_pylist() == [1, 2]

    def test_texts_alone_are_enough(self, encoder):
        rows = pa.table({"body": ["ab", QUERY], "id": ["a", "b"]})
        ranked = TansakuReranker(Reranker(encoder), column="body", score="raw").rerank_fts(QUERY, rows)
        assert ids(ranked) == ["b", "a"]
        assert ranked["_relevance_score"][0].as_py() == pytest.approx(4.0)
        assert ids(rows) == ["a", "b"]

    def test_rows_with_neither_column_are_refused(self, encoder, searcher):
        rows = pa.table({"other": ["ab"]})
        for reranker in (Reranker(encoder), Reranker(searcher=searcher)):
            with pytest.raises(InputError, match="select one of them"):
                TansakuReranker(reranker).rerank_vector(QUERY, rows)

    def test_an_empty_query_is_refused(self, encoder):
        with pytest.raises(InputError, match="the query is empty"):
            TansakuReranker(Reranker(encoder)).rerank_fts(" ", pa.table({"text": ["ab"]}))

    def test_what_is_returned_is_one_of_two(self, encoder):
        with pytest.raises(ValueError, match="relevance"):
            TansakuReranker(Reranker(encoder), return_score="some")
        assert isinstance(TansakuReranker(Reranker(encoder)), LanceReranker)

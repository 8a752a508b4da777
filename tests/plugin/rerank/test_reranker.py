"""The reranker: the order of MaxSim, over codes where the index has the document, over texts where not."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from tansaku import CallableSource, Candidate, HostSearch, Index, InputError, Reranker, Searcher

from ...support.fakes import FakeEncoder, corpus, exhaustive, small_chunks

DOCS = corpus(12)
TEXTS = [doc["text"] for doc in DOCS]
IDS = [doc["id"] for doc in DOCS]
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


def by_plain_maxsim(encoder, texts):
    query = encoder.vectors(QUERY)
    return [float((query @ encoder.vectors(text).T).max(axis=1).sum()) for text in texts]


class TestTexts:
    def test_order_and_scores_are_those_of_maxsim(self, encoder):
        ranked = Reranker(encoder).rerank(QUERY, TEXTS, score="raw")
        expected = by_plain_maxsim(encoder, TEXTS)
        assert [r.index for r in ranked] == sorted(range(12), key=lambda i: (-expected[i], i))
        assert [r.score for r in ranked] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
        assert (ranked.stored, ranked.encoded, ranked.missing) == (0, 12, ())
        assert {r.id for r in ranked} == {None}

    def test_equal_texts_are_encoded_once_and_keep_their_order(self, encoder):
        ranked = Reranker(encoder).rerank(QUERY, ["ab", "3a9f", "ab", "3a9f"])
        assert [r.index for r in ranked] == [1, 3, 0, 2]
        assert encoder.encoded == ["ab", "3a9f"]

    def test_a_text_without_a_word_scores_nothing(self, encoder):
        ranked = Reranker(encoder).rerank(QUERY, ["", "3a9f", " \n"])
        assert [(r.index, r.score) for r in ranked[1:]] == [(0, 0.0), (2, 0.0)]

    def test_more_texts_than_are_encoded_together(self, encoder):
        texts = [f"{i:x}" for i in range(300)]
        assert sorted(r.index for r in Reranker(encoder).rerank(QUERY, texts)) == list(range(300))

    def test_an_error_before_a_batch_ends_the_work(self, encoder):
        batches = []

        def stop_at_the_second():
            batches.append(len(encoder.encoded))
            if len(batches) == 2:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            Reranker(encoder).rerank(QUERY, [f"{i:x}" for i in range(300)], before_batch=stop_at_the_second)
        assert batches == [0, 128]
        assert len(encoder.encoded) == 128

    def test_k_takes_the_best(self, encoder):
        reranker = Reranker(encoder)
        assert list(reranker.rerank(QUERY, TEXTS, k=3)) == list(reranker.rerank(QUERY, TEXTS))[:3]
        assert len(reranker.rerank(QUERY, TEXTS, k=100)) == 12

    def test_nothing_to_rank_is_an_empty_ranking(self, encoder):
        assert Reranker(encoder).rerank(QUERY, []) == []

    def test_modes_keep_the_order_and_say_the_same(self, encoder):
        mean, raw, logit = (Reranker(encoder).rerank(QUERY, TEXTS, score=m) for m in ("mean", "raw", "logit"))
        assert [r.index for r in mean] == [r.index for r in raw] == [r.index for r in logit]
        assert np.array([r.score for r in raw]) / len(QUERY) == pytest.approx([r.score for r in mean])
        positive = [(m.score, x.score) for m, x in zip(mean, logit, strict=True) if m.score > 0]
        assert [1 / (1 + np.exp(-x)) for _, x in positive] == pytest.approx([m for m, _ in positive])


class TestIds:
    def test_scores_are_those_of_an_exhaustive_search(self, searcher, encoder, tmp_path):
        ranked = Reranker(searcher=searcher).rerank(QUERY, ids=IDS, score="raw")
        expected = exhaustive(tmp_path / "db", encoder.vectors(QUERY))
        assert [r.id for r in ranked] == [doc_id for doc_id, _ in expected]
        assert [r.score for r in ranked] == pytest.approx([score for _, score in expected], abs=1e-4)
        assert encoder.encoded == []

    def test_an_unknown_id_is_missing_or_encoded(self, searcher, encoder):
        reranker = Reranker(searcher=searcher)
        ranked = reranker.rerank(QUERY, ids=["d1", "zz", "d0"])
        assert (len(ranked), ranked.missing, ranked.stored) == (2, ("zz",), 2)
        ranked = reranker.rerank(QUERY, ["never read", "3a9f", "", None], ids=["d1", "zz", None, "d2"])
        assert [r.id for r in ranked][:1] == ["zz"]
        assert (len(ranked), ranked.missing, ranked.stored, ranked.encoded) == (4, (), 2, 2)
        assert encoder.encoded == ["3a9f"]

    def test_an_id_given_twice_comes_twice(self, searcher):
        ranked = Reranker(searcher=searcher).rerank(QUERY, ids=["d3", "d4", "d3"])
        assert sorted(r.index for r in ranked) == [0, 1, 2]

    def test_changes_are_seen_after_a_refresh(self, searcher, encoder, tmp_path):
        index = Index.open(tmp_path / "db", "t", encoder=encoder)
        index.upsert([{"id": "d1", "text": QUERY}, {"id": "new", "text": QUERY}])
        index.delete(["d2"])
        reranker = Reranker(searcher=searcher)
        assert reranker.rerank(QUERY, ids=["d0", "d1", "d2", "new"]).missing == ("new",)
        searcher.refresh()
        ranked = reranker.rerank(QUERY, ids=["d0", "d1", "d2", "new"])
        assert ([r.id for r in ranked], ranked.missing) == (["d1", "new", "d0"], ("d2",))

    def test_of_a_divided_document_the_best_passage_counts(self, tmp_path, default_encoder):
        text = "京都は794年から都だった。金閣寺は室町時代に建てられた。" * 12
        documents = [{"id": "long", "text": text}, {"id": "short", "text": "海の水は塩辛い。"}]
        Index.create(tmp_path / "p", "t", documents, encoder=default_encoder, passage_tokens=32)
        searcher = Searcher.open(tmp_path / "p", "t", encoder=default_encoder)
        assert len(searcher) > 4
        best = searcher.search("金閣寺", k=1, recall="exact")[0]
        scores = searcher.score("金閣寺", ["short", "long", "none"])
        assert scores[1] == pytest.approx(best.score, abs=1e-4)
        assert scores[0] < scores[1]
        assert np.isnan(scores[2])


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({}, "nothing to rank"),
            ({"documents": "ab"}, "documents is one string"),
            ({"documents": ["ab", 3]}, "document 1 is int"),
            ({"documents": ["ab", None]}, "document 1 has neither"),
            ({"documents": ["ab"], "ids": ["a", "b"]}, "1 documents and 2 ids"),
            ({"ids": "ab"}, "ids is one string"),
            ({"ids": ["ab"]}, "ids alone need an index"),
            ({"documents": ["ab"], "k": 0}, "k is 0"),
            ({"documents": ["ab"], "score": "best"}, "unknown score 'best'"),
        ],
    )
    def test_is_named(self, encoder, arguments, said):
        with pytest.raises(InputError, match=said):
            Reranker(encoder).rerank(QUERY, **arguments)

    @pytest.mark.parametrize("query", ["", " ", None])
    def test_a_query_without_a_word_is_refused(self, encoder, query):
        with pytest.raises(InputError, match="the query"):
            Reranker(encoder).rerank(query, ["ab"])

    def test_two_encoders_are_one_too_many(self, searcher):
        with pytest.raises(InputError, match="encoder of its own"):
            Reranker(FakeEncoder(), searcher=searcher)


class FakeHost:
    def candidates(self, query, k, where=None):
        self.asked = (query, k, where)
        return [Candidate(doc_id, 9.0 - i) for i, doc_id in enumerate(["d7", "zz", "d1", "d4"])][:k]


class TestHostSearch:
    async def test_text_and_payload_come_back_also_of_several_queries_and_asynchronously(self, encoder):
        class Host:
            def candidates(self, query, k, where=None):
                return [Candidate(i, 1.0, text, {"at": i}) for i, text in zip(IDS, TEXTS, strict=True)]

        search = HostSearch(Host(), Reranker(encoder))
        hits = search.search(QUERY, k=3)
        assert [(hit.text, hit.payload) for hit in hits] == [(TEXTS[IDS.index(h.id)], {"at": h.id}) for h in hits]
        assert await search.asearch(QUERY, k=3) == hits
        assert search.search_many([QUERY, TEXTS[5]], k=3) == [hits, search.search(TEXTS[5], k=3)]
        with pytest.raises(InputError, match="queries is one string"):
            search.search_many(QUERY)

    def test_any_engine_is_a_function(self, encoder):
        asked = []

        def find(query, k, where):
            asked.append((query, k, where))
            return (row for row in [(7, 2), ("b", 1.5, "3a9f"), Candidate("c", 1.0, "x", {"n": 1}), ("d", 0.5, "y")])

        source = CallableSource(find)
        found = [Candidate("7", 2.0), Candidate("b", 1.5, "3a9f"), Candidate("c", 1.0, "x", {"n": 1})]
        assert source.candidates(QUERY, 3, "w") == found
        assert asked == [(QUERY, 3, "w")]
        hits = HostSearch(source, Reranker(encoder), candidates=3).search(QUERY, k=3)
        assert ([hit.id for hit in hits], hits.missing) == (["b", "c"], ("7",))
        with pytest.raises(InputError, match="k is 0"):
            source.candidates(QUERY, 0)
        wrong: Any
        for wrong in ("ab", ("a",), ("a", "much"), 5):
            with pytest.raises(InputError, match=r"the engine's function gave .*; give Candidates, or tuples"):
                CallableSource(lambda *_, wrong=wrong: [wrong]).candidates(QUERY, 1)
        with pytest.raises(InputError, match="the engine's function gave NoneType; give one that returns a list"):
            CallableSource(lambda *_: cast("Any", None)).candidates(QUERY, 1)

    def test_candidates_come_in_the_order_of_maxsim(self, searcher, encoder, tmp_path):
        host = FakeHost()
        hits = HostSearch(host, Reranker(searcher=searcher), candidates=50).search(QUERY, k=2, where="x")
        order = [doc_id for doc_id, _ in exhaustive(tmp_path / "db", encoder.vectors(QUERY))]
        assert host.asked == (QUERY, 50, "x")
        assert [hit.id for hit in hits] == [doc_id for doc_id in order if doc_id in {"d7", "d1", "d4"}][:2]
        assert hits.missing == ("zz",)
        assert all(hit.host_score == 10.0 - hit.host_rank for hit in hits)

    def test_never_asks_for_fewer_than_are_wanted(self, searcher):
        host = FakeHost()
        HostSearch(host, Reranker(searcher=searcher), candidates=2).search(QUERY, k=4)
        assert host.asked[1] == 4

    def test_no_candidates_are_no_hits(self, searcher):
        class Empty:
            def candidates(self, query, k, where=None):
                return []

        assert HostSearch(Empty(), Reranker(searcher=searcher)).search(QUERY) == []

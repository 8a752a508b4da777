"""A query or text that is longer than the model reads: every result says so."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle

import numpy as np
import pytest

from tansaku import Candidate, HostSearch, Index, Reranker, Searcher
from tansaku.onnx_export.counts import named
from tansaku.plugin.hosts import _framework_search as hosts
from tansaku.plugin.search.cuts import documents_warning, queries_warning, query_warning
from tansaku.plugin.search.plan import SearchOptions

from ...support.fakes import MAX_TOKENS, FakeEncoder, corpus

SHORT, LONG = "a" * MAX_TOKENS, "a" * MAX_TOKENS + "b"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts")
    Index.create(folder, "t", corpus(5), encoder=FakeEncoder())
    return Searcher.open(folder, "t", encoder=FakeEncoder())


@pytest.mark.parametrize(("query", "cut"), [(SHORT, False), (LONG, True)])
def test_a_search_says_whether_the_query_was_cut(searcher, query, cut):
    for _ in range(2):  # the second time its vectors are remembered
        assert searcher.search(query).truncated is cut
    assert [hits.truncated for hits in searcher.search_many([SHORT, query])] == [False, cut]
    assert searcher.search_vectors(searcher.encoder.vectors(query)).truncated is False


@pytest.mark.parametrize(("query", "cut"), [(SHORT, False), (LONG, True)])
def test_a_reranking_says_what_was_cut(searcher, query, cut):
    texts = [LONG, "short", "", LONG, LONG + "c"]
    ranked = Reranker(FakeEncoder()).rerank(query, texts)
    assert (ranked.truncated, ranked.cut) == (cut, (0, 3, 4))
    # What is scored by its codes is not encoded.
    ranked = Reranker(searcher=searcher).rerank(query, texts, ids=["d0", None, None, None, "d1"])
    assert (ranked.truncated, ranked.cut) == (cut, (3,))


@pytest.mark.parametrize(("query", "cut"), [(SHORT, False), (LONG, True)])
def test_scores_say_whether_the_query_was_cut(searcher, query, cut):
    scores = searcher.score(query, ["d0", "none", "d1"])
    assert scores.dtype == np.float32
    for some in (scores, scores[1:], -scores, pickle.loads(pickle.dumps(scores)), copy.copy(scores)):
        assert some.truncated is cut
    assert scores.tolist()[::2] == searcher.score_vectors(searcher.encoder.vectors(query), ["d0", "d1"]).tolist()


def test_an_explanation_says_what_was_cut(tmp_path):
    Index.create(tmp_path, "t", [{"id": "short", "text": SHORT}, {"id": "long", "text": LONG}], encoder=FakeEncoder())
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
    for query, doc_id in itertools.product((SHORT, LONG), ("short", "long")):
        explanation = searcher.explain(query, doc_id)
        assert (explanation.truncated, explanation.cut) == (query == LONG, doc_id == "long")


def test_a_host_search_names_the_candidates_that_were_cut():
    class Engine:
        def candidates(self, query, k, where=None):
            return [Candidate("short", 2.0, SHORT), Candidate("long", 1.0, LONG)]

    hits = HostSearch(Engine(), Reranker(FakeEncoder())).search(LONG)
    assert (hits.truncated, hits.cut) == (True, ("long",))


def test_hosts_log_it(searcher, caplog):
    with caplog.at_level(logging.WARNING, "tansaku.plugin.hosts"):
        hosts.search(searcher, SHORT, SearchOptions())
        hosts.rerank(Reranker(searcher=searcher), SHORT, [SHORT], None)
        assert not caplog.messages
        hosts.search(searcher, LONG, SearchOptions())
        hosts.rerank(Reranker(searcher=searcher), LONG, [LONG, LONG, SHORT], ["x", None, "y"])
    query, again, texts = caplog.messages
    assert query == again == query_warning(searcher.encoder)
    assert texts == documents_warning(searcher.encoder, ["x", 1], 3)


def test_the_messages_say_how_many_and_which():
    encoder = FakeEncoder()
    assert queries_warning(encoder, [SHORT, "b"]) is None
    assert (queries_warning(encoder, [SHORT, LONG]) or "").startswith("1 of 2 queries are longer than the 512 tokens")
    assert documents_warning(encoder, range(7), 9).startswith(f"7 of 9 texts are longer than the {MAX_TOKENS} tokens")
    assert named(range(5), 5) == "0, 1, 2, 3, 4"
    assert named(range(6), 6) == "0, 1, 2, 3, 4, …"
    assert named([], 2) == "…"

"""Phrase weights: the neighbours of a token count too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tansaku import Index, InputError, Reranker, Searcher
from tansaku.plugin.evaluation.ranking import search_all
from tansaku.plugin.kernels.phrases import phrase_maxsim

from ...support.fakes import FakeEncoder, corpus, small_chunks

QUERY = "3a9f"
DOCS = corpus(30)


def by_the_formula(query, document, weight):
    """The formula in the module's docstring, one pair of tokens after the other."""
    lengths = np.linalg.norm(query, axis=1)

    def cosine(i, j):
        if not (0 <= i < len(query) and 0 <= j < len(document)):
            return 0.0
        return float(query[i] @ document[j]) / max(lengths[i], 1e-12)

    def similarity(i, j):
        return (cosine(i, j) + weight * (cosine(i - 1, j - 1) + cosine(i + 1, j + 1))) / (1 + 2 * weight)

    return sum(lengths[i] * max(similarity(i, j) for j in range(len(document))) for i in range(len(query)))


def vectors(random, n):
    drawn = random.standard_normal((n, 4)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@given(
    seed=st.integers(0, 999),
    tokens=st.integers(1, 5),
    length=st.integers(1, 6),
    weight=st.sampled_from([0.0, 0.1, 0.5, 3.0]),
)
def test_scores_are_those_of_the_formula(seed, tokens, length, weight):
    random = np.random.default_rng(seed)
    query = vectors(random, tokens) * random.uniform(0, 2, (tokens, 1)).astype(np.float32)
    document = vectors(random, length)
    found = phrase_maxsim(query, document, weight)
    assert found == pytest.approx(by_the_formula(query, document, weight), abs=1e-5)
    if not weight:
        assert found == pytest.approx((query @ document.T).max(axis=1).sum(), abs=1e-5)


def test_words_side_by_side_beat_the_same_words_apart():
    a, b, c = np.eye(4, dtype=np.float32)[:3]
    query = np.stack([a, b])
    assert phrase_maxsim(query, np.stack([b, c, a]), 0.25) == pytest.approx(2 / 1.5)
    assert phrase_maxsim(query, np.stack([a, b, c]), 0.25) == pytest.approx(2.5 / 1.5)


@pytest.fixture
def searcher(tmp_path, monkeypatch):
    small_chunks(monkeypatch)
    Index.create(tmp_path, "t", DOCS, encoder=FakeEncoder(), nbits=4)
    return Searcher.open(tmp_path, "t", encoder=FakeEncoder())


def decoded(searcher, doc_id):
    codes = searcher._codes
    _, (number,) = codes.by_id.find([doc_id])
    (part,) = codes.parts(np.array([number]))
    tokens = slice(int(part.starts[0]), int(part.ends[0]))
    return codes.codec.decode(part.centroid_ids[tokens], part.residuals[tokens])


@pytest.mark.parametrize("options", [{}, {"recall": "exact"}, {"candidates": 5}, {"ids": [d["id"] for d in DOCS[:9]]}])
def test_a_search_ranks_by_them(searcher, options):
    (query,) = FakeEncoder().encode_queries([QUERY])
    hits = searcher.search(QUERY, 30, phrase_weight=0.4, **options)
    assert {hit.id for hit in hits} >= {hit.id for hit in searcher.search(QUERY, 30, **options)}
    expected = [by_the_formula(query, decoded(searcher, hit.id), 0.4) for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-4)
    assert expected == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    best = searcher.search(QUERY, 2, phrase_weight=0.4, **options)
    assert [hit.id for hit in best] == [hit.id for hit in hits[:2]]


def test_documents_are_scored_by_them_from_codes_and_from_texts(searcher):
    ids = [d["id"] for d in DOCS]
    scores = searcher.score(QUERY, [*ids, "none"], phrase_weight=0.4)
    hits = {hit.id: hit.score for hit in searcher.search(QUERY, 30, phrase_weight=0.4)}
    assert scores[:-1].tolist() == pytest.approx([hits[doc_id] for doc_id in ids], abs=1e-5)
    assert np.isnan(scores[-1])
    stored = Reranker(searcher=searcher, phrase_weight=0.4).rerank(QUERY, ids=ids, score="raw")
    assert {r.id: r.score for r in stored} == pytest.approx(hits, abs=1e-5)

    encoder = FakeEncoder()
    texts = Reranker(encoder, phrase_weight=0.4).rerank(QUERY, [d["text"] for d in DOCS], score="raw")
    (query,) = encoder.encode_queries([QUERY])
    expected = [by_the_formula(query, encoder.encode_documents([DOCS[r.index]["text"]])[0], 0.4) for r in texts]
    assert [r.score for r in texts] == pytest.approx(expected, abs=1e-5)


def test_explanations_tell_them(searcher):
    for hit in searcher.search(QUERY, 5, phrase_weight=0.4):
        explanation = searcher.explain(QUERY, hit.id, phrase_weight=0.4)
        assert explanation.score == pytest.approx(hit.score, abs=1e-4)
        assert explanation.score != pytest.approx(searcher.explain(QUERY, hit.id, phrase_weight=0).score, abs=1e-4)


def test_a_model_may_have_a_weight_of_its_own(tmp_path, searcher):
    ids = [d["id"] for d in DOCS]
    own = Searcher.open(tmp_path, "t", encoder=FakeEncoder(phrase_weight=0.4))
    assert (searcher.phrase_weight, own.phrase_weight) == (0.0, 0.4)
    assert own.search(QUERY) == searcher.search(QUERY, phrase_weight=0.4)
    assert own.search(QUERY, phrase_weight=None) == searcher.search(QUERY, phrase_weight=0.4)
    assert own.search(QUERY, phrase_weight=0.0) == searcher.search(QUERY)
    assert own.score(QUERY, ids).tolist() == searcher.score(QUERY, ids, phrase_weight=0.4).tolist()
    assert own.explain(QUERY, ids[0]) == searcher.explain(QUERY, ids[0], phrase_weight=0.4)
    texts = [d["text"] for d in DOCS]
    by_id: dict[str, Any] = {"ids": ids}
    for documents in (by_id, {"documents": texts}):
        expected = Reranker(searcher=searcher, phrase_weight=0.4).rerank(QUERY, **documents)
        assert Reranker(searcher=own).rerank(QUERY, **documents) == expected
        assert Reranker(searcher=own, phrase_weight=0.0).rerank(QUERY, **documents) == (
            Reranker(searcher=searcher).rerank(QUERY, **documents)
        )
    encoder = FakeEncoder(phrase_weight=0.4)
    assert Reranker(encoder).rerank(QUERY, texts) == Reranker(FakeEncoder(), phrase_weight=0.4).rerank(QUERY, texts)


def test_they_can_be_evaluated(searcher):
    run = search_all(searcher, {"q": QUERY}, phrase_weight=0.4)
    assert run["q"] == {hit.id: pytest.approx(hit.score) for hit in searcher.search(QUERY, phrase_weight=0.4)}


def test_pooled_vectors_have_no_neighbours(tmp_path):
    Index.create(tmp_path, "t", DOCS, encoder=FakeEncoder(), pool=2)
    searcher = Searcher.open(tmp_path, "t", encoder=FakeEncoder(phrase_weight=0.4))
    plain = Searcher.open(tmp_path, "t", encoder=FakeEncoder())
    assert searcher.phrase_weight == Reranker(searcher=searcher).phrase_weight == 0
    assert searcher.search(QUERY) == plain.search(QUERY) == searcher.search(QUERY, phrase_weight=0.0)
    with pytest.raises(InputError, match=r"has pooled vectors, which have no neighbours: leave out phrase_weight"):
        searcher.search(QUERY, phrase_weight=0.1)
    with pytest.raises(InputError, match="pooled"):
        searcher.score(QUERY, [DOCS[0]["id"]], phrase_weight=0.1)
    with pytest.raises(InputError, match="pooled"):
        searcher.explain(QUERY, DOCS[0]["id"], phrase_weight=0.1)


@pytest.mark.parametrize("weight", [-0.1, np.nan, np.inf, 1000.5])
def test_a_weight_out_of_range_is_refused(searcher, weight):
    for wrong in (
        lambda: searcher.search(QUERY, phrase_weight=weight),
        lambda: searcher.score(QUERY, ["d1"], phrase_weight=weight),
        lambda: searcher.explain(QUERY, DOCS[0]["id"], phrase_weight=weight),
        lambda: Reranker(searcher=searcher, phrase_weight=weight),
    ):
        with pytest.raises(InputError, match=r"phrase_weight is .*; it must be from 0 to 1000"):
            wrong()

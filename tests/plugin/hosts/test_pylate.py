"""PyLate: its retriever and its evaluation over our index."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any, cast

import numpy as np
import pytest

from tansaku import Index, InputError, MissingExtraError, ModelMismatchError, Searcher
from tansaku.indexer.table.model import VectorsOnly

from ...support.fakes import DIM, FakeEncoder, corpus

pytestmark = pytest.mark.integration

DOCS = corpus(40)
IDS = [d["id"] for d in DOCS]
VECTORS = [FakeEncoder().vectors(d["text"]) for d in DOCS]
QUERIES = [FakeEncoder().vectors(text) for text in ("3a9f", "b07")]


@pytest.fixture(scope="module")
def pylate():
    return pytest.importorskip("pylate")


@pytest.fixture
def make(pylate, tmp_path):
    from tansaku.plugin.hosts.pylate import TansakuIndex

    return lambda **options: TansakuIndex(tmp_path / "indexes", "t", **options)


@pytest.fixture
def index(make):
    return make(nbits=4, recall="exact").add_documents(IDS, VECTORS)


def by_plain_maxsim(query, vectors=VECTORS):
    return [float((query @ matrix.T).max(axis=1).sum()) for matrix in vectors]


def ranked(results):
    return [[result["id"] for result in of_one] for of_one in results]


class TestSearch:
    def test_order_is_that_of_maxsim_over_what_is_stored(self, index):
        stored = index.get_documents_embeddings([IDS])[0]
        for query, results in zip(QUERIES, index(QUERIES, k=40), strict=True):
            scores = by_plain_maxsim(query, stored)
            assert [r["id"] for r in results] == [IDS[i] for i in sorted(range(40), key=lambda i: -scores[i])]
            assert [r["score"] for r in results] == pytest.approx(sorted(scores, reverse=True), abs=1e-4)

    def test_stored_vectors_are_near_those_given(self, index):
        (some, none) = index.get_documents_embeddings([["d3", "d9"], []])
        assert none == []
        for matrix, given in zip(some, (VECTORS[3], VECTORS[9]), strict=True):
            assert matrix.shape == given.shape
            assert float((matrix * given).sum(axis=1).mean()) > 0.9

    def test_pylates_retriever_gives_what_the_index_gives(self, index):
        from pylate import retrieve

        results = retrieve.ColBERT(index=index).retrieve(cast("Any", QUERIES), k=5, subset=IDS[:20])
        assert results == index(QUERIES, k=5, subset=IDS[:20])
        assert all(len(of_one) == 5 and {r["id"] for r in of_one} <= set(IDS[:20]) for of_one in results)

    def test_pylates_ranking_of_stored_vectors_agrees(self, index):
        from pylate import rank

        stored = index.get_documents_embeddings([IDS])
        # One document at a time: PyLate fills shorter ones up with zeros, which hide negative maxima.
        for doc_id, matrix in list(zip(IDS, stored[0], strict=True))[:5]:
            theirs = rank.rerank([[doc_id]], [QUERIES[0]], [[matrix]])
            ours = index([QUERIES[0]], k=1, subset=[doc_id])
            assert ours[0][0]["score"] == pytest.approx(theirs[0][0]["score"], abs=1e-4)

    def test_tensors_lists_and_padded_arrays_are_the_same(self, make, index):
        import torch

        padded = np.zeros((2, 9, DIM), np.float32)
        for row, query in zip(padded, QUERIES, strict=True):
            row[: len(query)] = query
        expected = index(QUERIES, k=5)
        forms = (
            [torch.from_numpy(q) for q in QUERIES],
            [q.tolist() for q in QUERIES],
            padded,
            torch.from_numpy(padded),
        )
        for form in forms:
            for of_one, other in zip(index(form, k=5), expected, strict=True):
                assert ranked([of_one]) == ranked([other])
        assert ranked(index(QUERIES[0], k=3)) == ranked(index(QUERIES[:1], k=3))
        assert len(index([torch.from_numpy(q).bfloat16() for q in QUERIES], k=3)) == 2

    def test_subsets_for_each_query(self, index):
        assert [set(of_one) for of_one in ranked(index(QUERIES, k=9, subset=[["d1", "d2"], ["d3"]]))] == [
            {"d1", "d2"},
            {"d3"},
        ]
        assert index(QUERIES, subset=[]) == [[], []]

    def test_unknown_ids_in_a_subset_are_reported(self, index, caplog):
        with caplog.at_level(logging.WARNING):
            assert ranked(index(QUERIES[:1], subset=["d1", "zz"])) == [["d1"]]
        assert "1 of 2 ids" in caplog.text

    @pytest.mark.parametrize(
        "options", [{"recall": "fast", "nprobe": 1}, {"recall": 0.95}, {"phrase_weight": 2.0}, {"candidates": 3}]
    )
    def test_the_options_of_a_search_reach_it(self, index, make, tmp_path, options):
        dim = VECTORS[0].shape[1]
        searcher = Searcher.open(tmp_path / "indexes", "t", encoder=VectorsOnly(dim))
        expected = [[hit.id for hit in searcher.search_vectors(query, 5, **options)] for query in QUERIES]
        assert ranked(make(nbits=4, **options)(QUERIES, k=5)) == expected

    def test_no_queries_are_no_results(self, index):
        assert index([]) == []


class TestChanges:
    def test_documents_added_later_are_found(self, index):
        index.add_documents(["late"], [QUERIES[0]])
        assert ranked(index(QUERIES[:1], k=1)) == [["late"]]
        index.update_documents(["late", "later"], [VECTORS[0], QUERIES[0]])
        assert ranked(index(QUERIES[:1], k=1)) == [["later"]]

    def test_removed_documents_are_gone_and_unknown_ones_reported(self, index, caplog):
        (best,) = ranked(index(QUERIES[:1], k=1))[0]
        with caplog.at_level(logging.WARNING):
            index.remove_documents([best, "zz"])
        assert "1 of 2 documents" in caplog.text
        assert best not in ranked(index(QUERIES[:1], k=40))[0]

    def test_an_index_is_opened_again_or_overridden(self, index, make):
        assert make()(QUERIES, k=3) == index(QUERIES, k=3)
        with pytest.raises(InputError, match="empty"):
            make(override=True)(QUERIES)
        assert ranked(make().add_documents([7, 8], VECTORS[:2])(QUERIES[:1], subset=[7])) == [["7"]]

    def test_rows_of_zeros_are_padding(self, make):
        padded = [np.concatenate([matrix, np.zeros((3, DIM))]) for matrix in VECTORS]
        stored = make().add_documents(IDS, padded).get_documents_embeddings([IDS])[0]
        assert list(map(len, stored)) == list(map(len, VECTORS))

    def test_given_arrays_are_not_changed(self, make):
        given = [matrix.copy() for matrix in VECTORS]
        make().add_documents(IDS, given)
        assert all((a == b).all() for a, b in zip(given, VECTORS, strict=True))


class TestBadInput:
    @pytest.mark.parametrize(
        ("ids", "vectors", "said"),
        [
            (["a"], VECTORS[:2], "1 ids and 2 documents"),
            (["a", "a"], VECTORS[:2], "'a' occurs twice"),
            (["a"], [VECTORS[0][:, :8]], r"'a' have shape \(\d, 8\), expected \(tokens, 16\)"),
            (["a"], [VECTORS[0] * 2], "'a'.*unit length"),
            (["a"], [np.full((2, DIM), np.nan)], "'a'.*not finite"),
            (["a"], [np.zeros((2, DIM))], "'a'.*no vectors"),
            ([None], VECTORS[:1], "id 0 is NoneType"),
            ([""], VECTORS[:1], "'id'.*empty"),
            (["d1"], VECTORS[:1], "'d1' is in the index already"),
        ],
    )
    def test_documents_that_cannot_be_indexed_are_named(self, index, ids, vectors, said):
        with pytest.raises(InputError, match=said):
            index.add_documents(ids, vectors)
        assert len(index(QUERIES[:1], k=100)[0]) == 40

    def test_nothing_to_add_is_no_table(self, make, tmp_path):
        make().add_documents([], [])
        assert not (tmp_path / "indexes").exists()

    def test_queries_that_cannot_be_searched_are_named(self, index):
        for arguments, said in (
            ({"queries_embeddings": QUERIES, "k": 0}, "k is 0"),
            ({"queries_embeddings": [QUERIES[0][:, :8]]}, "shape"),
            ({"queries_embeddings": QUERIES, "subset": [["d1"]]}, "2 queries and 1 subsets"),
            ({"queries_embeddings": QUERIES, "subset": "d1"}, "one string"),
        ):
            with pytest.raises(InputError, match=said):
                index(**arguments)
        with pytest.raises(InputError, match="'zz'"):
            index.get_documents_embeddings([["d1", "zz"]])

    @pytest.mark.parametrize("options", [{"nbits": 3}, {"recall": "perfect"}, {"nprobe": 0}, {"phrase_weight": -1}])
    def test_options_that_are_none_are_refused(self, make, options):
        with pytest.raises(InputError, match=next(iter(options))):
            make(**options)

    def test_an_index_of_texts_is_refused(self, make, tmp_path):
        Index.create(tmp_path / "indexes", "t", DOCS, encoder=FakeEncoder())
        with pytest.raises(ModelMismatchError, match="fake"):
            make()


def test_without_pylate_the_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "tansaku.plugin.hosts.pylate", raising=False)
    monkeypatch.setitem(sys.modules, "pylate.indexes.base", None)
    with pytest.raises(MissingExtraError, match=r"pylate: pip install 'tansaku\[pylate\]'"):
        importlib.import_module("tansaku.plugin.hosts.pylate")

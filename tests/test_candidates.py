from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tansaku.indexer.postings import MAX_DOCUMENTS, InvertedLists
from tansaku.plugin.candidates import gather, probe, prune

deterministic = settings(deadline=None, derandomize=True, max_examples=80)


def random_corpus(seed: int, n_documents: int, n_centroids: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, n_documents)
    return random.integers(0, n_centroids, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])


corpora = st.builds(random_corpus, st.integers(0, 10_000), st.integers(1, 30), st.just(12))


@deterministic
@given(corpora)
def test_inverted_lists_hold_each_document_once_per_centroid(corpus: tuple[np.ndarray, np.ndarray]):
    centroid_ids, offsets = corpus
    lists = InvertedLists.build(centroid_ids, offsets, 12)
    for centroid in range(12):
        expected = [d for d in range(len(offsets) - 1) if centroid in centroid_ids[offsets[d] : offsets[d + 1]]]
        assert lists.postings[lists.offsets[centroid] : lists.offsets[centroid + 1]].tolist() == expected
    assert lists.offsets.tolist()[0] == 0
    assert lists.offsets.tolist()[-1] == len(lists.postings)


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i8"])
def test_inverted_lists_take_ids_of_any_width_and_have_narrow_numbers_themselves(dtype: str):
    centroid_ids = np.array([3, 0, 3, 3, 1], dtype)
    lists = InvertedLists.build(centroid_ids, np.array([0, 2, 5]), 5)
    assert lists.postings.dtype == np.uint16
    assert lists.offsets.dtype == np.uint32
    assert lists.offsets.tolist() == [0, 1, 2, 2, 4, 4]
    assert lists.postings.tolist() == [0, 1, 0, 1]


def test_the_last_document_and_centroid_of_the_largest_set_are_told_apart_from_the_first():
    last = MAX_DOCUMENTS - 1
    centroid_ids = np.zeros(MAX_DOCUMENTS, np.uint32)
    centroid_ids[last] = 70_000
    lists = InvertedLists.build(centroid_ids, np.arange(MAX_DOCUMENTS + 1), 70_001)
    assert lists.postings[: lists.offsets[1]].tolist() == list(range(last))
    assert lists.postings[lists.offsets[70_000] :].tolist() == [last]


def test_inverted_lists_of_no_documents_are_empty():
    lists = InvertedLists.build(np.empty(0, np.uint16), np.zeros(1, np.int64), 3)
    assert lists.offsets.tolist() == [0] * 4
    assert len(lists.postings) == 0


@deterministic
@given(corpora, st.integers(0, 10_000), st.integers(1, 12))
def test_gather_equals_a_plain_loop(corpus: tuple[np.ndarray, np.ndarray], seed: int, nprobe: int):
    centroid_ids, offsets = corpus
    random = np.random.default_rng(seed)
    query, centroids = random.normal(size=(3, 8)).astype(np.float32), random.normal(size=(12, 8)).astype(np.float32)
    probed, scores = probe(query, centroids, nprobe)
    n_documents = len(offsets) - 1
    documents, approximate = gather(InvertedLists.build(centroid_ids, offsets, 12), n_documents, probed, scores)

    expected = {}
    for document in range(n_documents):
        tokens = set(centroid_ids[offsets[document] : offsets[document + 1]].tolist())
        met = [tokens & set(row.tolist()) for row in probed]
        if any(met):
            expected[document] = sum(
                max(
                    (float(score) for c, score in zip(row, row_scores, strict=True) if c in tokens),
                    default=row_scores[0],
                )
                for row, row_scores in zip(probed, scores, strict=True)
            )
    assert documents.tolist() == sorted(expected)
    np.testing.assert_allclose(approximate, [expected[d] for d in documents], rtol=1e-5, atol=1e-6)


def test_probe_returns_the_best_centroids_worst_first():
    centroids = np.eye(4, dtype=np.float32)
    query = np.array([[0.1, 0.4, 0.2, 0.3]], np.float32)
    ids, scores = probe(query, centroids, 2)
    assert ids.tolist() == [[3, 1]]
    np.testing.assert_array_equal(scores, np.array([[0.3, 0.4]], np.float32))


def test_probing_more_centroids_than_there_are_probes_all():
    ids, _ = probe(np.ones((2, 4), np.float32), np.eye(4, dtype=np.float32), 99)
    assert np.sort(ids, axis=1).tolist() == [[0, 1, 2, 3]] * 2


def test_prune_keeps_the_best_in_ascending_order():
    documents, scores = np.array([2, 5, 7, 9]), np.array([0.1, 0.9, 0.4, 0.8])
    assert prune(documents, scores, 2).tolist() == [5, 9]
    assert prune(documents, scores, 4).tolist() == [2, 5, 7, 9]


def test_gather_gives_no_document_that_no_probed_centroid_reaches():
    lists = InvertedLists.build(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 3, 4]), 3)
    documents, scores = gather(lists, 4, np.array([[2, 1]]), np.array([[0.25, 0.5]], np.float32))
    assert documents.tolist() == [1, 2, 3]
    assert scores.tolist() == [0.5, 0.5, 0.25]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_prune_keeps_the_first_of_those_that_tie(limit: int):
    documents, scores = np.array([1, 3, 4, 6, 8]), np.array([0.5, 0.5, 0.75, 0.5, 0.25])
    assert prune(documents, scores, limit).tolist() == [[4], [1, 4], [1, 3, 4], [1, 3, 4, 6]][limit - 1]


@deterministic
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30), st.integers(1, 32))
def test_prune_equals_sorting_by_score_and_place(scores: list[float], limit: int):
    documents = np.arange(len(scores)) * 3
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:limit]
    assert prune(documents, np.array(scores), limit).tolist() == [3 * i for i in sorted(ranked)]

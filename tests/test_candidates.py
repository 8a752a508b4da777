from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tansaku.plugin.candidates import InvertedLists, gather, probe, prune


def random_corpus(seed: int, n_documents: int, n_centroids: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, n_documents)
    return random.integers(0, n_centroids, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)])


corpora = st.builds(random_corpus, st.integers(0, 10_000), st.integers(1, 30), st.just(12))


@given(corpora)
def test_inverted_lists_hold_each_document_once_per_centroid(corpus: tuple[np.ndarray, np.ndarray]):
    centroid_ids, offsets = corpus
    lists = InvertedLists.build(centroid_ids, offsets, 12)
    for centroid in range(12):
        expected = [d for d in range(len(offsets) - 1) if centroid in centroid_ids[offsets[d] : offsets[d + 1]]]
        assert lists.postings[lists.offsets[centroid] : lists.offsets[centroid + 1]].tolist() == expected


@given(corpora, st.integers(0, 10_000), st.integers(1, 12))
def test_gather_equals_a_plain_loop(corpus: tuple[np.ndarray, np.ndarray], seed: int, nprobe: int):
    centroid_ids, offsets = corpus
    random = np.random.default_rng(seed)
    query, centroids = random.normal(size=(3, 8)).astype(np.float32), random.normal(size=(12, 8)).astype(np.float32)
    probed, scores = probe(query, centroids, nprobe)
    documents, approximate = gather(InvertedLists.build(centroid_ids, offsets, 12), probed, scores)

    expected = {}
    for document in range(len(offsets) - 1):
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

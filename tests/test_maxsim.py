from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tansaku.plugin.maxsim import maxsim


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def oracle(query: np.ndarray, documents: list[np.ndarray]) -> list[float]:
    """MaxSim in double precision, one product at a time."""
    return [
        sum(max(float(np.dot(q.astype(float), d.astype(float))) for d in document) for q in query)
        for document in documents
    ]


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.lists(st.integers(1, 7), min_size=1, max_size=6),
    st.sampled_from([1, 8, 96]),
)
def test_equals_the_double_precision_oracle(seed: int, query_tokens: int, lengths: list[int], dim: int):
    random = np.random.default_rng(seed)
    query = unit(random.normal(size=(query_tokens, dim)))
    documents = [unit(random.normal(size=(length, dim))) for length in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scores = maxsim(query, np.concatenate(documents), offsets)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, oracle(query, documents), atol=1e-5)


def test_negative_similarities_count_as_they_are():
    query = np.array([[1.0, 0.0]], np.float32)
    document = np.array([[-1.0, 0.0], [-0.6, 0.8]], np.float32)
    np.testing.assert_allclose(maxsim(query, document, np.array([0, 2])), [-0.6])


def test_no_documents_no_scores():
    assert maxsim(np.ones((2, 4), np.float32), np.empty((0, 4), np.float32), np.array([0])).tolist() == []

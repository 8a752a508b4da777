"""The functions of `kernels` in plain NumPy: what tests compare those with, and what runs where numba is missing.

Arguments and results are described there.
"""

from __future__ import annotations

import numpy as np

from .phrases import with_neighbours


def residual_bound(codewords: np.ndarray, query: np.ndarray) -> float:
    """See `kernels.residual_bound`."""
    return float(np.abs(_code_products(codewords, query)).max(axis=1).sum(axis=0).max())


def products(rows: np.ndarray, steps: np.ndarray, pairs: np.ndarray, out: np.ndarray) -> None:
    """See `kernels.products`."""
    query = pairs.transpose(0, 2, 1).reshape(-1, pairs.shape[1]).astype(np.float32)
    out[:] = np.rint(rows.astype(np.float32) @ query * steps[:, None])


def code_tables(codewords: np.ndarray, query: np.ndarray, scale: float, out: np.ndarray) -> None:
    """See `kernels.code_tables`."""
    out[:] = np.rint(_code_products(codewords, query) * np.float32(scale))


def probe(scores: np.ndarray, n_tokens: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """See `kernels.probe`."""
    of_tokens = scores[:, :n_tokens].T
    ids = np.argsort(-of_tokens.astype(np.int32), axis=1, kind="stable")[:, :nprobe]
    return ids.astype(np.int32), np.take_along_axis(of_tokens, ids, axis=1)


def gather(
    list_offsets: np.ndarray, postings: np.ndarray, centroid_ids: np.ndarray, scores: np.ndarray, total: np.ndarray
) -> None:
    """See `kernels.gather`."""
    for token_ids, token_scores in zip(centroid_ids, scores.astype(np.int32), strict=True):
        gain = np.zeros_like(total)
        # Worst centroid first: a better one found later takes its place, which is the maximum.
        for centroid, score in zip(token_ids[::-1], token_scores[::-1], strict=True):
            gain[postings[list_offsets[centroid] : list_offsets[centroid + 1]]] = score - token_scores[-1]
        total += gain


def select(total: np.ndarray, allowed: np.ndarray, limit: int) -> np.ndarray:
    """See `kernels.select`; here no more are returned than tie with the last."""
    documents = np.flatnonzero(allowed)
    if len(documents) <= limit:
        return documents
    totals = total[documents]
    return documents[totals >= np.partition(totals, len(totals) - limit)[len(totals) - limit]]


def refine(
    centroid_scores: np.ndarray,
    table: np.ndarray,
    n_tokens: int,
    slack: int,
    centroid_ids: np.ndarray,
    residuals: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:
    """See `kernels.refine`."""
    scores = np.empty(len(starts), np.int32)
    bytes_of_code = np.arange(len(table))
    for document, (start, end) in enumerate(zip(starts, ends, strict=True)):
        similarities = centroid_scores[centroid_ids[start:end], :n_tokens].astype(np.int32)
        needed = np.maximum(similarities.max(axis=0) - slack, -32768)
        near = np.flatnonzero((similarities > needed).any(axis=1))
        residual = table[bytes_of_code, residuals[start + near], :n_tokens].sum(axis=1, dtype=np.int32)
        scores[document] = (similarities[near] + residual).max(axis=0).sum()
    return scores


def rescore(
    query: np.ndarray,
    weights: np.ndarray,
    phrase_weight: float,
    centroids: np.ndarray,
    codewords: np.ndarray,
    centroid_ids: np.ndarray,
    residuals: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:
    """See `kernels.rescore`."""
    scores = np.empty(len(starts), np.float32)
    bytes_of_code = np.arange(len(codewords))
    for document, (start, end) in enumerate(zip(starts, ends, strict=True)):
        vectors = codewords[bytes_of_code, residuals[start:end]].reshape(end - start, -1)
        vectors = vectors + centroids[centroid_ids[start:end]]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        similarities = with_neighbours(vectors @ query, phrase_weight)
        scores[document] = (similarities.max(axis=0) * weights).sum(dtype=np.float32)
    return scores


def _code_products(codewords: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float32 (residual_bytes, 256, lanes)."""
    return np.matmul(codewords, query.reshape(len(codewords), -1, query.shape[1]))

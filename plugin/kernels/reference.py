"""The functions of `query_loops` and `index_loops` in plain NumPy, with the same arguments and results.

Tests compare the compiled loops with these, and a reader can see here what a loop computes.
"""

from __future__ import annotations

import numpy as np

from .phrases import with_neighbours


def residual_bound(codewords: np.ndarray, block: np.ndarray) -> float:
    """See `query_loops.residual_bound`."""
    return float(np.abs(_codeword_products(codewords, block)).max(axis=1).sum(axis=0).max())


def fill_centroid_scores(
    centroids: np.ndarray,
    sums: np.ndarray,
    steps: np.ndarray,
    query: np.ndarray,
    query_steps: np.ndarray,
    out: np.ndarray,
) -> None:
    """See `query_loops.fill_centroid_scores`; ``sums`` are not needed here."""
    products = centroids.astype(np.int32) @ query.astype(np.int32)
    out[:] = np.rint(products.astype(np.float32) * steps[:, None] * query_steps)


def fill_residual_scores(codewords: np.ndarray, block: np.ndarray, scale: float, out: np.ndarray) -> None:
    """See `query_loops.fill_residual_scores`."""
    out[:] = np.rint(_codeword_products(codewords, block) * np.float32(scale))


def best_centroids(centroid_scores: np.ndarray, n_tokens: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """See `query_loops.best_centroids`."""
    of_tokens = centroid_scores[:, :n_tokens].T
    ids = np.argsort(-of_tokens.astype(np.int32), axis=1, kind="stable")[:, :nprobe]
    return ids.astype(np.int32), np.take_along_axis(of_tokens, ids, axis=1)


def best_points(
    centroid_scores: np.ndarray,
    residual_scores: np.ndarray,
    n_tokens: int,
    nprobe: int,
    centroids: np.ndarray,
    offsets: np.ndarray,
    residuals: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """See `query_loops.best_points`."""
    bytes_of_code = np.arange(len(residual_scores))
    ranges = [np.arange(int(offsets[centroid]), int(offsets[centroid + 1])) for centroid in np.sort(centroids)]
    points = np.concatenate(ranges)
    of_centroids = np.repeat(centroid_scores[np.sort(centroids)].astype(np.int32), list(map(len, ranges)), axis=0)
    scores = of_centroids + residual_scores[bytes_of_code, residuals[points]].sum(axis=1, dtype=np.int32)
    chosen, found = best_centroids(scores, n_tokens, nprobe)
    return points[chosen].astype(np.int32), found.astype(np.int16)


def gather_from_lists(
    list_offsets: np.ndarray,
    postings: np.ndarray,
    centroid_ids: np.ndarray,
    scores: np.ndarray,
    imputed: np.ndarray,
    total: np.ndarray,
    touched: np.ndarray,
    n_touched: int,
) -> int:
    """See `index_loops.gather_from_lists`; here ``touched`` ascends."""
    before = total != 0
    for token_ids, token_gains in zip(centroid_ids, scores.astype(np.int32) - imputed[:, None], strict=True):
        of_token = np.zeros_like(total)
        # Worst centroid first: a better one found later takes its place, which is the maximum.
        for centroid, gain in zip(token_ids[::-1], token_gains[::-1], strict=True):
            of_token[postings[list_offsets[centroid] : list_offsets[centroid + 1]]] = max(gain, 0)
        total += of_token
    (fresh,) = np.nonzero((total != 0) & ~before)
    touched[n_touched : n_touched + len(fresh)] = fresh
    return n_touched + len(fresh)


def best_rows(total: np.ndarray, rows: np.ndarray, limit: int) -> np.ndarray:
    """See `index_loops.best_rows`; here only those that tie with the last come in addition."""
    if len(rows) <= limit:
        return rows
    totals = total[rows]
    return rows[totals >= np.partition(totals, len(totals) - limit)[len(totals) - limit]]


def integer_maxsim(
    centroid_scores: np.ndarray,
    residual_scores: np.ndarray,
    n_tokens: int,
    slack: int,
    centroid_ids: np.ndarray,
    residuals: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:
    """See `index_loops.integer_maxsim`."""
    scores = np.empty(len(starts), np.int32)
    bytes_of_code = np.arange(len(residual_scores))
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        similarities = centroid_scores[centroid_ids[start:end], :n_tokens].astype(np.int32)
        needed = np.maximum(similarities.max(axis=0) - slack, -32768)
        near = np.flatnonzero((similarities > needed).any(axis=1))
        of_residuals = residual_scores[bytes_of_code, residuals[start + near], :n_tokens].sum(axis=1, dtype=np.int32)
        scores[row] = (similarities[near] + of_residuals).max(axis=0).sum()
    return scores


def float_maxsim(
    block: np.ndarray,
    weights: np.ndarray,
    phrase_weight: float,
    centroids: np.ndarray,
    codewords: np.ndarray,
    centroid_ids: np.ndarray,
    residuals: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:
    """See `index_loops.float_maxsim`."""
    scores = np.empty(len(starts), np.float32)
    bytes_of_code = np.arange(len(codewords))
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        vectors = codewords[bytes_of_code, residuals[start:end]].reshape(end - start, -1)
        vectors = vectors + centroids[centroid_ids[start:end]]
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        similarities = with_neighbours(vectors @ block, phrase_weight)
        scores[row] = (similarities.max(axis=0) * weights).sum(dtype=np.float32)
    return scores


def _codeword_products(codewords: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Products of every codeword with every lane: float32 (residual_bytes, 256, lanes)."""
    return np.matmul(codewords, block.reshape(len(codewords), -1, block.shape[1]))

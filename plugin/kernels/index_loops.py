"""The loops of a search over the index, compiled by numba; `reference` has each in plain NumPy, by the same name.

LAYOUT.md in this folder draws the arrays. In short: a query's numbers lie in blocks of ``lanes`` query tokens (16 or
32, padded with zeros), so that one vector register holds one number of every query token. Similarities are 16-bit
integers: true values times a scale that `query_layout.BlockTables` chooses so that no sum can overflow. The loops over
the query alone are in `query_loops`.

Rows are numbers of documents, or of passages, within the segments of an index.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .compiling import compiled, compiled_for
from .simd import add, any_greater, fma, load, maximum, prefetch, scaled, splat, store

__all__ = ["best_rows", "float_maxsim", "gather_from_lists", "integer_maxsim"]


@compiled
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
    """Add to each row, for each query token, the score of its best probed centroid, less the token's imputed score.

    Args:
        list_offsets: uint32 (n_centroids + 1,).
        postings: uint16 (postings,); the rows of centroid c are ``postings[list_offsets[c]:list_offsets[c + 1]]``.
        centroid_ids: int32 (query tokens, nprobe), best first.
        scores: int16 (query tokens, nprobe), of these centroids.
        imputed: int32 (query tokens,): the score that stands for a row without a token in a probed list.
        total: int32 (rows,), added to.
        touched: int32 (rows,): rows whose total is no longer 0 are written to it, in the order in which they are met.
        n_touched: Number of rows that are in it already.

    Returns:
        Number of rows that are in ``touched`` now.
    """
    n_tokens, nprobe = centroid_ids.shape
    seen = np.full(len(total), -1, np.int16)
    for token in range(n_tokens):
        for position in range(nprobe):
            gain = np.int32(scores[token, position]) - imputed[token]
            if gain <= 0:
                break
            centroid = centroid_ids[token, position]
            for at in range(list_offsets[centroid], list_offsets[centroid + 1]):
                row = postings[at]
                # The best centroid comes first: where a row is first met, it has its maximum.
                if seen[row] != token:
                    seen[row] = token
                    if total[row] == 0:
                        touched[n_touched] = row
                        n_touched += 1
                    total[row] += gain
    return n_touched


@compiled
def best_rows(total: np.ndarray, rows: np.ndarray, limit: int) -> np.ndarray:
    """Those ``limit`` of some rows that have the highest totals, and some more that may tie with the last.

    Args:
        total: int32 (all rows,), 0 or more.
        rows: int64 (rows,), row numbers to choose from.
        limit: Number of rows wanted, 1 or more; all if there are fewer.

    Returns:
        int64 row numbers, in the order of ``rows``.
    """
    bins = 4096
    highest = np.int64(0)
    for row in rows:
        highest = max(highest, np.int64(total[row]))
    shift = 0
    while highest >> shift >= bins:
        shift += 1
    counts = np.zeros(bins, np.int64)
    for row in rows:
        counts[total[row] >> shift] += 1
    lowest, kept = bins, 0
    while lowest > 0 and kept < limit:
        lowest -= 1
        kept += counts[lowest]
    found = np.empty(kept, np.int64)
    n = 0
    for row in rows:
        if total[row] >> shift >= lowest:
            found[n] = row
            n += 1
    return found


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
    """MaxSim of rows with one block of a query, in integers, without decoding the rows' codes.

    A similarity is the score of one centroid and of each byte of the residual. Vectors count as centroid + residual,
    without being scaled to unit length. Residuals are read only for tokens whose centroid, for at least one query
    token, scores at most ``slack`` below the best centroid of the row.

    Args:
        centroid_scores: int16 (n_centroids, lanes).
        residual_scores: int16 (residual_bytes, 256, lanes).
        n_tokens: Number of lanes that are query tokens.
        slack: 1 to 32,767, in the unit of the scores.
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual_bytes).
        starts: int64 (rows,): where each row's tokens begin.
        ends: int64 (rows,).

    Returns:
        int32 (rows,), in the unit of the scores.
    """
    n_bytes, _, lanes = residual_scores.shape
    longest = int((ends - starts).max(initial=0))
    return _integer_loop(lanes, n_bytes)(
        centroid_scores.ravel(),
        residual_scores.ravel(),
        n_tokens,
        slack,
        centroid_ids,
        residuals.ravel(),
        starts,
        ends,
        np.empty(longest, np.int64),
    )


@cache
def _integer_loop(lanes: int, n_bytes: int) -> Callable[..., np.ndarray]:
    @compiled_for(lanes, n_bytes)
    def integer_maxsim(
        centroid_scores: Any,
        residual_scores: Any,
        n_tokens: Any,
        slack: Any,
        centroid_ids: Any,
        residuals: Any,
        starts: Any,
        ends: Any,
        near: Any,
    ) -> Any:
        scores = np.empty(len(starts), np.int32)
        of_row = np.empty(lanes, np.int16)  # the best similarity of each query token
        threshold = np.full(lanes, 32767, np.int16)  # lanes without a query token: no similarity is above it
        threshold[:n_tokens] = -32768
        never_above = load(threshold, 0, lanes)
        lowest = splat(np.int16(-32768), lanes)
        tightest = splat(np.int16(slack - 32768), lanes)
        for row in range(len(starts)):
            best = lowest
            for token in range(starts[row], ends[row]):
                best = maximum(best, load(centroid_scores, np.int64(centroid_ids[token]) * lanes, lanes))
            needed = maximum(add(maximum(best, tightest), splat(np.int16(-slack), lanes)), never_above)
            n_near = 0
            for token in range(starts[row], ends[row]):
                near[n_near] = token
                if any_greater(load(centroid_scores, np.int64(centroid_ids[token]) * lanes, lanes), needed):
                    prefetch(residuals, token * n_bytes)
                    n_near += 1
            if row + 1 < len(starts):
                for token in range(starts[row + 1], ends[row + 1], 16):
                    prefetch(centroid_ids, token)
            best = lowest
            for place in range(n_near):
                token = near[place]
                similarity = load(centroid_scores, np.int64(centroid_ids[token]) * lanes, lanes)
                at = token * n_bytes
                for byte in range(n_bytes):
                    entry = (byte * 256 + np.int64(residuals[at + byte])) * lanes
                    similarity = add(similarity, load(residual_scores, entry, lanes))
                best = maximum(best, similarity)
            store(of_row, 0, best)
            total = np.int32(0)
            for lane in range(n_tokens):
                total += of_row[lane]
            scores[row] = total
        return scores

    return integer_maxsim


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
    """MaxSim of rows with one block of a query, in float32, over decoded vectors of unit length.

    Four vectors are decoded at a time; none is kept.

    Args:
        block: float32 (dim, lanes), each lane of unit length or zero.
        weights: float32 (lanes,): what the best similarity of each lane is multiplied by.
        phrase_weight: Weight of the similarities of both neighbours, see `phrases`; the sum is not divided here.
        centroids: float32 (n_centroids, dim).
        codewords: float32 (residual_bytes, 256, dim / residual_bytes).
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual_bytes).
        starts: int64 (rows,): where each row's tokens begin.
        ends: int64 (rows,).

    Returns:
        float32 (rows,).
    """
    n_bytes, _, length = codewords.shape
    lanes = block.shape[1]
    longest = int((ends - starts).max(initial=0))
    return _float_loop(lanes, n_bytes, length)(
        block.ravel(),
        weights,
        np.float32(phrase_weight),
        centroids.ravel(),
        codewords.ravel(),
        centroid_ids,
        residuals.ravel(),
        starts,
        ends,
        np.zeros((longest + 2) * (lanes + 2), np.float32),
    )


@cache
def _float_loop(lanes: int, n_bytes: int, length: int) -> Callable[..., np.ndarray]:
    dim = n_bytes * length
    padded = (dim + 15) // 16 * 16

    # Similarities of a row of the index: a line for each of its tokens, with a zero at both ends, and a line of zeros
    # before and after. The similarity of the neighbours lies one line and one lane further on.
    width = lanes + 2

    @compiled_for(lanes, n_bytes, length)
    def float_maxsim(
        block: Any,
        weights: Any,
        phrase_weight: Any,
        centroids: Any,
        codewords: Any,
        centroid_ids: Any,
        residuals: Any,
        starts: Any,
        ends: Any,
        similarities: Any,
    ) -> Any:
        scores = np.empty(len(starts), np.float32)
        vectors = np.zeros(4 * padded, np.float32)
        norms = np.ones(4, np.float32)
        sums = np.empty(16, np.float32)
        of_row = np.empty(lanes, np.float32)  # the best similarity of each query token
        for row in range(len(starts)):
            for first in range(starts[row], ends[row], 4):
                together = min(4, ends[row] - first)
                for token in range(first + 4, min(first + 8, ends[row])):
                    centroid = np.int64(centroid_ids[token]) * dim
                    prefetch(residuals, token * n_bytes)
                    for i in range(0, dim, 16):
                        prefetch(centroids, centroid + i)
                for k in range(together):
                    token = first + k
                    centroid = np.int64(centroid_ids[token]) * dim
                    for byte in range(n_bytes):
                        word = (byte * 256 + np.int64(residuals[token * n_bytes + byte])) * length
                        value = add(load(centroids, centroid + byte * length, length), load(codewords, word, length))
                        store(vectors, k * padded + byte * length, value)
                    squares = splat(np.float32(0), 16)
                    for i in range(0, padded, 16):
                        part = load(vectors, k * padded + i, 16)
                        squares = fma(squares, part, part)
                    store(sums, 0, squares)
                    norms[k] = np.float32(1) / max(np.sqrt(sums.sum()), np.float32(1e-12))
                a = splat(np.float32(0), lanes)
                b = splat(np.float32(0), lanes)
                c = splat(np.float32(0), lanes)
                d = splat(np.float32(0), lanes)
                for i in range(dim):
                    q = load(block, i * lanes, lanes)
                    a = fma(a, q, vectors[i])
                    b = fma(b, q, vectors[padded + i])
                    c = fma(c, q, vectors[2 * padded + i])
                    d = fma(d, q, vectors[3 * padded + i])
                at = (first - starts[row] + 1) * width + 1
                store(similarities, at, scaled(a, norms[0]))
                if together > 1:
                    store(similarities, at + width, scaled(b, norms[1]))
                if together > 2:
                    store(similarities, at + 2 * width, scaled(c, norms[2]))
                if together > 3:
                    store(similarities, at + 3 * width, scaled(d, norms[3]))
            after = (ends[row] - starts[row] + 1) * width + 1
            store(similarities, after, splat(np.float32(0), lanes))
            best = splat(np.float32(-np.inf), lanes)
            for at in range(width + 1, after, width):
                neighbours = add(load(similarities, at - width - 1, lanes), load(similarities, at + width + 1, lanes))
                best = maximum(best, fma(load(similarities, at, lanes), neighbours, phrase_weight))
            store(of_row, 0, best)
            total = np.float32(0)
            for lane in range(lanes):
                total += weights[lane] * of_row[lane]
            scores[row] = total
        return scores

    return float_maxsim

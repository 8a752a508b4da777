"""The inner loops of a search, compiled by numba; `oracles` has each of them in plain NumPy, by the same name.

A query's numbers lie in blocks of `lanes` query tokens (16 or 32, padded with zeros), so that one vector register holds
one number of every query token. Similarities are 16-bit integers: true values times a scale that `tables.QueryTables`
chooses so that no sum can overflow. The loops over the query alone are in `query_kernels`, those over the index here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .query_loops import code_tables, probe, products, residual_bound
from .simd import add, any_greater, compiled, compiled_for, fma, load, maximum, prefetch, scaled, splat, store

__all__ = ["code_tables", "gather", "probe", "products", "refine", "rescore", "residual_bound", "select"]


@compiled
def gather(
    list_offsets: np.ndarray, postings: np.ndarray, centroid_ids: np.ndarray, scores: np.ndarray, total: np.ndarray
) -> None:
    """Add to each document what it has at the probed centroids, above the worst probed score of each query token.

    Args:
        list_offsets: uint32 (n_centroids + 1,).
        postings: uint16; the documents of centroid c are ``postings[list_offsets[c]:list_offsets[c + 1]]``.
        centroid_ids: int32 (query tokens, nprobe), best first.
        scores: int16 (query tokens, nprobe).
        total: int32 (documents,), added to.
    """
    n_tokens, nprobe = centroid_ids.shape
    seen = np.full(len(total), -1, np.int16)
    for token in range(n_tokens):
        floor = np.int32(scores[token, nprobe - 1])
        for position in range(nprobe):
            gain = np.int32(scores[token, position]) - floor
            if gain == 0:
                break
            centroid = centroid_ids[token, position]
            for at in range(list_offsets[centroid], list_offsets[centroid + 1]):
                document = postings[at]
                # The best centroid comes first: the first meeting is the maximum.
                if seen[document] != token:
                    seen[document] = token
                    total[document] += gain


@compiled
def select(total: np.ndarray, allowed: np.ndarray, limit: int) -> np.ndarray:
    """The ``limit`` allowed documents with the highest totals, and some more that may tie with the last.

    Args:
        total: int32 (documents,), 0 or more.
        allowed: bool (documents,).
        limit: how many, 1 or more; all if there are fewer.

    Returns:
        int64 document numbers, ascending.
    """
    bins = 4096
    highest = np.int64(0)
    for document in range(len(total)):
        if allowed[document] and total[document] > highest:
            highest = np.int64(total[document])
    shift = 0
    while highest >> shift >= bins:
        shift += 1
    counts = np.zeros(bins, np.int64)
    for document in range(len(total)):
        if allowed[document]:
            counts[total[document] >> shift] += 1
    lowest, kept = bins, 0
    while lowest > 0 and kept < limit:
        lowest -= 1
        kept += counts[lowest]
    found = np.empty(kept, np.int64)
    n = 0
    for document in range(len(total)):
        if allowed[document] and total[document] >> shift >= lowest:
            found[n] = document
            n += 1
    return found


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
    """MaxSim over codes that are never decoded: a similarity is one centroid's score and a table entry for each byte.

    Vectors count as centroid + residual, without being brought to unit length. Residuals are looked at only of document
    tokens whose centroid, for one of the query tokens, is at most ``slack`` worse than the document's best one.

    Args:
        centroid_scores: int16 (n_centroids, lanes).
        table: int16 (residual_bytes, 256, lanes).
        n_tokens: how many lanes are query tokens.
        slack: 1 to 65,535, in the unit of the scores.
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual_bytes).
        starts: int64 (documents,): where each document's tokens begin.
        ends: int64 (documents,).

    Returns:
        int32 (documents,), scaled as the tables are.
    """
    n_bytes, _, lanes = table.shape
    longest = int((ends - starts).max(initial=0))
    run = _refine(lanes, n_bytes)
    return run(
        centroid_scores.ravel(),
        table.ravel(),
        n_tokens,
        slack,
        centroid_ids,
        residuals.ravel(),
        starts,
        ends,
        np.empty(longest, np.int64),
    )


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
    """MaxSim, with phrases or without, in float32 over decoded vectors of unit length; a few are in memory at a time.

    Args:
        query: float32 (dim, lanes), of unit length.
        weights: float32 (lanes,): what the best similarity of each query token counts.
        phrase_weight: how much of its neighbours' similarities a similarity takes in, see `phrases`; no sum is divided.
        centroids: float32 (n_centroids, dim).
        codewords: float32 (residual_bytes, 256, dim / residual_bytes).
        centroid_ids: uint16 or uint32 (tokens,).
        residuals: uint8 (tokens, residual_bytes).
        starts: int64 (documents,): where each document's tokens begin.
        ends: int64 (documents,).

    Returns:
        float32 (documents,).
    """
    n_bytes, _, length = codewords.shape
    lanes = query.shape[1]
    longest = int((ends - starts).max(initial=0))
    run = _rescore(lanes, n_bytes, length)
    return run(
        query.ravel(),
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
def _refine(lanes: int, n_bytes: int) -> Callable[..., np.ndarray]:
    @compiled_for(lanes, n_bytes)
    def refine(
        centroid_scores: Any,
        table: Any,
        n_tokens: Any,
        slack: Any,
        centroid_ids: Any,
        residuals: Any,
        starts: Any,
        ends: Any,
        near: Any,
    ) -> Any:
        scores = np.empty(len(starts), np.int32)
        last = np.full(lanes, 32767, np.int16)
        last[:n_tokens] = -32768
        lowest = splat(np.int16(-32768), lanes)
        unused = load(last, 0, lanes)  # what no padding is greater than
        tightest = splat(np.int16(slack - 32768), lanes)
        for document in range(len(starts)):
            best = lowest
            for token in range(starts[document], ends[document]):
                best = maximum(best, load(centroid_scores, np.int64(centroid_ids[token]) * lanes, lanes))
            needed = maximum(add(maximum(best, tightest), splat(np.int16(-slack), lanes)), unused)
            n_near = 0
            for token in range(starts[document], ends[document]):
                near[n_near] = token
                if any_greater(load(centroid_scores, np.int64(centroid_ids[token]) * lanes, lanes), needed):
                    prefetch(residuals, token * n_bytes)
                    n_near += 1
            if document + 1 < len(starts):
                for token in range(starts[document + 1], ends[document + 1], 16):
                    prefetch(centroid_ids, token)
            best = lowest
            for place in range(n_near):
                token = near[place]
                similarity = load(centroid_scores, np.int64(centroid_ids[token]) * lanes, lanes)
                at = token * n_bytes
                for byte in range(n_bytes):
                    entry = (byte * 256 + np.int64(residuals[at + byte])) * lanes
                    similarity = add(similarity, load(table, entry, lanes))
                best = maximum(best, similarity)
            store(last, 0, best)
            total = np.int32(0)
            for lane in range(n_tokens):
                total += last[lane]
            scores[document] = total
        return scores

    return refine


@cache
def _rescore(lanes: int, n_bytes: int, length: int) -> Callable[..., np.ndarray]:
    dim = n_bytes * length
    padded = (dim + 15) // 16 * 16

    # Similarities of a document: a row for each token, with a zero at both ends of it, and a row of zeros before and
    # after. A neighbour's is one row and one lane further on.
    width = lanes + 2

    @compiled_for(lanes, n_bytes, length)
    def rescore(
        query: Any,
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
        last = np.empty(lanes, np.float32)
        for document in range(len(starts)):
            for first in range(starts[document], ends[document], 4):
                together = min(4, ends[document] - first)
                for token in range(first + 4, min(first + 8, ends[document])):
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
                    q = load(query, i * lanes, lanes)
                    a = fma(a, q, vectors[i])
                    b = fma(b, q, vectors[padded + i])
                    c = fma(c, q, vectors[2 * padded + i])
                    d = fma(d, q, vectors[3 * padded + i])
                row = (first - starts[document] + 1) * width + 1
                store(similarities, row, scaled(a, norms[0]))
                if together > 1:
                    store(similarities, row + width, scaled(b, norms[1]))
                if together > 2:
                    store(similarities, row + 2 * width, scaled(c, norms[2]))
                if together > 3:
                    store(similarities, row + 3 * width, scaled(d, norms[3]))
            after = (ends[document] - starts[document] + 1) * width + 1
            store(similarities, after, splat(np.float32(0), lanes))
            best = splat(np.float32(-np.inf), lanes)
            for row in range(width + 1, after, width):
                neighbours = add(load(similarities, row - width - 1, lanes), load(similarities, row + width + 1, lanes))
                best = maximum(best, fma(load(similarities, row, lanes), neighbours, phrase_weight))
            store(last, 0, best)
            total = np.float32(0)
            for lane in range(lanes):
                total += weights[lane] * last[lane]
            scores[document] = total
        return scores

    return rescore

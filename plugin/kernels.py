"""The inner loops of a search, compiled by numba; `oracles` has each of them in plain NumPy, by the same name.

A query's numbers lie in blocks of `lanes` query tokens (16 or 32, padded with zeros), so that one vector register holds
one number of every query token. Similarities are 16-bit integers: true values times a scale that `tables.QueryTables`
chooses so that no sum can overflow. Nothing here allocates in proportion to the index.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from .simd import (
    add,
    add_pairs,
    any_greater,
    fma,
    load,
    maximum,
    prefetch,
    rounded,
    scaled,
    splat,
    store,
    to_floats,
    to_shorts,
)

_ALL_ONES = (1 << 32) - 1

_compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")


def residual_bound(codewords: np.ndarray, query: np.ndarray) -> float:
    """The most that any residual can add to or take from a similarity with any query token.

    Args:
        codewords: float32 (residual_bytes, 256, dim / residual_bytes).
        query: float32 (dim, lanes).
    """
    n_bytes, _, length = codewords.shape
    return float(_residual_bound(query.shape[1], length)(codewords.ravel(), query.ravel(), n_bytes))


def products(rows: np.ndarray, steps: np.ndarray, pairs: np.ndarray, out: np.ndarray) -> None:
    """Dot products of every row with every query token, as scaled integers.

    Args:
        rows: int8 (n, dim); dim even.
        steps: float32 (n,): what a product with each row is multiplied with before it is rounded.
        pairs: int16 (dim / 2, lanes, 2): two dimensions of every query token lie together; at most ±8,191.
        out: int16 (n, lanes), written to.
    """
    half, lanes, _ = pairs.shape
    _products(lanes)(rows.ravel(), steps, pairs.ravel(), out.ravel(), len(rows), half)


def code_tables(codewords: np.ndarray, query: np.ndarray, scale: float, out: np.ndarray) -> None:
    """What each value of each byte of a residual adds to a similarity, as scaled integers.

    Args:
        codewords: float32 (residual_bytes, 256, dim / residual_bytes).
        query: float32 (dim, lanes).
        scale: what a product is multiplied with before it is rounded.
        out: int16 (residual_bytes, 256, lanes), written to.
    """
    n_bytes, _, length = codewords.shape
    run = _code_tables(query.shape[1], length)
    run(codewords.ravel(), query.ravel(), np.float32(scale), out.ravel(), n_bytes)


def probe(scores: np.ndarray, n_tokens: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``nprobe`` best centroids of each query token, of equal ones those with the lowest ids.

    Args:
        scores: int16 (n_centroids, lanes).
        n_tokens: how many lanes are query tokens.
        nprobe: how many; no more than there are centroids.

    Returns:
        Their ids, int32, and scores, int16, both (n_tokens, nprobe), best first.
    """
    found = _probe(scores.shape[1])(scores.ravel(), len(scores), n_tokens, nprobe)
    found[:, ::-1].sort(axis=1)
    return (_ALL_ONES - (found & _ALL_ONES)).astype(np.int32), (found >> 32).astype(np.int16)


@_compiled
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


@_compiled
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
    centroids: np.ndarray,
    codewords: np.ndarray,
    centroid_ids: np.ndarray,
    residuals: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
) -> np.ndarray:
    """MaxSim in float32 over decoded vectors of unit length, a few of them in memory at a time.

    Args:
        query: float32 (dim, lanes).
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
    run = _rescore(query.shape[1], n_bytes, length)
    return run(query.ravel(), centroids.ravel(), codewords.ravel(), centroid_ids, residuals.ravel(), starts, ends)


@cache
def _residual_bound(lanes: int, length: int) -> Callable[..., Any]:
    @_compiled
    def residual_bound(codewords: Any, query: Any, n_bytes: Any) -> Any:
        total = splat(np.float32(0), lanes)
        for byte in range(n_bytes):
            most = splat(np.float32(0), lanes)
            for word in range(byte * 256, byte * 256 + 256):
                value = splat(np.float32(0), lanes)
                for i in range(length):
                    value = fma(value, load(query, (byte * length + i) * lanes, lanes), codewords[word * length + i])
                most = maximum(most, maximum(value, scaled(value, np.float32(-1))))
            total = add(total, most)
        bounds = np.empty(lanes, np.float32)
        store(bounds, 0, total)
        return bounds.max()

    return residual_bound


@cache
def _code_tables(lanes: int, length: int) -> Callable[..., None]:
    @_compiled
    def code_tables(codewords: Any, query: Any, scale: Any, out: Any, n_bytes: Any) -> None:
        for byte in range(n_bytes):
            for word in range(byte * 256, byte * 256 + 256):
                value = splat(np.float32(0), lanes)
                for i in range(length):
                    value = fma(value, load(query, (byte * length + i) * lanes, lanes), codewords[word * length + i])
                store(out, word * lanes, rounded(scaled(value, scale)))

    return code_tables


@cache
def _products(lanes: int) -> Callable[..., None]:
    width = 2 * lanes

    @_compiled
    def products(rows: Any, steps: Any, pairs: Any, out: Any, n: Any, half: Any) -> None:
        # Eight rows at a time: what is loaded of the query serves them all, and no sum waits for the one before it.
        zero = splat(np.int32(0), lanes)
        some = np.zeros(16 * half, np.int16)
        twos = some.view(np.int32)
        for row in range(0, n, 8):
            at = row * 2 * half
            if row + 8 <= n:
                for i in range(0, 16 * half, 16):
                    store(some, i, to_shorts(load(rows, at + i, 16)))
            else:
                for i in range((n - row) * 2 * half):
                    some[i] = rows[at + i]
            a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
            for i in range(half):
                q = load(pairs, i * width, width)
                a = add_pairs(a, q, twos[i])
                b = add_pairs(b, q, twos[i + half])
                c = add_pairs(c, q, twos[i + 2 * half])
                d = add_pairs(d, q, twos[i + 3 * half])
                e = add_pairs(e, q, twos[i + 4 * half])
                f = add_pairs(f, q, twos[i + 5 * half])
                g = add_pairs(g, q, twos[i + 6 * half])
                h = add_pairs(h, q, twos[i + 7 * half])
            to = row * lanes
            store(out, to, rounded(scaled(to_floats(a), steps[row])))
            if row + 1 < n:
                store(out, to + lanes, rounded(scaled(to_floats(b), steps[row + 1])))
            if row + 2 < n:
                store(out, to + 2 * lanes, rounded(scaled(to_floats(c), steps[row + 2])))
            if row + 3 < n:
                store(out, to + 3 * lanes, rounded(scaled(to_floats(d), steps[row + 3])))
            if row + 4 < n:
                store(out, to + 4 * lanes, rounded(scaled(to_floats(e), steps[row + 4])))
            if row + 5 < n:
                store(out, to + 5 * lanes, rounded(scaled(to_floats(f), steps[row + 5])))
            if row + 6 < n:
                store(out, to + 6 * lanes, rounded(scaled(to_floats(g), steps[row + 6])))
            if row + 7 < n:
                store(out, to + 7 * lanes, rounded(scaled(to_floats(h), steps[row + 7])))

    return products


@cache
def _probe(lanes: int) -> Callable[..., Any]:
    @_compiled
    def probe(scores: Any, n: Any, n_tokens: Any, nprobe: Any) -> Any:
        # For each query token a heap, its lowest first: the score in the upper half, the inverted id in the lower.
        heaps = np.full((n_tokens, nprobe), np.int64(-32768) << 32, np.int64)
        lowest = np.full(lanes, 32767, np.int16)
        lowest[:n_tokens] = -32768
        for row in range(n):
            if not any_greater(load(scores, row * lanes, lanes), load(lowest, 0, lanes)):
                continue
            for token in range(n_tokens):
                score = scores[row * lanes + token]
                if score <= lowest[token]:
                    continue
                heap = heaps[token]
                key = (np.int64(score) << 32) | (_ALL_ONES - row)
                place = 0
                while True:
                    child = 2 * place + 1
                    if child >= nprobe:
                        break
                    if child + 1 < nprobe and heap[child + 1] < heap[child]:
                        child += 1
                    if heap[child] >= key:
                        break
                    heap[place] = heap[child]
                    place = child
                heap[place] = key
                lowest[token] = heap[0] >> 32
        return heaps

    return probe


@cache
def _refine(lanes: int, n_bytes: int) -> Callable[..., np.ndarray]:
    @_compiled
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

    @_compiled
    def rescore(
        query: Any, centroids: Any, codewords: Any, centroid_ids: Any, residuals: Any, starts: Any, ends: Any
    ) -> Any:
        scores = np.empty(len(starts), np.float32)
        vectors = np.zeros(4 * padded, np.float32)
        norms = np.ones(4, np.float32)
        sums = np.empty(16, np.float32)
        last = np.empty(lanes, np.float32)
        for document in range(len(starts)):
            best = splat(np.float32(-np.inf), lanes)
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
                best = maximum(best, scaled(a, norms[0]))
                if together > 1:
                    best = maximum(best, scaled(b, norms[1]))
                if together > 2:
                    best = maximum(best, scaled(c, norms[2]))
                if together > 3:
                    best = maximum(best, scaled(d, norms[3]))
            store(last, 0, best)
            total = np.float32(0)
            for lane in range(lanes):
                total += last[lane]
            scores[document] = total
        return scores

    return rescore

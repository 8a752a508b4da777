"""The loops of a search over the query's own numbers, compiled by numba: its score tables, and its nearest centroids.

LAYOUT.md in this folder draws the arrays; `reference` has each function in plain NumPy, by the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba.extending import register_jitable

from .compiling import compiled_for
from .simd import (
    add,
    add_pairs,
    add_quads,
    any_greater,
    fma,
    has_byte_products,
    load,
    maximum,
    multiplied,
    rounded,
    scaled,
    splat,
    store,
    to_floats,
    to_shorts,
)

__all__ = ["best_centroids", "best_points", "fill_centroid_scores", "fill_residual_scores", "residual_bound"]

_ALL_ONES = (1 << 32) - 1


def residual_bound(codewords: np.ndarray, block: np.ndarray) -> float:
    """The most that any residual can add to, or take from, the similarity with any query token.

    Args:
        codewords: float32 (residual_bytes, 256, dim / residual_bytes).
        block: float32 (dim, lanes).
    """
    n_bytes, _, length = codewords.shape
    return float(_bound_loop(block.shape[1], length)(codewords.ravel(), block.ravel(), n_bytes))


def fill_centroid_scores(
    centroids: np.ndarray,
    sums: np.ndarray,
    steps: np.ndarray,
    query: np.ndarray,
    query_steps: np.ndarray,
    out: np.ndarray,
) -> None:
    """Dot products of every centroid with every query token, as scaled integers.

    Args:
        centroids: int8 (n_centroids, dim), the coarse ones; dim is even.
        sums: int32 (n_centroids,): the sum of each centroid's numbers.
        steps: float32 (n_centroids,): what a product with each centroid is multiplied by.
        query: int8 (dim, lanes), -127 to 127.
        query_steps: float32 (lanes,): what a product with each query token is multiplied by; then it is rounded.
        out: int16 (n_centroids, lanes), written to.
    """
    dim, lanes = query.shape
    if dim % 4 == 0 and len(centroids) >= 8 and has_byte_products():
        quads = (query.astype(np.int16) + 128).astype(np.uint8).reshape(-1, 4, lanes).transpose(0, 2, 1).ravel()
        _quad_loop(lanes)(centroids.ravel(), sums, steps, quads, query_steps, out.ravel(), len(centroids), dim // 4)
    else:
        pairs = query.astype(np.int16).reshape(-1, 2, lanes).transpose(0, 2, 1).ravel()
        _pair_loop(lanes)(centroids.ravel(), steps, pairs, query_steps, out.ravel(), len(centroids), dim // 2)


def fill_residual_scores(codewords: np.ndarray, block: np.ndarray, scale: float, out: np.ndarray) -> None:
    """What each value of each byte of a residual adds to a similarity, as scaled integers.

    Args:
        codewords: float32 (residual_bytes, 256, dim / residual_bytes).
        block: float32 (dim, lanes).
        scale: What a product is multiplied by before it is rounded.
        out: int16 (residual_bytes, 256, lanes), written to.
    """
    n_bytes, _, length = codewords.shape
    run = _residual_loop(block.shape[1], length)
    run(codewords.ravel(), block.ravel(), np.float32(scale), out.ravel(), n_bytes)


def best_centroids(centroid_scores: np.ndarray, n_tokens: int, nprobe: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``nprobe`` best centroids of each query token; among equal ones those with the lowest ids.

    Args:
        centroid_scores: int16 (n_centroids, lanes).
        n_tokens: Number of lanes that are query tokens.
        nprobe: Number of centroids wanted; no more than there are.

    Returns:
        Their ids, int32, and scores, int16, both (n_tokens, nprobe), best first.
    """
    run = _best_loop(centroid_scores.shape[1])
    found = run(centroid_scores.ravel(), len(centroid_scores), n_tokens, nprobe)
    return _sorted(found)


def best_points(
    centroid_scores: np.ndarray,
    residual_scores: np.ndarray,
    n_tokens: int,
    nprobe: int,
    centroids: np.ndarray,
    offsets: np.ndarray,
    residuals: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``nprobe`` best routing points of each query token, among those of some centroids.

    Args:
        centroid_scores: int16 (n_centroids, lanes).
        residual_scores: int16 (residual_bytes, 256, lanes).
        n_tokens: Number of lanes that are query tokens.
        nprobe: Number of points wanted; no more than these centroids have.
        centroids: int32 (chosen,), the ids of the centroids; it is quicker with the best first.
        offsets: uint32 (n_centroids + 1,): where each centroid's points begin.
        residuals: uint8 (points, residual_bytes).

    Returns:
        Their numbers, int32, and scores, int16, both (n_tokens, nprobe), best first; among equal ones those with the
        lowest numbers.
    """
    n_bytes, _, lanes = residual_scores.shape
    scores, points = centroid_scores.ravel(), residual_scores.ravel()
    run = _points_loop(lanes, n_bytes)
    return _sorted(run(scores, points, n_tokens, nprobe, centroids, offsets, residuals.ravel()))


def _sorted(heaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    heaps[:, ::-1].sort(axis=1)
    return (_ALL_ONES - (heaps & _ALL_ONES)).astype(np.int32), (heaps >> 32).astype(np.int16)


@cache
def _bound_loop(lanes: int, length: int) -> Callable[..., Any]:
    @compiled_for(lanes, length)
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


@register_jitable
def _write(out: Any, lanes: Any, centroid: Any, products: Any, step: Any, of_lanes: Any) -> None:
    """Write one centroid's products with all query tokens, as scaled integers."""
    store(out, centroid * lanes, rounded(multiplied(scaled(to_floats(products), step), of_lanes)))


@cache
def _quad_loop(lanes: int) -> Callable[..., None]:
    width = 4 * lanes

    @compiled_for(lanes)
    def fill_centroid_scores_by_quads(
        centroids: Any, sums: Any, steps: Any, quads: Any, query_steps: Any, out: Any, n: Any, quarter: Any
    ) -> None:
        # Eight centroids at a time, as in `_pair_loop`; the last eight may overlap with those before. The query's bytes
        # are 128 too high, because the instruction takes unsigned ones.
        of_lanes = load(query_steps, 0, lanes)
        fours = centroids.view(np.int32)
        for first in range(0, n, 8):
            centroid = min(first, n - 8)
            at = centroid * quarter
            a = splat(np.int32(-128 * sums[centroid]), lanes)
            b = splat(np.int32(-128 * sums[centroid + 1]), lanes)
            c = splat(np.int32(-128 * sums[centroid + 2]), lanes)
            d = splat(np.int32(-128 * sums[centroid + 3]), lanes)
            e = splat(np.int32(-128 * sums[centroid + 4]), lanes)
            f = splat(np.int32(-128 * sums[centroid + 5]), lanes)
            g = splat(np.int32(-128 * sums[centroid + 6]), lanes)
            h = splat(np.int32(-128 * sums[centroid + 7]), lanes)
            for i in range(at, at + quarter):
                q = load(quads, (i - at) * width, width)
                a = add_quads(a, q, fours[i])
                b = add_quads(b, q, fours[i + quarter])
                c = add_quads(c, q, fours[i + 2 * quarter])
                d = add_quads(d, q, fours[i + 3 * quarter])
                e = add_quads(e, q, fours[i + 4 * quarter])
                f = add_quads(f, q, fours[i + 5 * quarter])
                g = add_quads(g, q, fours[i + 6 * quarter])
                h = add_quads(h, q, fours[i + 7 * quarter])
            _write(out, lanes, centroid, a, steps[centroid], of_lanes)
            _write(out, lanes, centroid + 1, b, steps[centroid + 1], of_lanes)
            _write(out, lanes, centroid + 2, c, steps[centroid + 2], of_lanes)
            _write(out, lanes, centroid + 3, d, steps[centroid + 3], of_lanes)
            _write(out, lanes, centroid + 4, e, steps[centroid + 4], of_lanes)
            _write(out, lanes, centroid + 5, f, steps[centroid + 5], of_lanes)
            _write(out, lanes, centroid + 6, g, steps[centroid + 6], of_lanes)
            _write(out, lanes, centroid + 7, h, steps[centroid + 7], of_lanes)

    return fill_centroid_scores_by_quads


@cache
def _pair_loop(lanes: int) -> Callable[..., None]:
    width = 2 * lanes

    @compiled_for(lanes)
    def fill_centroid_scores_by_pairs(
        centroids: Any, steps: Any, pairs: Any, query_steps: Any, out: Any, n: Any, half: Any
    ) -> None:
        # Eight centroids at a time: each load of the query serves them all, and no sum waits for another.
        of_lanes = load(query_steps, 0, lanes)
        zero = splat(np.int32(0), lanes)
        eight = np.zeros(16 * half, np.int16)
        twos = eight.view(np.int32)
        for centroid in range(0, n, 8):
            at = centroid * 2 * half
            if centroid + 8 <= n:
                for i in range(0, 16 * half, 16):
                    store(eight, i, to_shorts(load(centroids, at + i, 16)))
            else:
                for i in range((n - centroid) * 2 * half):
                    eight[i] = centroids[at + i]
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
            _write(out, lanes, centroid, a, steps[centroid], of_lanes)
            if centroid + 1 < n:
                _write(out, lanes, centroid + 1, b, steps[centroid + 1], of_lanes)
            if centroid + 2 < n:
                _write(out, lanes, centroid + 2, c, steps[centroid + 2], of_lanes)
            if centroid + 3 < n:
                _write(out, lanes, centroid + 3, d, steps[centroid + 3], of_lanes)
            if centroid + 4 < n:
                _write(out, lanes, centroid + 4, e, steps[centroid + 4], of_lanes)
            if centroid + 5 < n:
                _write(out, lanes, centroid + 5, f, steps[centroid + 5], of_lanes)
            if centroid + 6 < n:
                _write(out, lanes, centroid + 6, g, steps[centroid + 6], of_lanes)
            if centroid + 7 < n:
                _write(out, lanes, centroid + 7, h, steps[centroid + 7], of_lanes)

    return fill_centroid_scores_by_pairs


@cache
def _residual_loop(lanes: int, length: int) -> Callable[..., None]:
    @compiled_for(lanes, length)
    def fill_residual_scores(codewords: Any, query: Any, scale: Any, out: Any, n_bytes: Any) -> None:
        for byte in range(n_bytes):
            for word in range(byte * 256, byte * 256 + 256):
                value = splat(np.float32(0), lanes)
                for i in range(length):
                    value = fma(value, load(query, (byte * length + i) * lanes, lanes), codewords[word * length + i])
                store(out, word * lanes, rounded(scaled(value, scale)))

    return fill_residual_scores


@register_jitable
def _replace_lowest(heap: Any, key: Any) -> None:
    """Put ``key`` into a heap of equal length in place of its lowest number, which comes first."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= len(heap):
            break
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key


@cache
def _best_loop(lanes: int) -> Callable[..., Any]:
    @compiled_for(lanes)
    def best_centroids(centroid_scores: Any, n: Any, n_tokens: Any, nprobe: Any) -> Any:
        # A heap for each query token, lowest first: the score in the upper 32 bits, the inverted id in the lower.
        heaps = np.full((n_tokens, nprobe), np.int64(-32768) << 32, np.int64)
        lowest = np.full(lanes, 32767, np.int16)
        lowest[:n_tokens] = -32768
        for centroid in range(n):
            if not any_greater(load(centroid_scores, centroid * lanes, lanes), load(lowest, 0, lanes)):
                continue
            for token in range(n_tokens):
                score = centroid_scores[centroid * lanes + token]
                if score > lowest[token]:
                    _replace_lowest(heaps[token], (np.int64(score) << 32) | (_ALL_ONES - centroid))
                    lowest[token] = heaps[token, 0] >> 32
        return heaps

    return best_centroids


@cache
def _points_loop(lanes: int, n_bytes: int) -> Callable[..., Any]:
    @compiled_for(lanes, n_bytes)
    def best_points(
        centroid_scores: Any,
        residual_scores: Any,
        n_tokens: Any,
        nprobe: Any,
        centroids: Any,
        offsets: Any,
        residuals: Any,
    ) -> Any:
        heaps = np.full((n_tokens, nprobe), np.int64(-32768) << 32, np.int64)
        below = np.full(lanes, 32767, np.int16)  # a point with this score or a lower one is none of the best
        below[:n_tokens] = -32768
        of_point = np.empty(lanes, np.int16)
        for centroid in centroids:
            for point in range(np.int64(offsets[centroid]), np.int64(offsets[centroid + 1])):
                similarity = load(centroid_scores, np.int64(centroid) * lanes, lanes)
                for byte in range(n_bytes):
                    entry = (byte * 256 + np.int64(residuals[point * n_bytes + byte])) * lanes
                    similarity = add(similarity, load(residual_scores, entry, lanes))
                if not any_greater(similarity, load(below, 0, lanes)):
                    continue
                store(of_point, 0, similarity)
                for token in range(n_tokens):
                    key = (np.int64(of_point[token]) << 32) | (_ALL_ONES - point)
                    if key > heaps[token, 0]:
                        _replace_lowest(heaps[token], key)
                        below[token] = max((heaps[token, 0] >> 32) - 1, -32768)
        return heaps

    return best_points

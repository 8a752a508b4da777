"""The inner loops over a query's own numbers, compiled by numba: its tables, and the centroids nearest to its tokens.

`oracles` has each of them in plain NumPy, by the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .simd import (
    add,
    add_pairs,
    any_greater,
    compiled_for,
    fma,
    load,
    maximum,
    rounded,
    scaled,
    splat,
    store,
    to_floats,
    to_shorts,
)

__all__ = ["code_tables", "probe", "products", "residual_bound"]

_ALL_ONES = (1 << 32) - 1


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


@cache
def _residual_bound(lanes: int, length: int) -> Callable[..., Any]:
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


@cache
def _code_tables(lanes: int, length: int) -> Callable[..., None]:
    @compiled_for(lanes, length)
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

    @compiled_for(lanes)
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
    @compiled_for(lanes)
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

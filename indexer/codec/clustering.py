"""K-means in two levels: groups of centroids, so that the nearest centroid is found quickly.

Plain k-means compares each vector with all K centroids. Here the vectors are first divided into about √K groups, and
each group into its share of centroids. A vector is then compared only with the centroids of the groups nearest to it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_COMPARED_ONE_BY_ONE = 256  # up to this number of centroids, each vector is compared with all of them
_ROUNDS = 8
_POINTS_PER_CENTROID = 256
_GROUPS_PROBED = 8
_VECTORS_PER_BLOCK = 65_536  # vectors per step, so that scores stay small


def cluster(vectors: np.ndarray, n_centroids: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means in two levels.

    Args:
        vectors: float32 (n, dim), unit length.
        n_centroids: number of centroids; at most ``n`` are made.
        seed: seed of the random numbers. The same vectors and seed give the same centroids.

    Returns:
        Centroids, float32 (n_centroids, dim), unit length, and the offsets of their groups, int32 (groups + 1,).
    """
    n_centroids = min(n_centroids, len(vectors))
    if n_centroids <= _COMPARED_ONE_BY_ONE:
        return _kmeans(vectors, n_centroids, seed), np.array([0, n_centroids], np.int32)
    heads = _kmeans(vectors, round(n_centroids**0.5), seed)
    group_of = np.concatenate([_scores(block, heads).argmax(axis=1) for block in _blocks(vectors)])
    sizes = np.bincount(group_of, minlength=len(heads))
    shares = _shares(sizes, n_centroids)
    members = [_kmeans(vectors[group_of == g], shares[g], seed) for g in np.flatnonzero(shares)]
    return np.concatenate(members), np.concatenate([[0], np.cumsum(shares[shares > 0])]).astype(np.int32)


def nearest(vectors: np.ndarray, centroids: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centroid of each vector: the largest dot product in the 8 groups nearest to the vector.

    Args:
        vectors: float32 (n, dim).
        centroids: float32 (n_centroids, dim).
        groups: int32 (groups + 1,), ascending; group g is ``centroids[groups[g]:groups[g + 1]]``, which is never empty.

    Returns:
        Centroid ids, int64 (n,), and dot products, float32 (n,).
    """
    heads = np.add.reduceat(centroids, groups[:-1], axis=0)
    heads /= np.maximum(np.linalg.norm(heads, axis=1, keepdims=True), 1e-12)
    found = [_nearest_in_block(block, centroids, groups, heads) for block in _blocks(vectors)]
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    return np.concatenate([ids for ids, _ in found]), np.concatenate([best for _, best in found])


def _nearest_in_block(
    block: np.ndarray, centroids: np.ndarray, groups: np.ndarray, heads: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    probed = min(_GROUPS_PROBED, len(heads))
    near = np.argpartition(-_scores(block, heads), probed - 1, axis=1)[:, :probed].ravel()
    by_group = np.argsort(near, kind="stable")
    rows = by_group // probed
    edges = np.searchsorted(near[by_group], np.arange(len(heads) + 1))
    ids, best = np.zeros(len(block), np.int64), np.full(len(block), -np.inf, np.float32)
    for group, (start, end) in enumerate(pairwise(edges)):
        if start == end:
            continue
        members = rows[start:end]
        scores = _scores(block[members], centroids[groups[group] : groups[group + 1]])
        winners = scores.argmax(axis=1)
        values = scores[np.arange(len(members)), winners]
        better = values > best[members]
        best[members[better]] = values[better]
        ids[members[better]] = winners[better] + groups[group]
    return ids, best


def _kmeans(vectors: np.ndarray, n_centroids: int, seed: int) -> np.ndarray:
    import faiss  # only where a codec is trained

    kmeans = faiss.Kmeans(
        vectors.shape[1],
        int(n_centroids),
        niter=_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS_PER_CENTROID,
    )
    kmeans.train(np.ascontiguousarray(vectors))
    centroids = np.asarray(kmeans.centroids)
    return centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)


def _shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """``total`` divided in proportion to ``sizes``, at least 1 where a size is not 0 and never more than the size."""
    exact = sizes * (total / sizes.sum())
    shares = np.minimum(np.maximum(np.floor(exact), sizes > 0), sizes).astype(np.int64)
    while left := int(total - shares.sum()):
        # ``left`` is negative if small groups got one centroid each: the groups most above their share then lose one.
        step = 1 if left > 0 else -1
        order = np.argsort(step * (shares - exact), kind="stable")
        free = order[(shares < sizes if left > 0 else shares > 1)[order]]
        shares[free[: abs(left)]] += step
    return shares


def _scores(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return vectors @ centroids.T


def _blocks(vectors: np.ndarray) -> list[np.ndarray]:
    return [vectors[start : start + _VECTORS_PER_BLOCK] for start in range(0, len(vectors), _VECTORS_PER_BLOCK)]

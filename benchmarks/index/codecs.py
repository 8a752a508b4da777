"""Which residual codec: PLAID's buckets, buckets per dimension, product codes; centroids in one level or two.

    python -m benchmarks.index.codecs --data ../shared/data --cache CACHE

The same vectors for all: the first passages of `jsquad-valid` and `jaquad`, by default 6,000, and 200 questions.
Reported are the mean squared error of the decoded vectors, and recall@10 and @100 of exhaustive MaxSim over them,
brought to unit length, against exact float32 MaxSim. CACHE is a folder for the vectors; it takes two minutes to fill.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import faiss
import numpy as np

from tansaku.indexer.codec.clustering import cluster, nearest
from tansaku.indexer.codec.codec import ResidualCodec, default_centroids

from ..support.machine import cpu_name
from ..support.vectors import exhaustive, passages, questions, recall

SAMPLE = 400_000
RESIDUAL_SAMPLE = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=6000)
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()

    documents = passages(options.data, options.cache, options.passages)
    queries = questions(options.data, options.cache, options.questions)
    vectors = documents.tokens
    exact = exhaustive(vectors, documents.offsets, queries)
    n_centroids = default_centroids(len(vectors))
    print(f"{date.today()}, {cpu_name()}")
    print(
        f"{len(documents):,} passages, {len(vectors):,} vectors, {len(queries)} questions, {n_centroids:,} centroids\n"
    )
    print(f"{'':<44}{'train s':>9}{'encode s':>10}{'error':>9}{'recall@10':>11}{'@100':>7}")

    def report(name: str, train: float, encode: float, decoded: np.ndarray) -> None:
        error = float(np.mean(np.sum((decoded - vectors) ** 2, axis=1)))
        unit = decoded / np.maximum(np.linalg.norm(decoded, axis=1, keepdims=True), 1e-12)
        ranked = exhaustive(unit, documents.offsets, queries)
        figures = f"{train:>9.1f}{encode:>10.1f}{error:>9.4f}"
        print(f"{name:<44}{figures}{recall(ranked, exact, 10):>11.3f}{recall(ranked, exact, 100):>7.3f}", flush=True)

    order = np.random.default_rng(0).permutation(len(vectors))
    sample, small = vectors[order[:SAMPLE]], order[:RESIDUAL_SAMPLE]
    found = {
        "one level": one_level(sample, vectors, n_centroids),
        "two levels": two_levels(sample, vectors, n_centroids),
    }
    for name, (train, encode, centroids, ids) in found.items():
        report(f"centroids alone, {name}", train, encode, centroids[ids])
    _, _, centroids, ids = found["one level"]
    report_scalar(report, "one level", vectors, centroids, ids, small, 2)
    _, _, centroids, ids = found["two levels"]
    for nbits in (1, 2, 4):
        report_scalar(report, "two levels", vectors, centroids, ids, small, nbits)
        started = time.perf_counter()
        codec = ResidualCodec.train(sample, nbits=nbits, n_centroids=n_centroids)
        trained = time.perf_counter()
        codes = codec.encode(vectors)
        encoded = time.perf_counter()
        report(f"{nbits} bits, product codes (tansaku)", trained - started, encoded - trained, codec.decode(*codes))


def one_level(sample: np.ndarray, vectors: np.ndarray, k: int) -> tuple[float, float, np.ndarray, np.ndarray]:
    started = time.perf_counter()
    # As ColBERTv2 and fast-plaid train: four rounds; half the sample, which already takes long.
    kmeans = faiss.Kmeans(sample.shape[1], k, niter=4, spherical=True, min_points_per_centroid=1)
    kmeans.train(sample[: SAMPLE // 2])
    centroids = np.asarray(kmeans.centroids)
    trained = time.perf_counter()
    ids = np.concatenate([(vectors[s : s + 8192] @ centroids.T).argmax(axis=1) for s in range(0, len(vectors), 8192)])
    return trained - started, time.perf_counter() - trained, centroids, ids


def two_levels(sample: np.ndarray, vectors: np.ndarray, k: int) -> tuple[float, float, np.ndarray, np.ndarray]:
    started = time.perf_counter()
    centroids, groups = cluster(sample, k, 0)
    trained = time.perf_counter()
    ids, _ = nearest(vectors, centroids, groups)
    return trained - started, time.perf_counter() - trained, centroids, ids


def report_scalar(
    report: Callable[[str, float, float, np.ndarray], None],
    levels: str,
    vectors: np.ndarray,
    centroids: np.ndarray,
    ids: np.ndarray,
    chosen: np.ndarray,
    nbits: int,
) -> None:
    residuals = vectors - centroids[ids]
    kinds = {
        "one table of quantiles (PLAID)": global_quantiles,
        "quantiles per dimension": quantiles,
        "Lloyd-Max per dimension": lloyd_max,
    }
    for name, fit in kinds.items():
        started = time.perf_counter()
        table = fit(residuals[chosen], nbits)
        trained = time.perf_counter()
        decoded = centroids[ids] + quantized(residuals, *table)
        report(f"{nbits} bits, {name}, {levels}", trained - started, time.perf_counter() - trained, decoded)


def global_quantiles(residuals: np.ndarray, nbits: int) -> tuple[np.ndarray, np.ndarray]:
    """Cutoffs (dim, n − 1) and levels (dim, n), the same for every dimension."""
    n, dim = 1 << nbits, residuals.shape[1]
    flat = residuals.ravel()
    cutoffs, levels = np.quantile(flat, np.arange(1, n) / n), np.quantile(flat, (np.arange(n) + 0.5) / n)
    return np.tile(cutoffs, (dim, 1)), np.tile(levels, (dim, 1))


def quantiles(residuals: np.ndarray, nbits: int) -> tuple[np.ndarray, np.ndarray]:
    n = 1 << nbits
    cutoffs, levels = (np.quantile(residuals, q, axis=0).T for q in (np.arange(1, n) / n, (np.arange(n) + 0.5) / n))
    return cutoffs, levels


def lloyd_max(residuals: np.ndarray, nbits: int) -> tuple[np.ndarray, np.ndarray]:
    cutoffs, levels = quantiles(residuals, nbits)
    for _ in range(15):
        buckets = np.stack([np.searchsorted(c, r, side="left") for c, r in zip(cutoffs, residuals.T, strict=True)])
        for dimension, (bucket, column) in enumerate(zip(buckets, residuals.T, strict=True)):
            counts = np.bincount(bucket, minlength=1 << nbits)
            sums = np.bincount(bucket, column, minlength=1 << nbits)
            levels[dimension] = np.where(counts > 0, sums / np.maximum(counts, 1), levels[dimension])
        cutoffs = (levels[:, 1:] + levels[:, :-1]) / 2
    return cutoffs, levels


def quantized(residuals: np.ndarray, cutoffs: np.ndarray, levels: np.ndarray) -> np.ndarray:
    result = np.empty_like(residuals)
    for dimension, column in enumerate(residuals.T):
        buckets = np.searchsorted(cutoffs[dimension], column, side="left")
        result[:, dimension] = levels[dimension][buckets]
    return result


if __name__ == "__main__":
    main()

"""Nanoseconds for each document token that the inner loops of a search take, on one core.

    python -m benchmarks.search.kernels

300 documents of 150 tokens out of 20,000, 128 dimensions, random codes, for 16 and 32 query tokens and 1, 2 and 4 bits:
`integer_maxsim` (integers, never decoded; as shipped, and with the residuals of all tokens) and `float_maxsim` (floats,
decoded, with phrases); `integer_maxsim` for all tokens in plain NumPy; and maxsim-cpu, if it is installed, which is
given the decoded float32 vectors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date

import numpy as np

from tansaku.indexer.codec.codec import ResidualCodec
from tansaku.plugin.kernels import index_loops, reference
from tansaku.plugin.kernels.query_layout import BlockTables, CoarseCodec, QueryLanes

from ..support.machine import cpu_name

DIM, TOKENS, CORPUS, DOCUMENTS, ROUNDS = 128, 150, 20_000, 300, 21


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    random = np.random.default_rng(0)
    print(f"{date.today()}, {cpu_name()}; ns per document token, median of {ROUNDS} rounds, 1 thread")
    print(f"{'bits':>4}{'query tokens':>14}{'integer':>9}{'of all':>9}{'float':>9}{'NumPy, all':>14}{'maxsim-cpu':>12}")
    for nbits in (1, 2, 4):
        codec = random_codec(random, nbits)
        ids = random.integers(0, len(codec.centroids), CORPUS * TOKENS).astype(np.uint16)
        residuals = random.integers(0, 256, (len(ids), codec.residual_bytes), np.uint8)
        for n_tokens in (16, 32):
            query = unit(random.normal(size=(n_tokens, DIM)))
            (block,) = BlockTables.of(query, codec, CoarseCodec.of(codec))
            integers = (block.centroid_scores, block.residual_scores, n_tokens, block.slack, ids, residuals)
            every = (block.centroid_scores, block.residual_scores, n_tokens, 32_767, ids, residuals)
            lanes = QueryLanes.of(query, 0.1)
            floats = (lanes.blocks[0], lanes.weights[0], 0.1, codec.centroids, codec.codewords, ids, residuals)
            times = [
                nanoseconds(random, lambda s, e, a=integers: index_loops.integer_maxsim(*a, s, e)),
                nanoseconds(random, lambda s, e, a=every: index_loops.integer_maxsim(*a, s, e)),
                nanoseconds(random, lambda s, e, a=floats: index_loops.float_maxsim(*a, s, e)),
                nanoseconds(random, lambda s, e, a=every: reference.integer_maxsim(*a, s, e), rounds=3),
            ]
            peer = maxsim_cpu(query, codec, ids, residuals)
            print(
                f"{nbits:>4}{n_tokens:>14}{times[0]:>9.1f}{times[1]:>9.1f}{times[2]:>9.1f}{times[3]:>14.0f}{peer:>12}",
                flush=True,
            )


def nanoseconds(
    random: np.random.Generator, run: Callable[[np.ndarray, np.ndarray], object], rounds: int = ROUNDS
) -> float:
    times = []
    for _ in range(rounds + 1):
        documents = np.sort(random.choice(CORPUS, DOCUMENTS, replace=False))
        started = time.perf_counter()
        run(documents * TOKENS, (documents + 1) * TOKENS)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:])) / (DOCUMENTS * TOKENS) * 1e9


def maxsim_cpu(query: np.ndarray, codec: ResidualCodec, ids: np.ndarray, residuals: np.ndarray) -> str:
    try:
        import maxsim_cpu  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return "–"
    n = DOCUMENTS * TOKENS
    documents = codec.decode(ids[:n], residuals[:n]).reshape(DOCUMENTS, TOKENS, DIM)
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        maxsim_cpu.maxsim_scores(query, documents)
        times.append(time.perf_counter() - started)
    return f"{np.median(times[1:]) / n * 1e9:.1f}"


def random_codec(random: np.random.Generator, nbits: int) -> ResidualCodec:
    centroids = unit(random.normal(size=(8192, DIM)))
    words = random.normal(scale=0.03, size=(DIM * nbits // 8, 256, 8 // nbits)).astype(np.float32)
    return ResidualCodec(centroids, np.array([0, 8192], np.int32), words)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()

"""How the cost of a search grows with the corpus: up to a million documents drawn around real ones.

    python -m benchmarks.search.growth --db DB --table TABLE --data ../shared/data --cache CACHE

The index DB/TABLE gives real documents' codes. For each size documents are drawn from it with replacement; of each
token's code every fourth byte is drawn anew. The number of centroids follows the rule for that many tokens: to double
them, each is split into two that lie apart as far as its nearest neighbour is from it, and a token takes one of them by
chance; to halve them, two neighbours become one. Routing points are then found as for any index. Nothing is written:
the codes are made in memory, 7 GB at a million.
Reported are p50 and p95 of the search alone at one thread, of each stage, and memory.
"""

from __future__ import annotations

import argparse
import os
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pyarrow as pa

from tansaku import SearchOptions
from tansaku.indexer.codec.codec import ResidualCodec, default_centroids
from tansaku.indexer.derived.arrays import Arrays, load_arrays
from tansaku.indexer.derived.postings import MAX_ROWS, InvertedLists
from tansaku.indexer.derived.routing import Routing, is_wanted
from tansaku.indexer.derived.segments import Segment, with_lists
from tansaku.indexer.derived.strings import Strings
from tansaku.indexer.table.database import connect
from tansaku.indexer.table.table import open_index_table
from tansaku.plugin.search.choices import RecallName
from tansaku.plugin.search.pipeline import rank
from tansaku.plugin.search.results import Stopwatch
from tansaku.plugin.search.stored_codes import StoredCodes

from ..support.machine import cpu_name
from ..support.vectors import questions
from .search_engine import resident_mb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--recall", choices=get_args(RecallName), default="balanced")
    options = parser.parse_args()
    index = open_index_table(connect(options.db), options.table)
    real = load_arrays(index).segments
    queries = questions(options.data, options.cache, 200)
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs; {len(queries)} questions, recall={options.recall!r}")
    search_options = SearchOptions(recall=options.recall)
    stages = ("layout", "tables", "probe", "gather", "prune", "refine")
    print(f"{'documents':>10}{'tokens':>14}{'centroids':>11}{'points':>11}{'p50 ms':>9}{'p95':>8}"
          + "".join(f"{name:>9}" for name in stages) + f"{'scored':>8}{'RSS MB':>9}")  # fmt: skip
    for size in options.sizes:
        codes = drawn(real, index.codec, size)
        times, parts, scored = [], {name: [] for name in stages}, []
        for repeat in range(2):
            for number in range(len(queries)):
                watch = Stopwatch()
                with watch.stage("all"):
                    ranked = rank(codes, None, queries[number], search_options, watch)
                if repeat:
                    times.append(watch.stages["all"])
                    scored.append(ranked.scored)
                    for name in stages:
                        parts[name].append(watch.stages[name])
        p50, p95 = np.percentile(times, [50, 95])
        tokens = sum(len(segment.centroid_ids) for _, segment in codes.segments)
        print(
            f"{size:>10,}{tokens:>14,}{len(codes.codec.centroids):>11,}{len(codes.routing or ()):>11,}"
            + f"{p50:>9.2f}{p95:>8.2f}"
            + "".join(f"{np.median(parts[name]):>9.2f}" for name in stages)
            + f"{np.median(scored):>8.0f}{resident_mb():>9,.0f}",
            flush=True,
        )


def drawn(real: tuple[Segment, ...], codec: ResidualCodec, size: int) -> StoredCodes:
    """``size`` documents with codes like those of ``real``."""
    random = np.random.default_rng(0)
    segment_of = np.repeat(np.arange(len(real)), [len(segment) for segment in real])
    place_in = np.concatenate([np.arange(len(segment)) for segment in real])
    chosen = random.integers(0, len(segment_of), size)
    lengths = np.concatenate([np.diff(segment.offsets) for segment in real])[chosen]
    codec, children, shift = resized(codec, default_centroids(int(lengths.sum())), random)
    parts = []
    for start in range(0, size, MAX_ROWS):
        part = chosen[start : start + MAX_ROWS]
        offsets = np.concatenate([[0], np.cumsum(lengths[start : start + MAX_ROWS])])
        ids = np.empty(offsets[-1], codec.id_dtype)
        residuals = np.empty((offsets[-1], codec.residual_bytes), np.uint8)
        for number, document in enumerate(part):
            source, place = real[segment_of[document]], place_in[document]
            if source.residuals is None:
                raise RuntimeError("the index has no residuals in its derived arrays")
            tokens = slice(source.offsets[place], source.offsets[place + 1])
            to = slice(offsets[number], offsets[number + 1])
            ids[to] = (source.centroid_ids[tokens].astype(np.int64) >> shift) * children
            residuals[to] = source.residuals[tokens]
        ids += random.integers(0, children, len(ids)).astype(ids.dtype)
        residuals[:, ::4] = random.integers(0, 256, residuals[:, ::4].shape, np.uint8)
        parts.append((offsets, (ids, residuals)))
    routing = None
    if is_wanted(codec, int(lengths.sum())):
        routing = Routing.train(codec, [codes for _, codes in parts])
    segments, start = [], 0
    for offsets, (ids, residuals) in parts:
        n_rows = len(offsets) - 1
        row_ids = np.arange(start, start + n_rows, dtype=np.uint64)
        names = Strings.of(pa.chunked_array([row_ids.astype(str)]))
        none = InvertedLists.build(ids[:0], np.zeros(1, np.int64), 1)
        deleted = np.zeros(n_rows, bool)
        segment = Segment(row_ids, row_ids, offsets, ids, residuals, none, deleted, names, None)
        segments.append(with_lists(segment, codec, routing))
        start += n_rows
    index = SimpleNamespace(codec=codec, header=SimpleNamespace(passage_tokens=None))
    return StoredCodes(index, Arrays(0, tuple(segments), routing))  # type: ignore[arg-type]


def resized(codec: ResidualCodec, n: int, random: np.random.Generator) -> tuple[ResidualCodec, int, int]:
    """A codec of ``n`` centroids, how many each real one has become, and by how many bits ids were cut."""
    centroids, shift = codec.centroids, 0
    while len(centroids) > n:  # those of one group lie together
        centroids, shift = centroids[::2] + centroids[1::2], shift + 1
    children = max(1, n // len(centroids))
    centroids = np.repeat(centroids / np.linalg.norm(centroids, axis=1, keepdims=True), children, axis=0)
    if children > 1:
        noise = random.normal(size=centroids.shape).astype(np.float32)
        centroids = centroids + 0.4 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    centroids = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    return ResidualCodec(np.ascontiguousarray(centroids, np.float32), codec.groups, codec.codewords), children, shift


if __name__ == "__main__":
    main()

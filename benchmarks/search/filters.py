"""Filters of every selectivity: what a filtered search finds of the exhaustive one, and what it costs.

    tansaku index ../shared/data/kyoto-wiki-ja/corpus.jsonl --db DB --table kyoto
    python -m benchmarks.search.filters --db DB --table kyoto --queries ../shared/data/kyoto-wiki-ja/queries.jsonl \
        --where "title LIKE '%寺%'" --where "title LIKE '%源氏%'"

For each share, as many rows are drawn and only these may be found; the last filters are conditions of the user. Each
question is searched exhaustively among them, then with `balanced`. "found" is the share of the ten best, by score.
Times are of the ranking alone, in one thread, by its processor time; "reading" is what it takes once to find the rows
of a condition.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Searcher, SearchOptions
from tansaku.plugin.evaluation.judgements import read_queries
from tansaku.plugin.search.choices import RecallName
from tansaku.plugin.search.filters import Allowed, allowed_rows
from tansaku.plugin.search.pipeline import rank
from tansaku.plugin.search.results import RankedRows, Stopwatch

from ..support.machine import cpu_name

ROWS = (1, 10, 100, 300, 1_000, 3_000, 10_000, 30_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--queries", type=Path, required=True, help="a file with id and text in each line")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--where", action="append", default=[], help="a condition")
    options = parser.parse_args()
    searcher = Searcher.open(options.db, options.table)
    codes = searcher._codes
    texts = list(dict.fromkeys(read_queries(options.queries).values()))[: options.questions]
    vectors = searcher.encoder.encode_queries(texts)
    draw = np.random.default_rng(0)
    filters: list[tuple[str, Callable[[], Allowed]]] = [("all rows", lambda: allowed_rows(codes, None, None))]
    filters += [(f"{n:,} rows at random", lambda n=n: drawn(codes.alive, n, draw)) for n in ROWS if n < len(codes)]
    filters += [(f"`{where}`", lambda where=where: allowed_rows(codes, where, None)) for where in options.where]
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs; {len(searcher):,} rows, {len(texts)} questions\n")
    print("| filter | rows | found of ten | hits | rows scored | p50 ms | p95 ms | reading ms |")
    print("|---|---|---|---|---|---|---|---|")

    def ranked(query: np.ndarray, recall: RecallName, allowed: Allowed) -> RankedRows:
        return rank(codes, None, query, SearchOptions(recall=recall), Stopwatch(), allowed)

    for recall in ("exact", "balanced"):
        ranked(vectors[0], recall, allowed_rows(codes, None, None))  # compiles the loops
    for name, make in filters:
        began = time.perf_counter()
        allowed = make()
        reading = 1000 * (time.perf_counter() - began)
        shares, times, scored, hits = [], [], [], []
        for query in vectors:
            best = ranked(query, "exact", allowed).scores
            began = time.thread_time()
            found = ranked(query, "balanced", allowed)
            times.append(1000 * (time.thread_time() - began))
            shares.append(float(np.mean(found.scores >= best[-1])) * len(found.scores) / len(best))
            scored.append(found.scored)
            hits.append(len(found.scores))
        p50, p95 = np.percentile(times, [50, 95])
        print(
            f"| {name} | {allowed.count:,} | {np.mean(shares):.3f} | {min(hits)} | {int(np.median(scored)):,} "
            f"| {p50:.2f} | {p95:.2f} | {reading:.1f} |",
            flush=True,
        )


def drawn(alive: np.ndarray, n: int, draw: np.random.Generator) -> Allowed:
    """A filter that leaves ``n`` rows."""
    mask = np.zeros(len(alive), bool)
    mask[draw.choice(np.flatnonzero(alive), n, replace=False)] = True
    return Allowed(mask, n)


if __name__ == "__main__":
    main()

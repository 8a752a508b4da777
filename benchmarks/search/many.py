"""Queries per second: one by one by `search`, and all at once by `search_many`, with one and with two threads.

    tansaku index ../shared/data/kyoto-wiki-ja/corpus.jsonl --db DB --table kyoto
    python -m benchmarks.search.many --db DB --table kyoto --queries ../shared/data/kyoto-wiki-ja/queries.jsonl

Each way searches the same questions, all different, and encodes them itself: no way finds the vectors of another. The
encoder has as many threads as the search. The ways alternate, and the median of the rounds is shown. Before them, the
hits of every way are compared with those of `search`. The processor time of a query, in all threads, depends less on
what else the machine does; if it grows with the threads, they disturb each other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from tansaku import Encoder, Searcher
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.evaluation.judgements import read_queries
from tansaku.plugin.search.results import Hits

from ..support.machine import cpu_name

Way = Callable[[dict[str, Any]], list[Hits]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--queries", type=Path, required=True, help="a file with id and text in each line")
    parser.add_argument("--model", default=str(DEFAULT_BUNDLE), help="the bundle that the index was made with")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="of `search_many`")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--where", help="a condition of all searches")
    options = parser.parse_args()
    searchers = {
        n: Searcher.open(options.db, options.table, encoder=Encoder.load(options.model, threads=n))
        for n in {1, *options.threads}
    }
    texts = list(dict.fromkeys(read_queries(options.queries).values()))[: options.questions]
    ways = {"`search`, one by one": one_by_one(searchers[1], texts)}
    for n in options.threads:
        ways[f"`search_many`, threads={n}"] = together(searchers[n], texts, n)
    filters = {"k": options.k, "where": options.where}
    kinds: dict[str, dict[str, Any]] = {"all fields": filters, "`fields=[]`": {**filters, "fields": []}}
    for kind in kinds.values():
        expected, *others = [way(kind) for way in ways.values()]  # compiles the loops
        if any(found != expected for found in others):
            raise SystemExit("the hits differ")
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs; medians of {options.rounds} rounds")
    print(f"{len(searchers[1]):,} rows; {len(texts)} questions, k={options.k}, where={options.where}\n")
    print("| | hits with | queries/s | times as many | processor ms a query |\n|---|---|---|---|---|")
    for kind, given in kinds.items():
        rates, works = measured(ways, given, options.rounds, len(texts))
        first = next(iter(rates.values()))
        for name, rate in rates.items():
            print(f"| {name} | {kind} | {rate:.1f} | {rate / first:.2f} | {works[name]:.1f} |", flush=True)


def one_by_one(searcher: Searcher, texts: list[str]) -> Way:
    """Each query by a search of its own, in one thread, without a memory of its vectors."""

    def run(given: dict[str, Any]) -> list[Hits]:
        searcher._opened.encode._remembered.cache_clear()
        return [searcher.search(text, **given) for text in texts]

    return run


def together(searcher: Searcher, texts: list[str], threads: int) -> Way:
    """All queries by one call."""
    return lambda given: searcher.search_many(texts, threads=threads, **given)


def measured(
    ways: dict[str, Way], given: dict[str, Any], rounds: int, n_queries: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Queries per second, and milliseconds of processor time a query, of each way."""
    walls, works = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for _ in range(rounds):
        for name, way in ways.items():
            began, used = time.perf_counter(), time.process_time()
            way(given)
            walls[name].append(time.perf_counter() - began)
            works[name].append(time.process_time() - used)
    rates = {name: n_queries / statistics.median(seconds) for name, seconds in walls.items()}
    return rates, {name: 1000 * statistics.median(seconds) / n_queries for name, seconds in works.items()}


if __name__ == "__main__":
    main()

"""Searches in an index divided into shards, against one searcher: the same hits, and how much longer it takes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from tansaku import Searcher
from tansaku.plugin.evaluation.judgements import read_queries
from tansaku.plugin.shards import ShardedSearcher

_K = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this part."""
    parser.add_argument("--db", required=True, help="folder of the database")
    parser.add_argument("--table", required=True, help="name of the table")
    parser.add_argument("--queries", required=True, help="file of queries, such as queries.jsonl of a BEIR set")
    parser.add_argument("--questions", type=int, default=500, help="number of queries, evenly drawn from the file")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of shards")
    parser.add_argument("--ray", action="store_true", help="deployments of Ray Serve; otherwise shards in this process")


def run(options: argparse.Namespace) -> None:
    """Print a table: how many rankings in `exact` are the same, and milliseconds in `balanced`."""
    texts = list(read_queries(options.queries).values())
    texts = texts[:: max(1, len(texts) // options.questions)][: options.questions]
    whole = Searcher.open(options.db, options.table)
    vectors = whole.encoder.encode_queries(texts)
    exact = [ranking(whole, each, "exact") for each in vectors]
    print(
        f"{len(whole):,} rows, {len(texts)} questions; milliseconds in `balanced`, without encoding. Each question is"
    )
    print("asked of one searcher and of the shards in turn.\n")
    print(
        "| shards | same in `exact` | same in `balanced` | one searcher, p50 | p95 | shards, p50 | p95 | added, p50 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for number in options.shards:
        if options.ray:
            from tansaku.plugin.shards.on_ray import open_on_ray

            searcher = open_on_ray(options.db, options.table, shards=number, shard_cpus=0.1, encoder=whole.encoder)
        else:
            searcher = ShardedSearcher.open_local(options.db, options.table, shards=number, encoder=whole.encoder)
        same = sum(ranking(searcher, each, "exact") == best for each, best in zip(vectors, exact, strict=True))
        also, taken = in_turn(whole, searcher, vectors)
        searcher.close()
        cells = [f"{number}", f"{same} of {len(texts)}", f"{also} of {len(texts)}"]
        cells += [f"{np.percentile(times, share):.2f}" for times in taken.T for share in (50, 95)]
        print(f"| {' | '.join(cells)} | {np.median(taken[:, 1] - taken[:, 0]):.2f} |", flush=True)


def in_turn(whole: Searcher, shards: Searcher, vectors: Sequence[np.ndarray]) -> tuple[int, np.ndarray]:
    """How many rankings in `balanced` are the same, and the milliseconds of both: (questions, 2)."""
    for each in vectors[:20]:  # not counted
        ranking(whole, each, "balanced")
        ranking(shards, each, "balanced")
    same, taken = 0, np.empty((len(vectors), 2))
    for number, each in enumerate(vectors):
        found = []
        for place, searcher in enumerate((whole, shards)):
            began = time.perf_counter()
            found.append(ranking(searcher, each, "balanced"))
            taken[number, place] = 1000 * (time.perf_counter() - began)
        same += found[0] == found[1]
    return same, taken


def ranking(searcher: Searcher, vectors: np.ndarray, recall: str) -> list[tuple[str, float]]:
    """Ids and scores of the best documents."""
    found = searcher.search_vectors(vectors, _K, recall=recall, fields=[])  # pyright: ignore[reportArgumentType]
    return [(hit.id, round(hit.score, 4)) for hit in found]

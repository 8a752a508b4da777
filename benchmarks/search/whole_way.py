"""The whole way of a search, from the text of a question to hits: milliseconds of each part.

    tansaku index ../shared/data/kyoto-wiki-ja/corpus.jsonl --db DB --table kyoto
    python -m benchmarks.search.whole_way --db DB --table kyoto --queries ../shared/data/kyoto-wiki-ja/queries.jsonl \
        --where "title LIKE '%寺%'"

Each question is encoded once (a searcher remembers it), and its vectors are then searched in each way, one after the
other: with all fields of the hits, with `title` and `text`, with `fields=[]`, and with each condition, new and seen
before. The first table has the parts of a search with all fields, as `Hits.stages` has them, and what `Searcher` adds.
The second has whole searches; the encoding is part of each.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tansaku import Encoder, Searcher
from tansaku.onnx_export.encode.find_bundle import DEFAULT_BUNDLE
from tansaku.plugin.evaluation.judgements import read_queries
from tansaku.plugin.search.row_sets import RowSets

from ..support.machine import cpu_name

WARM_UP = 20  # questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--queries", type=Path, required=True, help="a file with id and text in each line")
    parser.add_argument("--model", default=str(DEFAULT_BUNDLE), help="the bundle that the index was made with")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--where", nargs="*", default=[], help="conditions")
    options = parser.parse_args()
    searcher = Searcher.open(options.db, options.table, encoder=Encoder.load(options.model, threads=options.threads))
    texts = list(read_queries(options.queries).values())
    texts = texts[:: max(1, len(texts) // options.questions)][: options.questions]
    ways: dict[str, dict[str, Any]] = {
        "all fields": {},
        "`title` and `text`": {"fields": ["title", "text"]},
        "`fields=[]`": {"fields": []},
    }
    for where in options.where:
        ways[f"`{where}`, new"] = {"where": where}
        ways[f"`{where}`, seen before"] = {"where": where}
    measured(searcher, texts[:WARM_UP], options.k, ways)  # compiles the loops
    parts, wholes, tokens = measured(searcher, texts, options.k, ways)
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs; {options.threads} threads for the encoder")
    print(f"{len(searcher):,} rows; {len(texts)} questions of {tokens:.0f} tokens (median), k={options.k}\n")
    show("part of a search with all fields", parts)
    print()
    show("whole search", wholes)


def measured(
    searcher: Searcher, texts: list[str], k: int, ways: dict[str, dict[str, Any]]
) -> tuple[dict[str, list[float]], dict[str, list[float]], float]:
    """Milliseconds of the parts and of the ways, for each text, and the median number of query tokens."""
    parts, wholes, tokens = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list), []
    for text in texts:
        began = time.perf_counter()
        (vectors,) = searcher.encoder.encode_queries([text])
        encoding = 1000 * (time.perf_counter() - began)
        tokens.append(len(vectors))
        for way, given in ways.items():
            if way.endswith(", new"):
                searcher._codes.row_sets = RowSets()
            began = time.perf_counter()
            hits = searcher.search_vectors(vectors, k, **given)
            searching = 1000 * (time.perf_counter() - began)
            wholes[way].append(encoding + searching)
            if not given:
                stages = {**hits.stages, "encode": encoding}
                for name, value in {**stages, "other": searching + encoding - sum(stages.values())}.items():
                    parts[name].append(value)
    return parts, wholes, float(np.median(tokens))


def show(title: str, times: dict[str, list[float]]) -> None:
    """Print a table of medians and 95th percentiles."""
    print(f"| {title} | p50 ms | p95 ms |\n|---|---|---|")
    for name, values in times.items():
        p50, p95 = np.percentile(values, [50, 95])
        print(f"| {name} | {p50:.2f} | {p95:.2f} |")


if __name__ == "__main__":
    main()

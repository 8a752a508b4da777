"""Promised recall: what searches find of the exhaustive ranking, beside what was measured for them.

    tansaku index ../shared/data/kyoto-wiki-ja/corpus.jsonl --db DB --table kyoto
    python -m benchmarks.search.promises --db DB --table kyoto --queries ../shared/data/kyoto-wiki-ja/queries.jsonl

The first questions are searched exhaustively, then with each `recall`, twice: measured with stored documents as
queries, and with the other questions of the file, which are not among the first. The share that is found is of the ten
best, by score. The index keeps the second measurement (`calibration.json`).
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import date
from pathlib import Path

import numpy as np

from tansaku import Searcher
from tansaku.plugin.evaluation.judgements import read_queries
from tansaku.plugin.search.choices import Recall

from ..support.machine import cpu_name

RECALLS: tuple[Recall, ...] = ("fast", "balanced", 0.9, 0.95, 0.97, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--queries", type=Path, required=True, help="a file with id and text in each line")
    parser.add_argument("--questions", type=int, default=100, help="searched; the others of the file calibrate")
    options = parser.parse_args()
    searcher = Searcher.open(options.db, options.table)
    texts = list(dict.fromkeys(read_queries(options.queries).values()))
    asked, others = texts[: options.questions], texts[options.questions :]
    vectors = searcher.encoder.encode_queries(asked)
    searcher.rank_vectors(vectors[0])  # compiles the loops
    best = [searcher.rank_vectors(query, recall="exact")[1] for query in vectors]
    print(f"{date.today()}, {cpu_name()}, {os.cpu_count()} CPUs; {len(searcher):,} rows, {len(asked)} questions\n")
    print("| measured with | seconds, of all cores | recall | expected | found | rows scored | processor ms a query |")
    print("|---|---|---|---|---|---|---|")
    for name, queries in (("stored documents", []), (f"{len(others)} other questions", others)):
        began = time.process_time()
        searcher.calibrate(queries)
        seconds = time.process_time() - began
        for recall in RECALLS:
            expected, found, scored, milliseconds = measured(searcher, vectors, best, recall)
            given = f"`{recall!r}`".replace("'", '"')
            print(
                f"| {name} | {seconds:.0f} | {given} | {expected:.3f} | {found:.3f} | {scored:,} | {milliseconds:.1f} |"
            )


def measured(
    searcher: Searcher, vectors: list[np.ndarray], best: list[np.ndarray], recall: Recall
) -> tuple[float, float, int, float]:
    """The expected share of the best, the share found, the median number of rows scored, and milliseconds a query."""
    began = time.process_time()
    hits = [searcher.search_vectors(query, recall=recall, fields=[]) for query in vectors]
    milliseconds = 1000 * (time.process_time() - began) / len(vectors)
    found = [np.mean([hit.score >= exact[-1] for hit in some]) for some, exact in zip(hits, best, strict=True)]
    expected = hits[0].recall or np.nan
    return expected, float(np.mean(found)), int(np.median([some.scored for some in hits])), milliseconds


if __name__ == "__main__":
    main()

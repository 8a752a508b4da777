"""What a build on Ray takes, against the build in one process on the same cores."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import lancedb

from tansaku import Encoder, Index, OnRay, Source

from .processes import PeakMemory, mark

_ACTOR = "ray::_Actor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this part."""
    parser.add_argument("--corpus", type=Path, required=True, help="folder of a BEIR set, such as DATA/jaquad")
    parser.add_argument("--limit", type=int, help="number of documents; by default all")
    parser.add_argument("--folder", type=Path, required=True, help="folder for the indexes, which are removed")
    parser.add_argument("--cpus", type=int, default=2, help="number of CPUs of both builds")
    parser.add_argument("--actor-cpus", type=int, default=1, help="number of CPUs of each actor")
    parser.add_argument(
        "--runs", type=int, default=1, help="number of builds of each kind, in turn; the fastest counts"
    )


def run(options: argparse.Namespace) -> None:
    """Print a table: seconds of both, their ratio, memory, and whether the rows are the same."""
    import ray

    documents = list(itertools.islice(Source(options.corpus / "corpus.jsonl"), options.limit))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    value = mark()
    started = time.perf_counter()
    ray.init("local", num_cpus=options.cpus, include_dashboard=False, logging_level=logging.ERROR)
    print(f"{len(documents):,} documents; Ray started in {time.perf_counter() - started:.1f} s\n")
    on = OnRay(actors=options.cpus // options.actor_cpus, actor_cpus=options.actor_cpus)
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    rows: dict[str, str] = {}
    with PeakMemory(value, _ACTOR) as memory:
        for _ in range(options.runs):
            for place, where in (("local", "local"), ("ray", on)):
                db = options.folder / place
                shutil.rmtree(db, ignore_errors=True)
                encoder = Encoder.load(threads=options.cpus)
                began = time.perf_counter()
                Index.create(db, "docs", documents, encoder=encoder, on=where)
                seconds[place].append(time.perf_counter() - began)
                rows[place] = digest(db)
                shutil.rmtree(db, ignore_errors=True)
    ray.shutdown()
    print("| | seconds | ratio |\n|---|---|---|")
    for place, taken in seconds.items():
        print(f"| {place} | {min(taken):.1f} | {min(taken) / min(seconds['local']):.3f} |")
    peaks = ", ".join(f"{peak:,.0f}" for peak in memory.peaks.values())
    print(f"\nlargest memory of each actor, MB: {peaks}")
    print(f"rows are {'the same' if rows['local'] == rows['ray'] else 'NOT the same'}")


def digest(db: Path) -> str:
    """A hash of the rows and the codec: ids, texts, codes and counts, in the order of ids."""
    connection = lancedb.connect(db)
    columns = ["id", "title", "text", "token_count", "centroid_ids", "residuals"]
    table = connection.open_table("docs").search().select(columns).limit(None).to_arrow().sort_by("id")
    total = hashlib.sha256()
    for row in table.to_pylist():
        values: Any = [row[name] for name in columns]
        total.update(repr(values).encode())
    return total.hexdigest()

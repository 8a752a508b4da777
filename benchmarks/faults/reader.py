"""Readers beside a writer that never rests: no answer may hold what no version of the table gives."""

from __future__ import annotations

import argparse
import collections
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tansaku import (
    Index,
    Searcher,
)

from .support import TABLE, Child, character_encoder

GROUPS, GROUP_ROWS = 5, 20
_NONE_BELOW = 10**9


def reader(folder: Path, options: argparse.Namespace) -> list[str]:
    db = str(folder / "db")
    start = [row for group in range(GROUPS) for row in group_rows(group, 0)]
    Index.create(db, TABLE, start + batch_rows(10**6, 200), encoder=character_encoder())
    seconds = options.seconds
    writer = Child("write", db=db, seconds=seconds + 1, seed=options.seed)
    readers = [Child("read", db=db, derived=derived, seconds=seconds) for derived in (True, False)]
    results = [child.answer(timeout=seconds + 120) for child in readers]
    written = writer.answer(timeout=120)
    print(f"\nreaders beside a writer, {seconds:.0f} s: {sum(written['done'].values())} writes", end="")
    print(f" ({', '.join(f'{n} {name}' for name, n in written['done'].items())})")
    columns = ("searches/s", "p50 ms", "p95 ms", "refreshes/s", "p50 ms", "p95 ms", "versions", "errors", "wrong")
    print(f"  {'':<8}" + "".join(f"{column:>12}" for column in columns))
    failures = [f"{n} times {error}" for error, n in written["errors"].items()]
    for name, result in zip(("derived", "table"), results, strict=True):
        times = [1000 * value for value in (*result["latencies"], *result["refresh_latencies"])]
        rates = (result["searches"] / seconds, *times[:2], result["refreshes"] / seconds, *times[2:])
        counted = (result["versions"], sum(result["errors"].values()), sum(result["wrong"].values()))
        print(f"  {name:<8}" + "".join(f"{n:>12.1f}" for n in rates) + "".join(f"{n:>12}" for n in counted))
        failures += [f"{n} times {what}" for what, n in {**result["errors"], **result["wrong"]}.items()]
    for child in (writer, *readers):
        child.close()
    return failures


def write(db: str, seconds: float, seed: int) -> None:
    """The writer: small changes without a pause."""
    draw, encoder = random.Random(seed), character_encoder()
    index = Index.open(db, TABLE, encoder=encoder)
    done: collections.Counter = collections.Counter()
    errors: collections.Counter = collections.Counter()
    batches: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number = sum(done.values())
        operation = draw.choices(
            ["upsert", "add", "delete", "optimize, keeping 0", "optimize, keeping 1 min", "rebuild"],
            [60, 18, 18, 3, 1, 0.5],
        )[0]
        try:
            if operation == "upsert":
                index.upsert(group_rows(draw.randrange(GROUPS), number + 1))
            elif operation == "add":
                index.add(batch_rows(number, draw.randint(1, 30)))
                batches.append(number)
            elif operation == "delete" and batches:
                index.delete(where=f"part_of = 'b{batches.pop(draw.randrange(len(batches)))}'")
            elif operation == "rebuild":
                index.rebuild()
            elif operation.startswith("optimize"):
                index.optimize(keep=timedelta(minutes=int(operation.endswith("min"))))
            done[operation] += 1
        except Exception as error:
            errors[f"writer, {operation}: {type(error).__name__}: {error}"] += 1
    print(json.dumps({"done": done, "errors": errors}), flush=True)


def read(db: str, derived: bool, seconds: float) -> None:
    """A reader: two threads with one Searcher, one of them refreshing it before every search."""
    encoder = character_encoder()
    searcher = Searcher.open(db, TABLE, encoder=encoder, derived=derived)
    errors: collections.Counter = collections.Counter()
    wrong: collections.Counter = collections.Counter()
    latencies: list[float] = []
    refreshes: list[float] = []
    versions = {searcher.version}
    until = time.monotonic() + seconds

    def loop(refresh: bool, seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < until:
            try:
                started = time.perf_counter()
                if refresh:
                    searcher.refresh()
                    refreshes.append(time.perf_counter() - started)
                    versions.add(searcher.version)
                started = time.perf_counter()
                hits = searcher.search(f"群{draw.randrange(GROUPS)}の番", k=100_000, candidates=_NONE_BELOW)
                latencies.append(time.perf_counter() - started)
            except Exception as error:
                errors[
                    f"{'refreshing' if refresh else 'searching'}, derived={derived}: {type(error).__name__}: {error}"
                ] += 1
                continue
            wrong.update(inconsistencies([(hit.id, hit.text, hit.fields) for hit in hits]))

    threads = [threading.Thread(target=loop, args=(refresh, seed)) for seed, refresh in enumerate((True, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        json.dumps(
            {
                "errors": errors,
                "wrong": wrong,
                "searches": len(latencies),
                "latencies": [float(np.quantile(latencies, q)) for q in (0.5, 0.95)],
                "refreshes": len(refreshes),
                "refresh_latencies": [float(np.quantile(refreshes, q)) for q in (0.5, 0.95)],
                "versions": len(versions),
            }
        ),
        flush=True,
    )


def group_rows(group: int, generation: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"g{group}-{i}",
            "text": f"群{group}の{i}番、第{generation}版",
            "part_of": f"g{group}",
            "generation": generation,
        }
        for i in range(GROUP_ROWS)
    ]


def batch_rows(number: int, rows: int) -> list[dict[str, Any]]:
    return [
        {"id": f"b{number}-{i}", "text": f"組{number}の{i}番", "part_of": f"b{number}", "generation": rows}
        for i in range(rows)
    ]


def inconsistencies(hits: Sequence[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    """What no single version of the table would give."""
    parts: dict[str, list[tuple[str, str, int]]] = collections.defaultdict(list)
    for doc_id, text, fields in hits:
        parts[fields["part_of"]].append((doc_id, text, fields["generation"]))
    if len({doc_id for doc_id, _, _ in hits}) < len(hits):
        yield "an id twice"
    if sum(name.startswith("g") for name in parts) != GROUPS:
        yield f"{sum(name.startswith('g') for name in parts)} groups, not {GROUPS}"
    for name, rows in parts.items():
        generations = {generation for _, _, generation in rows}
        if len(generations) > 1:
            yield "two generations in one group"
        elif name.startswith("g") and not all(text.endswith(f"第{generations.copy().pop()}版") for _, text, _ in rows):
            yield "a text of another generation"
        if len(rows) != (GROUP_ROWS if name.startswith("g") else rows[0][2]):
            yield "a part of a group"

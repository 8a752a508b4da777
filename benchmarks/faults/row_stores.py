"""Databases that keep row vectors and codes: long random histories, and writers that are killed.

    python -m benchmarks.faults.row_stores [--store postgres --store sqlite ...] [--operations 10000] [--kills 50]

operations: adds, upserts, deletes, searches and counts, with and without a filter, drawn with the seed, go to a real
database and to rows in memory, which must give the same. An answer that differs is a failure.

kills: another process upserts and deletes batches of rows as fast as it can, and SIGKILL ends it at a random moment.
After each kill the table is opened and every row is read: its codes must be those of its text, and its row vector too
("half": a row with parts of two texts); a batch that was acknowledged must be there ("lost"); and the batch that was
being written must be there as a whole or not at all ("torn").

The exit status is 1 if anything was not as it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from tansaku import CodedDocument, CodedRow, Coder, RowStore
from tansaku.plugin.hosts.rows.conformance import random_operations
from tests.support import engines

from ..support.machine import cpu_name

DOCUMENTS, VERSIONS, BATCH = 120, 8, 20
COLUMNS = {"year": "INTEGER", "note": "TEXT"}
FIELDS = ["year", "note"]
FAILURES_SHOWN = 20


class CachedCoder(Coder):
    """Remembers documents: two stores encode each."""

    def encode_documents(self, texts: Sequence[str]) -> list[CodedDocument]:
        known = self.__dict__.setdefault("_known", {})
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(new, super().encode_documents(new), strict=True))
        return [known[text] for text in texts]


class Database(NamedTuple):
    """How a database is started and its table opened.

    Attributes:
        server: starts what runs next to the processes, in a folder; gives the place, a string, that they open.
        opened: opens the table ``docs`` of a place for a while; the last argument makes it first.
        year_is: a filter in the database's own terms.
        batches: a batch is written whole or not at all. Where it is not, torn ones are counted, and are no failure.
    """

    server: Callable[[Path], AbstractContextManager[str]]
    opened: Callable[[Coder, str, bool], AbstractContextManager[RowStore[Any]]]
    year_is: Callable[[int], Any]
    batches: bool = True


@contextlib.contextmanager
def a_file(folder: Path) -> Iterator[str]:
    yield str(folder / "docs.db")


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    import psycopg

    with engines.postgres(folder, programs=engines.pgvector_programs()) as place:
        with psycopg.connect(place) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield place


@contextlib.contextmanager
def postgres(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    from psycopg_pool import ConnectionPool

    from tansaku.plugin.hosts.rows.postgres import PostgresRows

    with ConnectionPool(place, min_size=1, open=True) as pool:
        if make:
            yield PostgresRows.create(coder, pool.connection, "docs", columns=COLUMNS, fields=FIELDS)
        else:
            yield PostgresRows(coder, pool.connection, "docs", fields=FIELDS)


@contextlib.contextmanager
def sqlite(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    from tansaku.plugin.hosts.rows.sqlite import SqliteRows

    if make:
        yield SqliteRows.create(coder, place, "docs", columns=COLUMNS, fields=FIELDS)
    else:
        yield SqliteRows(coder, place, "docs", fields=FIELDS)


@contextlib.contextmanager
def duckdb(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    from tansaku.plugin.hosts.rows.duckdb import DuckdbRows

    if make:
        store = DuckdbRows.create(coder, place, "docs", columns=COLUMNS, fields=FIELDS)
    else:
        store = DuckdbRows(coder, place, "docs", fields=FIELDS)
    with contextlib.closing(store):
        yield store


@contextlib.contextmanager
def lancedb(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    from lancedb import connect

    from tansaku.plugin.hosts.rows.lancedb import LanceRows

    if make:
        columns = {"year": pa.int64(), "note": pa.string()}
        yield LanceRows.create(coder, connect(place), "docs", columns=columns, fields=FIELDS)
    else:
        yield LanceRows(coder, connect(place).open_table("docs"), fields=FIELDS)


@contextlib.contextmanager
def qdrant(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    from tansaku.plugin.hosts.rows.qdrant import QdrantRows
    from tests.support.edge_client import EdgeClient  # the engine of the server

    client: Any = EdgeClient(Path(place))
    with contextlib.closing(client):
        yield (QdrantRows.create if make else QdrantRows)(coder, client, "docs", fields=FIELDS)


@contextlib.contextmanager
def milvus(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    from tansaku.plugin.hosts.rows.milvus import MilvusRows

    # Its server lives in this process, and would keep the file from the next one.
    with contextlib.closing(MilvusClient(place)) as client, contextlib.ExitStack() as end:
        end.callback(server_manager_instance.release_server, place)
        yield (MilvusRows.create if make else MilvusRows)(coder, client, "docs", fields=FIELDS)


@contextlib.contextmanager
def chroma(coder: Coder, place: str, make: bool) -> Iterator[RowStore[Any]]:
    import chromadb
    from chromadb.config import Settings

    from tansaku.plugin.hosts.rows.chroma import ChromaRows

    client: Any = chromadb.PersistentClient(place, settings=Settings(anonymized_telemetry=False))
    with contextlib.closing(client):
        yield (ChromaRows.create if make else ChromaRows)(coder, client, "docs", fields=FIELDS)


def year_in_payload(year: int) -> Any:
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key="year", match=models.MatchValue(value=year))])


DATABASES: dict[str, Database] = {
    "postgres": Database(postgres_server, postgres, lambda year: ("year = %(year)s", {"year": year})),
    "sqlite": Database(a_file, sqlite, lambda year: ("year = :year", {"year": year})),
    "duckdb": Database(a_file, duckdb, lambda year: ("year = $year", {"year": year})),
    "lancedb": Database(a_file, lancedb, lambda year: f"year = {year}"),
    "qdrant": Database(a_file, qdrant, year_in_payload, batches=False),
    "milvus": Database(a_file, milvus, lambda year: f"year == {year}"),
    "chroma": Database(a_file, chroma, lambda year: {"year": year}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=DATABASES, action="append", help="a database; all of them if none is named")
    parser.add_argument("--operations", type=int, default=10_000, help="number of random operations")
    parser.add_argument("--kills", type=int, default=50, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is drawn")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)  # the process that writers are forks of
    options = parser.parse_args()
    if options.write:
        write(*options.write)
        return

    print(f"{date.today()}, {cpu_name()}, seed {options.seed}")
    coder = CachedCoder()
    failures: list[str] = []
    for name in options.store or DATABASES:
        for what, part, n in (("operations", operations, options.operations), ("kills", kills, options.kills)):
            if n:
                started = time.perf_counter()
                with (
                    tempfile.TemporaryDirectory(prefix="tansaku-rows-", ignore_cleanup_errors=True) as folder,
                    DATABASES[name].server(Path(folder)) as place,
                ):
                    found = part(name, place, coder, n, options.seed)
                seconds = time.perf_counter() - started
                print(f"{name}: {n:,} {what}, {len(found)} failures in {seconds:.0f} s", flush=True)
                failures += [f"{name}: {failure}" for failure in found]
    for failure in failures[:FAILURES_SHOWN]:
        print(f"FAILURE {failure}")
    sys.exit(1 if failures else 0)


def operations(name: str, place: str, coder: Coder, n: int, seed: int) -> list[str]:
    """Random operations, compared with those on rows in memory."""
    database = DATABASES[name]
    with database.opened(coder, place, True) as store:
        return random_operations(cast("Any", database), store, n, seed)


def kills(name: str, place: str, coder: Coder, n: int, seed: int) -> list[str]:
    """Kill a writer again and again, and read what it left."""
    database, draw, counts = DATABASES[name], random.Random(seed), Counter[str]()
    rows = versions(coder)
    failures: list[str] = []
    state: dict[str, int] = {}  # document → version, of what was acknowledged
    with database.opened(coder, place, True):
        pass
    with Writers(name, place, rows) as writers:
        for number in range(1, n + 1):
            begun = acknowledged(writers.killed(draw), state, counts)
            with database.opened(coder, place, False) as store:
                found = {str(row.id): row for some in store.coded_rows() for row in some}
                if store.count_without_codes() or store.count() != len(found):
                    failures.append(f"kill {number}: rows without codes")
            for failure in differences(found, rows, state, begun):
                counts["torn"] += (torn := failure.startswith("torn"))
                if database.batches or not torn:
                    failures.append(f"kill {number}: {failure}")
            state = {row_id: int(row.columns["year"]) for row_id, row in found.items()}
    print(
        f"{name}: {counts['acknowledged']:,} batches acknowledged; {counts['written']} of {n} kills within a batch, "
        f"{counts['torn']} batches torn"
    )
    return failures


def versions(coder: Coder) -> dict[str, list[CodedRow]]:
    """The rows that are written: some versions of each document. The year of a row is its version."""
    ids = [f"文書{i}" for i in range(DOCUMENTS)]
    texts = {
        (row_id, v): f"{row_id}の第{v}版。" + "京都と奈良の寺。" * (v + 1) for row_id in ids for v in range(VERSIONS)
    }
    coded = coder.encode_documents(list(texts.values()))
    made: dict[str, list[CodedRow]] = {row_id: [] for row_id in ids}
    for ((row_id, v), text), one in zip(texts.items(), coded, strict=True):
        columns = {"text": text, "year": v, "note": f"{v}"}
        made[row_id].append(CodedRow(row_id, one.row_vector, one.codes, columns))
    return made


class Writers:
    """Processes that write until they are killed. Each is a fork of one that has all in memory and opens no database.

    Args:
        name: name of the database.
        place: its place.
        rows: versions of each document.
    """

    def __init__(self, name: str, place: str, rows: Any) -> None:
        command = [sys.executable, "-m", "benchmarks.faults.row_stores", "--write", name, place]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stdin, self._stdout = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        pickle.dump(rows, self._stdin)
        self._stdin.flush()

    def __enter__(self) -> Writers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stdin.close()
        self._process.wait()
        self._stdout.close()

    def killed(self, draw: random.Random) -> list[str]:
        """Start a writer, and kill it; the lines that it wrote."""
        self._stdin.write(f"{draw.randrange(2**30)}\n".encode())
        self._stdin.flush()
        pid = int(self._stdout.readline())
        if self._stdout.readline() != b"ready\n":
            raise RuntimeError("the writer could not open the table")
        time.sleep(draw.uniform(0.05, 1.0))
        os.kill(pid, signal.SIGKILL)
        lines = []
        while not (line := self._stdout.readline().decode()).endswith("dead\n"):
            lines.append(line)
        return lines


def write(name: str, place: str) -> None:
    """The process that is forked: for each line, a seed, a process that is to be killed."""
    warnings.filterwarnings("ignore", "lancedb fork support")  # a database is opened in the fork alone
    coder = Coder.load(threads=1)  # which starts no thread, so that forks are whole
    rows: dict[str, list[CodedRow]] = pickle.load(sys.stdin.buffer)  # noqa: S301  of this benchmark
    while line := sys.stdin.buffer.readline():
        if not (pid := os.fork()):
            try:
                write_batches(name, place, coder, rows, random.Random(int(line)))
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.waitpid(pid, 0)
        print("dead", flush=True)


def write_batches(name: str, place: str, coder: Coder, rows: dict[str, list[CodedRow]], draw: random.Random) -> None:
    """Say which batch is written, and when it is there. A version of None is a delete."""
    print(os.getpid(), flush=True)
    with DATABASES[name].opened(coder, place, False) as store:
        print("ready", flush=True)
        while True:
            ids = draw.sample(sorted(rows), BATCH)
            deletes = draw.random() < 0.2
            batch = {row_id: None if deletes else draw.randrange(VERSIONS) for row_id in ids}
            print(json.dumps(batch), flush=True)
            if deletes:
                store.delete(ids)
            else:
                store.write_coded([rows[row_id][version] for row_id, version in batch.items() if version is not None])
            print("done", flush=True)


def acknowledged(lines: Sequence[str], state: dict[str, int], counts: Counter[str]) -> dict[str, int | None]:
    """Add to ``state`` what a writer acknowledged; returns what it had begun besides."""
    begun: dict[str, int | None] = {}
    for line in lines:
        if line == "done\n":
            counts["acknowledged"] += 1
            for row_id, version in begun.items():
                state.pop(row_id, None)
                if version is not None:
                    state[row_id] = version
            begun = {}
        elif line.endswith("}\n"):  # else it was cut off, and nothing was begun
            begun = json.loads(line)
    counts["written"] += bool(begun)
    return begun


def differences(
    found: dict[str, CodedRow], rows: dict[str, list[CodedRow]], state: dict[str, int], begun: dict[str, int | None]
) -> Iterator[str]:
    """What is wrong with the rows that a killed writer left."""
    done = set[bool]()
    for row_id in rows:
        row = found.get(row_id)
        version = None
        if row is not None:
            version = int(row.columns["year"])
            expected = rows[row_id][version]
            same_vector = np.allclose(row.row_vector, expected.row_vector, rtol=2e-3, atol=2e-3)  # float16 is allowed
            if row.codes != expected.codes or row.columns["text"] != expected.columns["text"] or not same_vector:
                yield f"half: {row_id} has parts of two versions"
        before = state.get(row_id)
        if row_id not in begun:
            if version != before:
                yield f"lost: {row_id} has version {version}, and {before} was acknowledged"
        elif begun[row_id] != before:
            if version not in (before, begun[row_id]):
                yield f"lost: {row_id} has version {version}, not {before} or {begun[row_id]}"
            done.add(version == begun[row_id])
    if len(done) > 1:
        yield f"torn: a part of a batch of {len(begun)} rows was written"


if __name__ == "__main__":
    main()

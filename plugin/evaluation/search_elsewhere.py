"""Parts of a file of queries are searched by processes of this machine, or by actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...indexer.errors import WorkerError
from ...indexer.read.documents import Document
from ...indexer.table.database import connect, location_of
from ...indexer.table.table import open_index_table
from ...indexer.write.units import Chunk
from ...indexer.write.workers.choice import OnProcesses, OnRay
from ...indexer.write.workers.on_ray import RayPool
from ...indexer.write.workers.pool import Pool, Unit, first_line
from ...indexer.write.workers.processes import ProcessPool, default_processes
from ...onnx_export.cores import usable_cores
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.progress import no_progress
from ..search.searcher import Searcher
from .search_part import Queries, search_part

_TRIES = 3  # of a part, each by another worker


def search_parts(
    searcher: Searcher,
    parts: Iterable[tuple[Path, Queries]],
    k: int,
    options: Mapping[str, Any],
    workers: OnProcesses | OnRay,
) -> Iterator[tuple[Path, pa.Table]]:
    """Search parts of a file of queries; each worker has one at a time, and one more is read ahead.

    Args:
        searcher: of the index; the workers open the same version.
        parts: files of the parts, and their queries.
        k: number of hits for each query.
        options: as `Searcher.search_many` takes them.
        workers: where the parts are searched.

    Yields:
        The file of a part and its hits, in the order in which they end.

    Raises:
        InputError: another process cannot open the database or load the model; or a query or option cannot be used.
        MissingExtraError: the extra ``ray`` is not installed.
        WorkerError: workers cannot be started, or end again and again.
        StorageError: the database cannot be read.
    """
    database, name = searcher.location
    pool, threads = _pool(searcher, workers)
    job = SearchJob(*location_of(database), name, searcher.version, k, {**options, "threads": threads})
    paths: list[Path] = []

    def units() -> Iterator[Unit]:
        for path, queries in parts:
            paths.append(path)
            yield Unit([Chunk(len(paths) - 1, [Document(query_id, text) for query_id, text in queries])])

    with pool:
        for unit, found in pool.run(job, units()):  # pyright: ignore[reportArgumentType]
            yield paths[unit.chunks[0].number], found


@dataclass(frozen=True)
class SearchJob:
    """Search the queries of a part.

    Attributes:
        db: folder or URI of the database.
        storage_options: LanceDB's options for object stores.
        table: name of the table.
        version: version of the table.
        k: number of hits for each query.
        options: as `Searcher.search_many` takes them.
    """

    db: str
    storage_options: Mapping[str, str] | None
    table: str
    version: int
    k: int
    options: dict[str, Any]

    name = "search"

    def run(self, encoder: Encoder, chunks: list[Chunk]) -> pa.Table:
        """The hits of the one chunk, whose documents are the queries."""
        (chunk,) = chunks
        queries = [(query.id, query.text) for query in chunk.documents]
        return search_part(_opened(self, encoder), self.version, queries, self.k, self.options, no_progress)


_open: tuple[tuple[str, str, int], Searcher] | None = None  # in a worker: what it searches


def _opened(job: SearchJob, encoder: Encoder) -> Searcher:
    global _open
    wanted = job.db, job.table, job.version
    if _open is None or _open[0] != wanted:
        database = connect(job.db, storage_options=job.storage_options)
        _open = wanted, Searcher(open_index_table(database, job.table, version=job.version), encoder)
    return _open[1]


class _WholeParts(Pool):
    """Workers of which one that dies is replaced, and its part searched again as a whole."""

    def _divided(self, unit: Unit, error: BaseException) -> list[Unit]:
        unit.deaths += 1
        if unit.deaths < _TRIES:
            return [unit]
        queries = unit.chunks[0].documents
        raise WorkerError(
            f"{_TRIES} workers ended while they searched the queries from {queries[0].id!r} to {queries[-1].id!r} "
            f"({first_line(error)}); what is done is kept: give them more memory, or take fewer, and repeat the call"
        ) from error


class _Processes(_WholeParts, ProcessPool):
    """Processes of this machine."""


class _Actors(_WholeParts, RayPool):
    """Actors of a Ray cluster."""

    def __enter__(self) -> Pool:
        """As for builds, but the store and the folder need no trial: nothing is written there."""
        self._connect()
        try:
            self._count_actors()
        except BaseException:
            self.close()
            raise
        return Pool.__enter__(self)


def _pool(searcher: Searcher, workers: OnProcesses | OnRay) -> tuple[Pool, int]:
    """The workers, and how many threads each has."""
    encoder = searcher.encoder
    if isinstance(workers, OnRay):
        return _Actors(encoder, encoder.dim, searcher.location[0], workers), workers.actor_cpus
    count = workers.processes or default_processes()
    return _Processes(encoder, encoder.dim, count), max(1, usable_cores() // count)

"""A file of queries in, a file of hits out: for mining, evaluation, deduplication, and recommendations made offline."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...indexer.write.workers.choice import On, workers_of
from ...onnx_export.errors import InputError
from ...onnx_export.files import atomic_path, check_output, write_atomically, write_output
from ...onnx_export.progress import Progress, no_progress
from ..search.searcher import Searcher
from .judgements import Run, trec_lines
from .search_elsewhere import search_parts
from .search_part import SCHEMA, search_part

QUERIES_PER_PART = 4096  # so many are lost at most when the work is interrupted
FORMATS = {".parquet": "Parquet", ".run": "TREC's run format", ".trec": "TREC's run format"}
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class BulkReport:
    """What `search_file` wrote.

    Attributes:
        queries: number of queries.
        hits: number of hits.
        without_hits: number of queries that found nothing, as under a condition.
        resumed: how many of the queries an interrupted call had already searched.
    """

    queries: int
    hits: int
    without_hits: int
    resumed: int


def search_file(
    searcher: Searcher,
    queries: Mapping[str, str],
    out: Path,
    *,
    k: int = 10,
    resume: bool = True,
    progress: Progress = no_progress,
    on: On = "local",
    **options: Any,
) -> BulkReport:
    """Search many queries and write their hits to a file, which is complete or not there.

    What is done is kept in a folder next to the file, ``.NAME.parts``, until all is: a call that was interrupted
    continues there, if it is repeated with the same queries and options on the same version of the index.

    Args:
        searcher: of an index; it stays at its version.
        queries: query id → text.
        out: the file: ``.parquet`` (columns `SCHEMA`), or ``.run`` or ``.trec`` (TREC's run format).
        k: number of hits for each query.
        resume: continue what an interrupted call left; otherwise discard it.
        progress: called with the stage "search" after every 256 queries, or every 4,096 that others have searched.
        on: where queries are searched: "local", "processes" or "ray", or `OnProcesses` or `OnRay` with options. The
            hits are the same. Each process or actor opens the index; on a cluster it must be in an object store, or in
            a folder that all nodes share.
        **options: as `Searcher.search_many` takes them.

    Raises:
        InputError: another ending of the name, a file that cannot be written, an option or query that cannot be used,
            an id that the format cannot hold, or a folder of parts of other work.
        MissingExtraError: ``on`` is "ray" and the extra ``ray`` is not installed.
        WorkerError: the workers of ``on`` cannot be started, or end again and again.
        StorageError: the database cannot be read.
    """
    if out.suffix.lower() not in FORMATS:
        raise InputError(f"{out}: the ending says the format; use one of {', '.join(FORMATS)}")
    check_output(out)
    parts = out.with_name(f".{out.name}.parts")
    if not resume:
        shutil.rmtree(parts, ignore_errors=True)
    workers = workers_of(on)
    version = searcher.version
    _begin(parts, _settings(searcher, queries, k, options))
    items = list(queries.items())
    total = len(items)
    left = {
        parts / f"{number:06}.parquet": items[start : start + QUERIES_PER_PART]
        for number, start in enumerate(range(0, total, QUERIES_PER_PART))
    }
    left = {path: some for path, some in left.items() if not path.exists()}
    resumed = done = total - sum(map(len, left.values()))

    def note(stage: str, at: int, of: int, tokens: int, /) -> None:
        progress(stage, done + at, total, tokens)

    if workers is None:
        searched = ((path, search_part(searcher, version, some, k, options, note)) for path, some in left.items())
    else:
        searched = search_parts(searcher, left.items(), k, options, workers)
    for path, table in searched:
        with atomic_path(path) as making:
            pq.write_table(table, making)
        done += len(left[path])
        note("search", 0, total, 0)
    hits, found = _join(sorted(parts.glob("*.parquet")), out)
    shutil.rmtree(parts, ignore_errors=True)
    return BulkReport(len(items), hits, len(items) - found, resumed)


def _settings(searcher: Searcher, queries: Mapping[str, str], k: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for parts to be of one work."""
    digest = hashlib.sha256()
    for query_id, text in queries.items():
        digest.update(f"{len(query_id)} {len(text)} {query_id}{text}".encode())
    return {
        "queries": digest.hexdigest(),
        "k": k,
        "options": {name: repr(value) for name, value in sorted(options.items()) if name != "threads"},
        "table": searcher.location[1],
        "version": searcher.version,
        "model": searcher.encoder.bundle.scoring_fingerprint,
        "hits": QUERIES_PER_PART,
    }


def _begin(parts: Path, settings: dict[str, Any]) -> None:
    path = parts / _SETTINGS
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); start over with resume=False (--no-resume)") from error
    if before is None:
        try:
            parts.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{parts}: cannot be made ({error.strerror}); choose another place") from error
        write_atomically(path, json.dumps(settings))
        return
    other = [name for name, value in settings.items() if before.get(name) != value]
    if other:
        raise InputError(
            f"{parts}: has the beginning of a search with other {', '.join(other)}; give the same again, or start over "
            "with resume=False (--no-resume)"
        )


def _join(parts: list[Path], out: Path) -> tuple[int, int]:
    """Write all parts to one file; returns the number of hits, and of queries that have some."""
    hits = found = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal hits, found
        for part in parts:
            table = pq.read_table(part, schema=SCHEMA)
            hits += len(table)
            found += len(table["query_id"].unique())
            yield table

    if out.suffix.lower() != ".parquet":
        write_output(out, (line for table in tables() for line in trec_lines(_run(table))))
        return hits, found
    try:
        with atomic_path(out) as making, pq.ParquetWriter(making, SCHEMA) as writer:
            for table in tables():
                writer.write_table(table)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another place") from error
    return hits, found


def _run(table: pa.Table) -> Run:
    run: Run = {}
    for row in table.to_pylist():
        run.setdefault(row["query_id"], {})[row["id"]] = row["score"]
    return run

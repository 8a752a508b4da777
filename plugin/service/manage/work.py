"""What each kind of job does with an index, and what its report and its errors become."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from ....indexer.errors import (
    BusyError,
    ModelMismatchError,
    NotAnIndexError,
    ResumeError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    WriteConflictError,
)
from ....indexer.index import Index
from ....indexer.read.documents import FieldNames
from ....indexer.read.rejects import Rejects
from ....indexer.read.sources import Source
from ....indexer.table.database import connect, local_folder
from ....indexer.table.model import Models
from ....indexer.table.table import open_index_table
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError, MissingExtraError, TansakuError
from ....onnx_export.progress import Progress
from ...search.searcher import Searcher
from ..dialects.conditions import condition_of
from ..errors import ServiceError
from ..service import Service
from .jobs import Job

REJECTS_SHOWN = 100
_STATUSES: tuple[tuple[type[TansakuError], int], ...] = (
    (TableExistsError, 409),
    (TableNotFoundError, 404),
    (NotAnIndexError, 409),
    (ModelMismatchError, 409),
    (WriteConflictError, 409),
    (ResumeError, 409),
    (BusyError, 409),
    (MissingExtraError, 501),
    (StorageError, 503),
    (InputError, 422),
)


class IndexWork:
    """Does jobs on the indexes of a service.

    Args:
        service: Whose indexes they are.
        uploads: Folder of the files with documents.
    """

    def __init__(self, service: Service, uploads: Path) -> None:
        self._service = service
        self._uploads = uploads
        self._lock = threading.Lock()
        self._models: Models | None = None
        self._kept: dict[str, Index] = {}  # with their models, which would be loaded for each job

    def do(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Do a job; returns its result. Documents that were left out are noted in the job.

        Raises:
            TansakuError: as the method of `Index` does that does the work.
        """
        if job.kind == "create":
            return self._create(job, progress)
        if job.kind == "drop":
            return self._drop(job)
        index = self._index(job.index)
        given = job.arguments
        if job.kind == "documents":
            write = index.add if given["mode"] == "add" else index.upsert
            with self._documents(job) as (source, rejects):
                report = self._resumed(
                    job,
                    lambda resume: write(
                        source, names=_names(given), rejects=rejects, resume=resume, progress=progress
                    ),
                )
                result = _report(report)
        elif job.kind == "delete":
            where = condition_of(given["where"], given["params"])
            result = dataclasses.asdict(index.delete(given["ids"], where=where, dry_run=given["dry_run"]))
        elif job.kind == "optimize":
            keep = timedelta(seconds=given["keep_seconds"])
            result = dataclasses.asdict(index.optimize(keep))
        else:
            result = _report(
                self._resumed(
                    job, lambda resume: index.rebuild(nbits=given.get("nbits"), resume=resume, progress=progress)
                )
            )
        return result

    def _resumed(self, job: Job, write: Any) -> Any:
        """What a write returns. One that begins once more continues its own work; another one begins afresh."""
        try:
            return write(job.again)
        except ResumeError:
            if not job.again:
                raise
            return write(False)

    def _create(self, job: Job, progress: Progress) -> dict[str, Any]:
        service, given = self._service, job.arguments
        database = service.settings.database
        if database is None:
            raise InputError("no database was named for new indexes; start the service with --db and without --table")
        if job.index in service.searchers and not given["overwrite"]:
            raise TableExistsError(f"index {job.index!r} exists already; choose another name, or give overwrite")
        models = self._models_of(None)
        with self._documents(job) as (source, rejects):
            index = self._resumed(
                job,
                lambda resume: Index.create(
                    database,
                    job.index,
                    source,
                    encoder=models.default(),
                    nbits=given["nbits"],
                    pool=given["pool"],
                    passage_tokens=given["passage_tokens"],
                    fulltext=given["fulltext"],
                    names=_names(given),
                    overwrite=given["overwrite"],
                    rejects=rejects,
                    resume=resume,
                    progress=progress,
                    storage_options=service.settings.storage_options,
                ),
            )
        if job.index not in service.searchers:
            service.open_index(job.index, database, job.index)
        return _report(index.last_build)

    def _drop(self, job: Job) -> dict[str, Any]:
        searcher = self._service.searchers.get(job.index)
        if searcher is None:
            raise TableNotFoundError(f"index {job.index!r} is not served here")
        database, table = searcher.location
        self._kept.pop(job.index, None)
        self._service.close_index(job.index)
        Index.drop(database, table)
        return {}

    def _index(self, name: str) -> Index:
        searcher = self._service.searchers.get(name)
        if searcher is None:
            raise TableNotFoundError(f"index {name!r} is not served here")
        index = self._kept.get(name)
        if index is None:
            database, table = searcher.location
            index = Index(table, open_index_table(database, table), self._models_of(searcher))
            self._kept[name] = index
        return index

    def _models_of(self, searcher: Searcher | None) -> Models:
        """The models that write. They are loaded in the thread of a writer, whose low priority theirs then have."""
        service = self._service
        encoder, searchers = service.given
        if encoder is not None:
            return Models(encoder)
        if searchers and searcher is not None:
            return Models(searcher.encoder)
        with self._lock:
            if self._models is None:
                model, threads = service.settings.model, service.settings.threads
                self._models = Models(None if model is None else Encoder.load(model, threads=threads), threads=threads)
            return self._models

    @contextmanager
    def _documents(self, job: Job) -> Iterator[tuple[Source, Rejects]]:
        """The documents of a job, and what collects those that cannot be indexed."""
        path = self._uploads / f"{job.arguments['upload']}.jsonl"
        noted = path.with_suffix(".rejects")
        try:
            with Rejects(noted) as rejects:
                try:
                    yield Source(path, format="jsonl"), rejects
                finally:
                    job.rejected = len(rejects)
                    job.rejects = _read_rejects(noted, path) if job.rejected else []
        finally:
            noted.unlink(missing_ok=True)


def refusal(error: Exception, service: Service) -> ServiceError:
    """An error of the work as an answer. Paths of this machine are not in it."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if status == 500:
        return ServiceError(500, "the service failed; its log has the details", "failed")
    return ServiceError(status, without_paths(str(error), service), "input" if status == 422 else "index")


def without_paths(message: str, service: Service) -> str:
    """A message without the folders of the databases and of the service's own files."""
    settings = service.settings
    folders = {str(folder) for folder in (service.work_folder,) if folder is not None}
    for database in (settings.database, *(database for database, _ in settings.indexes.values())):
        if database is not None:
            place = local_folder(connect(database, storage_options=settings.storage_options))
            folders |= {str(database), str(place)} if place is not None else set()
    for folder in sorted(folders, key=len, reverse=True):
        message = message.replace(f"{folder}/", "").replace(folder, "the database")
    return message.replace("uploads/", "")


def _names(given: Mapping[str, Any]) -> FieldNames | None:
    return None if given.get("names") is None else FieldNames(**given["names"])


def _within(reason: str, documents: Path) -> str:
    """A reason without the place of the file that it names."""
    return reason.removeprefix(f"{documents}:").replace(str(documents), "the upload")


def _report(report: Any) -> dict[str, Any]:
    return {} if report is None else dataclasses.asdict(report)


def _read_rejects(path: Path, documents: Path) -> list[dict[str, Any]]:
    """The first records that were left out of a file, by line and reason."""
    found = []
    with path.open(encoding="utf-8") as lines:
        for line in islice(lines, REJECTS_SHOWN):
            noted = json.loads(line)
            number = noted["place"].rpartition(":")[2]
            found.append(
                {"line": int(number) if number.isdigit() else None, "reason": _within(noted["reason"], documents)}
            )
    return found

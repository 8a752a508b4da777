"""`Manager`: the jobs, the uploads and the writers of a service."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import filelock

from ....indexer.table.database import connect, local_folder
from ....onnx_export.counts import counted
from ....onnx_export.errors import InputError, TansakuError
from ..errors import ServiceError
from ..service import Service
from .jobs import ENDED, Job, Jobs, Kind
from .uploads import Uploads
from .work import IndexWork, refusal
from .writers import StoppedError, Writers

_FOLDER = ".tansaku-service"  # in the database; LanceDB takes folders *.lance for tables


class Manager:
    """Queues what is to be written, and has it done.

    Args:
        service: Whose indexes are written to.
        log: A structlog logger.
    """

    def __init__(self, service: Service, log: Any) -> None:
        self._service = service
        self._log = log
        self._lock: filelock.BaseFileLock | None = None
        self.jobs: Jobs | None = None
        self.uploads: Uploads | None = None
        self.writers: Writers | None = None

    def start(self) -> None:
        """Take the folder of jobs, and continue those that an earlier run of the service has left.

        Raises:
            InputError: there is no folder for them, or another service uses it.
        """
        settings = self._service.settings
        if not settings.write:
            return
        folder = self._folder()
        self._service.work_folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = filelock.FileLock(folder / "lock", mode=0o600, thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise InputError(
                f"{folder}: another service that writes uses this folder; have one process write, or give each its own "
                "--work-folder"
            ) from None
        self.jobs = Jobs(folder / "jobs", settings.max_jobs)
        self.uploads = Uploads(
            folder / "uploads",
            max_bytes=settings.max_upload_bytes,
            max_total_bytes=settings.max_uploads_bytes,
            max_files=2 * settings.max_jobs,
            max_documents=settings.max_upload_documents,
            idle_seconds=settings.upload_idle_seconds,
        )
        self._work = IndexWork(self._service, folder / "uploads")
        self.writers = Writers(self._do, settings.writers)
        for job in self.jobs.unfinished():
            if "upload" in job.arguments:
                self.uploads.keep(job.arguments["upload"])
            self.writers.put(job)

    def close(self) -> None:
        """Stop the writers. What they have not ended is continued by the next run."""
        if self.writers is not None:
            self.writers.close()
        if self._lock is not None:
            self._lock.release()

    def put(self, kind: Kind, index: str, arguments: dict[str, Any]) -> Job:
        """Queue a job.

        Raises:
            ServiceError: 429, too many jobs have not ended.
        """
        jobs, writers = self.of_writing()
        job = jobs.add(kind, index, arguments)
        writers.put(job)
        return job

    def put_documents(self, kind: Kind, index: str, arguments: dict[str, Any], upload: str, *, is_given: bool) -> Job:
        """Queue a job with an upload.

        Args:
            kind: What it does.
            index: Name of the index.
            arguments: What it is asked to do.
            upload: Id of the upload.
            is_given: Whether a client made the upload, and may use it once more after an error.

        Raises:
            ServiceError: as `put` and `Uploads.take`.
        """
        uploads = self.of_uploads()
        try:
            uploads.take(upload)
        except ServiceError:
            if not is_given:
                uploads.remove(upload)
            raise
        try:
            return self.put(kind, index, {**arguments, "upload": upload, "is_given": is_given})
        except BaseException:
            uploads.give_back(upload)
            if not is_given:
                uploads.remove(upload)
            raise

    def cancel(self, job: Job) -> None:
        """End a job: at once if it waits, otherwise where it next reports its progress."""
        _, writers = self.of_writing()
        if job.state in ENDED:
            raise ServiceError(409, f"the job has ended already; it is {job.state}", "job")
        job.cancelling = True
        if writers.take_back(job):
            self._end(job, "cancelled")

    def of_writing(self) -> tuple[Jobs, Writers]:
        """The jobs and the writers.

        Raises:
            ServiceError: 503, they have not been started yet.
        """
        if self.jobs is None or self.writers is None:
            raise ServiceError(503, "the service is being loaded; try again", "loading")
        return self.jobs, self.writers

    def of_uploads(self) -> Uploads:
        """The uploads.

        Raises:
            ServiceError: 503, they have not been started yet.
        """
        if self.uploads is None:
            raise ServiceError(503, "the service is being loaded; try again", "loading")
        return self.uploads

    def _folder(self) -> Path:
        settings = self._service.settings
        if settings.work_folder is not None:
            return settings.work_folder
        databases = [settings.database, *(database for database, _ in settings.indexes.values())]
        for database in databases:
            if database is not None:
                folder = local_folder(connect(database, create=True, storage_options=settings.storage_options))
                if folder is not None:
                    return folder / _FOLDER
        for searcher in self._service.searchers.values():
            folder = local_folder(searcher.location[0])
            if folder is not None:
                return folder / _FOLDER
        raise InputError("the database is in an object store; give --work-folder, a folder for jobs and uploads")

    def _do(self, job: Job) -> None:
        _, writers = self.of_writing()
        job.state, job.started, job.ended = "running", time.time(), None
        self.of_writing()[0].keep(job)

        def progress(stage: str, done: int, total: int, _tokens: int, /) -> None:
            job.stage, job.done, job.total = stage, done, total
            if writers.stopping or job.cancelling:
                raise StoppedError

        try:
            job.result = self._work.do(job, progress)
            self._refresh(job)
        except StoppedError:
            if job.cancelling:
                self._end(job, "cancelled")
            else:  # the next run of the service continues it
                job.state, job.again = "running", True
                self.of_writing()[0].keep(job)
        except Exception as error:
            self._failed(job, error)
        else:
            self._end(job, "done")

    def _refresh(self, job: Job) -> None:
        """Have searches find what was written. It is committed, so that the job has not failed if they do not yet."""
        if job.index not in self._service.searchers:
            return
        try:
            self._service.refresh(job.index)
        except TansakuError as error:
            self._log.warning("not refreshed", index=job.index, error=type(error).__name__, message=str(error))

    def _failed(self, job: Job, error: Exception) -> None:
        refused = refusal(error, self._service)
        job.status, job.error = refused.status, refused.message
        if job.rejects:
            first = job.rejects[0]
            job.error += (
                f"; {counted(job.rejected, 'document')} left out, the first at line {first['line']}: {first['reason']}"
            )
        if job.again and job.kind == "documents" and job.arguments["mode"] == "add":
            job.error += "; the service ended while this job ran, so these may be its own documents: use upsert"
        if refused.status == 500:
            said = {"message": str(error)} if self._service.settings.log_text else {}
            where = "".join(traceback.format_tb(error.__traceback__))
            self._log.error("job failed", job=job.id, error=type(error).__name__, where=where, **said)
        self._end(job, "failed")

    def _end(self, job: Job, state: Any) -> None:
        job.state, job.ended, job.cancelling = state, time.time(), False
        try:
            self.of_writing()[0].keep(job)  # before its documents go: a job that is not kept is done once more
            if "upload" in job.arguments:
                # A job that failed leaves the upload that it was given for another try.
                again = state == "failed" and job.arguments["is_given"]
                (self.of_uploads().give_back if again else self.of_uploads().remove)(job.arguments["upload"])
        finally:
            if not job.end.done():
                job.end.set_result(None)
        seconds = round(job.ended - (job.started or job.ended), 3)
        self._log.info("job", job=job.id, kind=job.kind, index=job.index, state=state, seconds=seconds)

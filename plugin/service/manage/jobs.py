"""`Job`: one change of an index, from its place in the queue to its result; `Jobs` keeps them on the disk."""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ....onnx_export.files import write_atomically
from ..errors import ServiceError

Kind = Literal["create", "documents", "delete", "optimize", "rebuild", "drop"]
State = Literal["queued", "running", "done", "failed", "cancelled"]

ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
_KEPT = 1_000  # ended jobs
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass
class Job:
    """One change of an index.

    Attributes:
        id: Name of the job.
        kind: What it does.
        index: Name of the index.
        arguments: What it was asked to do.
        state: How far it is.
        created: Seconds since 1970 when it was queued; `started` and `ended` likewise, None before.
        stage: What it does at the moment, with `done` of `total` items; 0 for a total that is not known.
        result: What it wrote, once it is done.
        status: HTTP status of its error; None without one.
        error: Why it failed, and the remedy.
        rejected: Number of documents that were left out.
        rejects: The first of these: line or number, from 1, and reason.
        again: Whether it had begun when the service ended, and begins once more.
        cancelling: Whether it is asked to end.
        end: Done when the job has ended.
    """

    id: str
    kind: Kind
    index: str
    arguments: dict[str, Any]
    state: State = "queued"
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    stage: str = ""
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    status: int | None = None
    error: str | None = None
    rejected: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)
    again: bool = False
    cancelling: bool = field(default=False, metadata={"kept": False})
    end: Future[None] = field(default_factory=Future, repr=False, metadata={"kept": False})

    def content(self) -> dict[str, Any]:
        """The job as it is kept."""
        kept = [item.name for item in dataclasses.fields(self) if item.metadata.get("kept", True)]
        return {name: getattr(self, name) for name in kept}

    def shown(self) -> dict[str, Any]:
        """The job as clients see it: without what it was asked, which may be long."""
        content = self.content()
        del content["arguments"], content["again"]
        content["upload"] = self.arguments.get("upload")
        return content


class Jobs:
    """The jobs of a service, each also in a file, so that they outlive it.

    Args:
        folder: Where the files lie; it is made if it is missing.
        most: Largest number of jobs that have not ended.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = [_read(path) for path in folder.glob("*.json")]
        for job in sorted((job for job in found if job is not None), key=lambda job: job.created):
            self._jobs[job.id] = job

    def unfinished(self) -> list[Job]:
        """The jobs that have not ended, in the order in which they came."""
        return [job for job in list(self._jobs.values()) if job.state not in ENDED]

    def add(self, kind: Kind, index: str, arguments: dict[str, Any]) -> Job:
        """Note a job.

        Raises:
            ServiceError: 429, too many have not ended.
        """
        with self._lock:
            if len(self.unfinished()) >= self._most:
                raise ServiceError(429, f"{self._most:,} jobs have not ended yet; try again when some have", "jobs")
            job = Job(secrets.token_hex(16), kind, index, arguments)
            self._jobs[job.id] = job
        self.keep(job)
        return job

    def find(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            ServiceError: 404, there is none, or it ended long ago.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise ServiceError(404, f"unknown job; GET /jobs lists those of the last {_KEPT:,} that ended", "job")
        return job

    def list(self, index: str | None = None) -> list[Job]:
        """All jobs, or those of an index, the latest first."""
        return [job for job in reversed(list(self._jobs.values())) if index in (None, job.index)]

    def keep(self, job: Job) -> None:
        """Write a job to its file. Of those that have ended, the oldest are forgotten."""
        write_atomically(self._folder / f"{job.id}.json", json.dumps(job.content(), ensure_ascii=False))
        with self._lock:
            ended = [each for each in self._jobs.values() if each.state in ENDED]
            for old in ended[: max(0, len(ended) - _KEPT)]:
                del self._jobs[old.id]
                (self._folder / f"{old.id}.json").unlink(missing_ok=True)


def _read(path: Path) -> Job | None:
    if not _ID.fullmatch(path.stem):
        return None
    try:
        job = Job(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not one of ours, or of a later version
        return None
    job.again = job.state == "running"
    if job.state in ENDED:
        job.end.set_result(None)
    else:
        job.state = "queued"
    return job

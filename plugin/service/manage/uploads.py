"""`Uploads`: files of documents that come in parts, and continue where a broken connection left them."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ServiceError

_ID = re.compile(r"[0-9a-f]{32}")
_SPARE = 256 * 2**20  # bytes of the disk that stay free


class Uploads:
    """Files of documents, one JSON object a line. Each has the id of its upload as its name.

    Args:
        folder: Where they lie; it is made if it is missing.
        max_bytes: Largest size of one.
        max_total_bytes: Largest size of all.
        max_files: Largest number of them.
        max_documents: Largest number of lines of one.
        idle_seconds: Time without a part after which an upload that no job has is removed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_total_bytes: int,
        max_files: int,
        max_documents: int,
        idle_seconds: float,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_total = max_total_bytes
        self._max_files = max_files
        self._max_documents = max_documents
        self._idle = idle_seconds
        self._lock = threading.Lock()
        self._open: set[str] = set()  # those that a part is being written to
        self._taken: set[str] = set()  # those of jobs
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def begin(self) -> str:
        """Make an empty file; returns the id.

        Raises:
            ServiceError: 429, there are too many; 507, the disk is full.
        """
        with self._lock:
            self._forget_idle()
            if len(self._files()) >= self._max_files:
                raise ServiceError(
                    429, f"there are {self._max_files:,} uploads; try again when some have ended", "disk"
                )
            upload = secrets.token_hex(16)
            self._path(upload).touch(mode=0o600)
        return upload

    def size(self, upload: str) -> int:
        """Number of bytes that have come.

        Raises:
            ServiceError: 404, there is no such upload.
        """
        return self._found(upload).stat().st_size

    def part(self, upload: str, offset: int) -> Part:
        """What writes the next part of an upload.

        Args:
            upload: Its id.
            offset: Number of bytes that have come before.

        Raises:
            ServiceError: 404, there is no such upload; 409, another part is being written, it belongs to a job already,
                or another number of bytes has come.
        """
        path = self._found(upload)
        with self._lock:
            if upload in self._open:
                raise ServiceError(409, "another part of this upload is being written; wait for its end", "upload")
            if upload in self._taken:
                raise ServiceError(409, "a job has this upload already; begin another one", "upload")
            size = path.stat().st_size
            if size != offset:
                raise ServiceError(
                    409, f"Upload-Offset is {offset:,}, and {size:,} bytes have come; continue from there", "upload"
                )
            self._open.add(upload)
        return Part(self, upload, path)

    def write_documents(self, documents: Iterable[Any]) -> str:
        """Make an upload of documents at once; returns the id."""
        upload = self.begin()
        try:
            with self.part(upload, 0) as part:
                for document in documents:
                    part.write(json.dumps(document, ensure_ascii=True).encode() + b"\n")
        except BaseException:
            self.remove(upload)
            raise
        return upload

    def take(self, upload: str) -> Path:
        """The file of an upload for a job, which then removes it.

        Raises:
            ServiceError: 404, there is no such upload; 409, it is being written, or another job has it; 413, it has too
                many lines; 422, it is empty.
        """
        path = self._found(upload)
        if _lines(path) > self._max_documents:
            message = f"the upload has more than {self._max_documents:,} documents; send them in several uploads"
            raise ServiceError(413, message, "documents")
        with self._lock:
            if upload in self._open or upload in self._taken:
                raise ServiceError(409, "this upload is being written, or another job has it", "upload")
            if not path.stat().st_size:
                raise ServiceError(422, "the upload is empty; send at least one document", "input")
            self._taken.add(upload)
        return path

    def keep(self, upload: str) -> None:
        """Say that a job of an earlier run of the service has an upload."""
        with self._lock:
            self._taken.add(upload)

    def give_back(self, upload: str) -> None:
        """Say that no job has an upload any more."""
        with self._lock:
            self._taken.discard(upload)

    def path(self, upload: str) -> Path:
        """The file of an upload."""
        return self._path(upload)

    def remove(self, upload: str) -> None:
        """Remove an upload, if there is one.

        Raises:
            ServiceError: 409, it is being written.
        """
        with self._lock:
            if upload in self._open:
                raise ServiceError(409, "this upload is being written; end that first", "upload")
            self._taken.discard(upload)
            self._path(upload).unlink(missing_ok=True)

    def is_taken(self, upload: str) -> bool:
        """Whether a job has an upload."""
        return upload in self._taken

    def check_room(self, size: int, more: int) -> None:
        """Refuse what is too much for an upload, for all, or for the disk.

        Raises:
            ServiceError: 413 or 507.
        """
        if size > self._max_bytes:
            message = f"the upload is longer than {self._max_bytes:,} bytes; send the documents in several uploads"
            raise ServiceError(413, message, "body")
        total = sum(path.stat().st_size for path in self._files())
        if total + more > self._max_total or shutil.disk_usage(self._folder).free - more < _SPARE:
            raise ServiceError(507, "there is no room for this upload; try again when other jobs have ended", "disk")

    def closed(self, upload: str) -> None:
        """Say that a part has been written."""
        with self._lock:
            self._open.discard(upload)

    def _found(self, upload: str) -> Path:
        path = self._path(upload)
        if not path.is_file():
            raise ServiceError(404, "unknown upload; it may have been used, or left too long: begin another", "upload")
        return path

    def _path(self, upload: str) -> Path:
        if not _ID.fullmatch(upload):
            raise ServiceError(404, "unknown upload; POST /uploads begins one", "upload")
        return self._folder / f"{upload}.jsonl"

    def _files(self) -> list[Path]:
        return list(self._folder.glob("*.jsonl"))

    def _forget_idle(self) -> None:
        for path in self._files():
            if path.stem not in self._open | self._taken and time.time() - path.stat().st_mtime > self._idle:
                path.unlink(missing_ok=True)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))


class Part:
    """A part of an upload while it is written; use it as a context manager. At its end it is on the disk.

    Args:
        uploads: Whose limits hold.
        upload: Id of the upload.
        path: Its file.
    """

    _CHECKED = 2**20  # bytes between two looks at the disk

    def __init__(self, uploads: Uploads, upload: str, path: Path) -> None:
        self._uploads = uploads
        self._upload = upload
        self._file = path.open("ab")
        self._unchecked = 0
        self._dirty = False
        self.size = self._file.tell()

    def write(self, data: bytes) -> None:
        """Write some bytes.

        Raises:
            ServiceError: 413, the upload is too long; 507, there is no room.
        """
        self._unchecked += len(data)
        if self._unchecked >= self._CHECKED or self.size == 0:
            self._uploads.check_room(self.size + len(data), self._unchecked)
            self._unchecked = 0
        elif self.size + len(data) > self._uploads._max_bytes:
            self._uploads.check_room(self.size + len(data), 0)
        self._dirty = True
        self._file.write(data)
        self.size += len(data)

    def flush(self) -> None:
        """Have what was written on the disk."""
        if self._dirty:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._dirty = False

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()
            self._uploads.closed(self._upload)

"""A Parquet file that is written in parts, so that an interrupted command continues where it was.

    OUT.parquet.parts/
        plan.json               what the file depends on
        part-00000012.parquet   some rows
        lock                    held by the process that writes

At the end the parts become one file, which appears whole.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from ...onnx_export.errors import InputError
from ...onnx_export.files import atomic_path, write_atomically
from ..errors import BusyError, ResumeError

NOTES_KEY = b"tansaku.part"


class ParquetParts:
    """Use as a context manager. The parts are kept at an error, and removed once the file is there.

    Args:
        path: the file to be written.
        resume: continue what an interrupted call left; False discards it.
        overwrite: replace a file of that name.

    Attributes:
        notes: what `write` was given with each part that is there, in order.

    Raises:
        InputError: the file exists, and ``overwrite`` is false, or its folder does not exist.
    """

    def __init__(self, path: Path, *, resume: bool = True, overwrite: bool = False) -> None:
        if path.is_dir() or not path.parent.is_dir():
            raise InputError(f"{path}: cannot be written there; give the name of a file in a folder that exists")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; choose another name, or replace it with --overwrite")
        self.path = path
        self.folder = path.with_name(f"{path.name}.parts")
        self.notes: list[dict[str, Any]] = []
        self._resume = resume
        self._lock = filelock.FileLock(self.folder / "lock")

    def __enter__(self) -> ParquetParts:
        self.folder.mkdir(exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BusyError(f"{self.folder}: another process writes this file; wait until it ends") from None
        if not self._resume:
            self._discard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        if not any(self.folder.glob("part-*.parquet")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Start the file that ``plan`` describes, or find what is there of it.

        Args:
            plan: everything that the rows depend on, as JSON values.

        Raises:
            ResumeError: what is there was written by another plan.
        """
        content, known = json.dumps(plan, sort_keys=True), self.folder / "plan.json"
        parts = [*self._parts()]
        if parts and known.exists():
            before, now = json.loads(known.read_text(encoding="utf-8")), json.loads(content)
            changed = sorted(key for key in now | before if before.get(key) != now.get(key))
            if changed:
                raise ResumeError(
                    f"the interrupted work in {self.folder} cannot be continued: {', '.join(changed)} changed. Repeat "
                    "the command as it was, or discard the work with --no-resume"
                )
            self.notes = [json.loads((pq.read_schema(part).metadata or {})[NOTES_KEY]) for part in parts]
            return
        self._discard()
        write_atomically(known, content)

    def write(self, rows: pa.Table, notes: Mapping[str, Any]) -> None:
        """Write the next part.

        Args:
            rows: its rows.
            notes: what is kept about them, as JSON values.
        """
        metadata = {**(rows.schema.metadata or {}), NOTES_KEY: json.dumps(notes).encode()}
        with atomic_path(self.folder / f"part-{len(self.notes):08d}.parquet") as making:
            pq.write_table(rows.replace_schema_metadata(metadata), making, compression="zstd")
        self.notes.append(dict(notes))

    def finish(self, schema: pa.Schema) -> None:
        """Make the file of the parts, and remove them.

        Args:
            schema: the schema of the file, with its metadata; the columns of all parts fit it.
        """
        with (
            atomic_path(self.path) as making,
            pq.ParquetWriter(making, schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            for part in self._parts():
                writer.write_table(pq.read_table(part).replace_schema_metadata(schema.metadata).cast(schema))
        self._discard()

    def schemas(self) -> list[pa.Schema]:
        """The schemas of the parts, without their metadata."""
        return [pq.read_schema(part).remove_metadata() for part in self._parts()]

    def _parts(self) -> Iterator[Path]:
        number = 0
        while (part := self.folder / f"part-{number:08d}.parquet").exists():
            yield part
            number += 1

    def _discard(self) -> None:
        self.notes = []
        # The plan is removed last: without parts it is not read.
        for part in [*self.folder.glob("*part-*"), self.folder / "plan.json"]:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()

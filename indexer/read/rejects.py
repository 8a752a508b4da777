"""Collect records that cannot be indexed in a file, each with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StorageError


class Rejects:
    """Collects records that cannot be indexed in a file; use it as a context manager, or call `close`.

    Given to `Index.create`, `Index.add` or `Index.upsert`, it lets them leave out such records. Without it they raise
    an error for the first one.

    The file has one JSON object per line: ``place`` ("data.jsonl:17"), ``reason`` and ``record``. If no record is
    rejected, no file is written. ``len()`` is the number of records in the file.

    Args:
        path: the file; an existing one is replaced. Into a device or a pipe, such as /dev/stderr, records are written.

    Attributes:
        path: the file.

    Raises:
        StorageError: the file cannot be written.

    Example:
        >>> from tansaku import Index, Rejects
        >>> documents = [{"id": "kinkaku", "text": "金閣寺は京都の北山にある寺院。"}, {"id": "empty", "text": ""}]
        >>> with Rejects("rejects.jsonl") as rejects:
        ...     index = Index.create(folder, "temples", documents, rejects=rejects)
        >>> len(index), len(rejects)
        (1, 1)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._places: set[str] = set()  # places noted in the current call
        self._count = 0
        self._file = None
        # A new file has to be a new one: a link that others put there meanwhile would lead to a file of theirs.
        self._mode = "x"
        try:
            if self.path.exists() and not self.path.is_file() and not self.path.is_dir():
                self._mode = "w"
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """Start a new call of indexing: its places may have the same names as those of earlier calls."""
        self._places.clear()

    @property
    def of_call(self) -> int:
        """Number of records noted since `begin`."""
        return len(self._places)

    def note(self, place: str, reason: str, record: Any) -> None:
        """Write a record to the file, unless its place was noted since `begin`.

        Args:
            place: where the record was read ("data.jsonl:17").
            reason: why it cannot be indexed.
            record: the record. A value that JSON cannot represent is written as a string.

        Raises:
            StorageError: the file cannot be written.
        """
        if place in self._places:
            return
        self._places.add(place)
        self._count += 1
        if is_dataclass(record) and not isinstance(record, type):
            record = asdict(record)
        try:
            line = _line(place, reason, record)
        except (TypeError, ValueError, RecursionError):  # keys that JSON cannot represent; a record within itself
            plain = {str(k): str(v) for k, v in record.items()} if isinstance(record, Mapping) else str(record)
            line = _line(place, reason, plain)
        try:
            if self._file is None:
                # Lone surrogates become JSON's escapes for them.
                self._file = self.path.open(self._mode, encoding="utf-8", errors="backslashreplace")
                self._mode = "a"  # after `close`
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unwritable(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path}: the file for rejects cannot be written ({error}); choose another place")


def _line(place: str, reason: str, record: Any) -> str:
    return json.dumps({"place": place, "reason": reason, "record": record}, ensure_ascii=False, default=str)

"""Records that cannot be indexed, left out and written to a file with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StorageError


class Rejects:
    """Takes the records that indexing leaves out; given to `Index.create` and the like, it lets them go on.

    The file has one JSON object a line: ``place`` ("data.jsonl:17"), ``reason`` and ``record``. A file of that name is
    replaced; if nothing is rejected there is none.

    Attributes:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._places: set[str] = set()  # of this call
        self._count = 0
        self._file = None
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self.path}: the file for rejects cannot be written ({error})") from error

    def __len__(self) -> int:
        return self._count

    def begin(self) -> None:
        """What is noted from here on is of another call: a place may be called as one before it."""
        self._places.clear()

    @property
    def of_call(self) -> int:
        """How many records were noted since `begin`."""
        return len(self._places)

    def note(self, place: str, reason: str, record: Any) -> None:
        """Write down one record; noting a place again changes nothing."""
        if place in self._places:
            return
        self._places.add(place)
        self._count += 1
        if is_dataclass(record) and not isinstance(record, type):
            record = asdict(record)
        try:
            line = _line(place, reason, record)
        except (TypeError, ValueError, RecursionError):  # names that JSON has no form for; a record that holds itself
            plain = {str(k): str(v) for k, v in record.items()} if isinstance(record, Mapping) else str(record)
            line = _line(place, reason, plain)
        try:
            if self._file is None:
                # Half characters become the escapes that JSON has for them.
                self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace")
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"{self.path}: the file for rejects cannot be written ({error})") from error

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


def _line(place: str, reason: str, record: Any) -> str:
    return json.dumps({"place": place, "reason": reason, "record": record}, ensure_ascii=False, default=str)

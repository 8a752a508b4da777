"""Read records from JSON files, which need not be lines: an array of records, or records one after the other.

Memory: one record.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any

import ijson

from ..errors import SourceError
from .line_formats import BOM, Record, record_of

_AHEAD = 4096  # bytes in which the first characters that are no white space are looked for


def read_json(file: IO[bytes], name: str, *, arrays: bool = False) -> Iterator[Record]:
    """Read a JSON file: an array of records, or records one after the other, as in JSONL.

    It is such an array if its first item is an object or an array; `["q1", ["p1", 0.5]]` is a record.

    Args:
        file: the file, opened in binary mode.
        name: what places and error messages call the file.
        arrays: whether an array is a record too, see `read_jsonl`.

    Yields:
        Pairs of place ("data.json item 5", from 0) and record.

    Raises:
        SourceError: the file cannot be read, or is not JSON.
    """
    start = file.read(_AHEAD).removeprefix(BOM.encode())
    if not start.strip():
        return
    is_array = b"".join(start.split())[:2] in (b"[{", b"[[", b"[]")
    number = 0
    try:
        for value in ijson.items(_Rest(start, file), "item" if is_array else "", multiple_values=not is_array):
            yield f"{name} item {number}", record_of(_with_floats(value), str(value), arrays=arrays)
            number += 1
    except (ijson.JSONError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(f"{name}: not valid JSON after item {number - 1} ({reason})") from error


class _Rest:
    """A file whose start was read already."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start, self._file = start, file

    def read(self, size: int = -1) -> bytes:
        if size == 0:  # asked for first, to see whether it gives bytes
            return b""
        start, self._start = self._start, b""
        return start or self._file.read(size)


def _with_floats(value: Any) -> Any:
    """A value with floats, as `json` has them, in the place of decimals."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    return {key: _with_floats(item) for key, item in value.items()} if isinstance(value, dict) else value

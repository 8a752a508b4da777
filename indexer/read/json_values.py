"""Read records from JSON files, which need not be lines: an array of records, or records one after the other.

Memory: one record.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
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
    buffered = io.BufferedReader(file, 2 * _AHEAD)  # pyright: ignore[reportArgumentType]
    if buffered.peek(_AHEAD).startswith(BOM.encode()):
        buffered.read(len(BOM.encode()))
    start = b"".join(buffered.peek(_AHEAD)[:_AHEAD].split())[:2]
    number = 0
    try:
        for value in _values(buffered, is_array=start in (b"[{", b"[[", b"[]")):
            yield f"{name} item {number}", record_of(value, str(value), arrays=arrays)
            number += 1
    except (ijson.JSONError, ValueError, OverflowError) as error:
        raise SourceError(f"{name}: not valid JSON after item {number - 1} ({error})") from error


def _values(file: IO[bytes], *, is_array: bool) -> Iterator[Any]:
    if is_array:
        yield from ijson.items(file, "item", use_float=True)
    elif file.peek(1):  # pyright: ignore[reportAttributeAccessIssue]
        yield from ijson.items(file, "", multiple_values=True, use_float=True)

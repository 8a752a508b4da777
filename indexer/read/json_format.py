"""Read records from JSON files, which need not be lines: an array of records, or records one after the other.

The file is read in pieces. Memory: one record.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from ..errors import SourceError
from .line_formats import MAX_LINE, Record, record_of

_BLOCK = 2**20
_NOT_SPACE = re.compile(r"[^ \t\r\n]")
_decoder = json.JSONDecoder()


def read_json(file: IO[bytes], name: str, *, arrays: bool = False) -> Iterator[Record]:
    """Read a JSON file: an array of records, or records one after the other.

    Args:
        file: the file, opened in binary mode.
        name: what places and error messages call the file.
        arrays: whether an array is a record too, see `read_jsonl`.

    Yields:
        Pairs of place and record; the place is the record's first line.

    Raises:
        SourceError: the file cannot be read, or is not JSON.
    """
    for line, value in JsonValues(file, name):
        yield f"{name}:{line}", record_of(value, str(value), arrays=arrays)


class JsonValues:
    """The values in a JSON file, read in pieces: those of the array that the file is, or else one after the other.

    The file is such an array if its first item is an object or an array; `["q1", ["p1", 0.5]]` is a value.

    Args:
        file: the file, opened in binary mode.
        name: its name, for errors.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield the line of each value, and the value.

        Raises:
            SourceError: the file is not JSON, or a value is longer than `MAX_LINE` characters.
        """
        is_array = self._next() == "[" and self._next(1) in ("[", "{", "]")
        self._at += is_array
        while (first := self._next()) and not (is_array and first == "]"):
            yield self._line, self._value()
            self._at += is_array and self._next() == ","
        if is_array:
            if first != "]":
                raise self._error("the array has no end")
            self._at += 1
            if self._next():
                raise self._error("something follows the array")

    def _next(self, after: int = 0) -> str:
        """The next character that is not white space, from ``after`` characters behind the place; "" at the end."""
        while True:
            found = _NOT_SPACE.search(self._text, self._at + after)
            if found:
                if not after:
                    self._line += self._text.count("\n", self._at, found.start())
                    self._at = found.start()
                return found[0]
            if not self._read():
                return ""

    def _value(self) -> Any:
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self._error(str(error)) from error
            except ValueError as error:
                if self._read():
                    continue
                raise self._error(str(error)) from error
            if end == len(self._text) and self._read():  # a number may go on
                continue
            self._line += self._text.count("\n", self._at, end)
            self._at = end
            return value

    def _read(self) -> bool:
        """Read on, as much again as there is; False at the end of the file."""
        if self._ended:
            return False
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > MAX_LINE:
            raise self._error(f"a value longer than {MAX_LINE:,} characters")
        data = self._file.read(max(_BLOCK, len(self._text)))
        try:
            self._text += self._decode(data, not data)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 ({error})") from error
        self._ended = not data
        return True

    def _error(self, problem: str) -> SourceError:
        return SourceError(f"{self._name}:{self._line}: not valid JSON ({problem})")

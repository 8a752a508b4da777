r"""Records in lines of text: JSONL, TSV and CSV, read from a binary file with memory for one record.

The text is UTF-8; a byte order mark at its start is no content. A line is ended by "\n" or "\r\n". Blank lines (JSONL:
nothing but white space; TSV and CSV: nothing at all) are no records; every other line, or CSV record of several lines,
gives one pair of its place and either the record or a BadRecord.
"""

from __future__ import annotations

import codecs
import csv
import json
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from ..errors import SourceError

MAX_LINE = 64 * 2**20  # bytes of one line, or of one CSV record
RAW_LENGTH = 10_000  # characters of a bad record that are kept

_CSV_DEFAULT_LIMIT = 131_072  # the csv module's own, see _CsvLines
_CSV_NO_LIMIT = 2**31 - 1
_csv_limit_lock = threading.Lock()


@dataclass(frozen=True)
class BadRecord:
    r"""A record that cannot be parsed, while those after it can.

    Attributes:
        reason: what is wrong with it.
        raw: its text as read, undecodable bytes as \xNN, cut after `RAW_LENGTH` characters.
    """

    reason: str
    raw: str


Record = tuple[str, dict[str, Any] | BadRecord]


def read_jsonl(file: IO[bytes], name: str) -> Iterator[Record]:
    """The records of a JSONL file; ``name`` is what places and errors call it. Raises SourceError if reading fails."""
    for number, line in _text_lines(file, name):
        if isinstance(line, BadRecord) or line.strip():
            yield f"{name}:{number}", line if isinstance(line, BadRecord) else _parse_json(line)


def read_tsv(file: IO[bytes], name: str) -> Iterator[Record]:
    """The records of a TSV file: a header line, then fields between tabs, in which a quote is a character like others.

    Raises SourceError if reading fails or the header is missing or names a field twice.
    """
    lines = _text_lines(file, name)
    _, first = next(lines, (1, ""))
    if isinstance(first, BadRecord):
        raise SourceError(f"{name}:1: {first.reason}")
    header = _checked_header(first.split("\t"), name)
    for number, line in lines:
        if isinstance(line, BadRecord):
            yield f"{name}:{number}", line
        elif line:
            row = line.split("\t")
            fits = len(row) == len(header)
            record = dict(zip(header, row, strict=True)) if fits else BadRecord(_misfit(row, header), cut(line))
            yield f"{name}:{number}", record


def read_csv(file: IO[bytes], name: str) -> Iterator[Record]:
    """The records of a CSV file: a header, commas, and quotes as in RFC 4180; a record's place is its first line.

    Raises SourceError if reading fails, if the header is missing or names a field twice, and for quotes that are broken
    over several lines: where the next record begins can then not be told. Within one line they make a BadRecord.
    """
    lines = _CsvLines(file, name)
    header: list[str] | None = None
    for row in lines.rows():
        place = f"{name}:{lines.first}"
        if header is None:
            if isinstance(row, BadRecord):
                raise SourceError(f"{place}: {row.reason}")
            header = _checked_header(row, name)
        elif isinstance(row, BadRecord):
            yield place, row
        elif len(row) == len(header):
            yield place, dict(zip(header, row, strict=True))
        elif row:
            several = f" (lines {lines.first} to {lines.last})" if lines.last > lines.first else ""
            yield place, BadRecord(_misfit(row, header) + several, lines.raw())
    if header is None:
        _checked_header([], name)


def cut(text: str) -> str:
    """``text``, or its first `RAW_LENGTH` characters and a note that more was there."""
    return text if len(text) <= RAW_LENGTH else f"{text[:RAW_LENGTH]}… (cut here)"


def check_unique(names: list[str], place: str) -> None:
    """Raise SourceError, naming the field, if one of ``names`` occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SourceError(f"{place}: the field {name!r} occurs twice in the header")
        seen.add(name)


def _parse_json(line: str) -> dict[str, Any] | BadRecord:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRecord(f"not valid JSON ({error})", cut(line))
    if not isinstance(record, dict):
        return BadRecord(f"expected a JSON object, not {type(record).__name__}", cut(line))
    return record


def _checked_header(header: list[str], name: str) -> list[str]:
    if not any(field.strip() for field in header):
        raise SourceError(f"{name}:1: expected a header line with the field names")
    check_unique(header, f"{name}:1")
    return header


def _misfit(row: list[str], header: list[str]) -> str:
    return f"{len(row)} fields, but the header has {len(header)}"


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[int, bytes, bool]]:
    """Number and bytes of each line with its end, and whether it is whole: of too long a line comes the start only."""
    number = 0
    try:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            is_whole = len(line) <= MAX_LINE or line.endswith(b"\n")
            yield number, line, is_whole
            while not is_whole:
                rest = file.readline(2**20)
                is_whole = not rest or rest.endswith(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        where = f" after line {number}" if number else ""
        raise SourceError(f"{name}: cannot be read ({error}){where}") from error


def _text_lines(file: IO[bytes], name: str) -> Iterator[tuple[int, str | BadRecord]]:
    """Number and text of each line, its end left off. Decoded line by line: a bad byte spoils no other line."""
    for number, data, is_whole in _lines(file, name):
        if not is_whole:
            yield number, BadRecord(f"a line longer than {MAX_LINE:,} bytes", _raw(data))
            continue
        try:
            yield number, _without_end(data).decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, BadRecord(f"not UTF-8 ({error})", _raw(data))


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _raw(data: bytes) -> str:
    # No character has more than 4 bytes: enough to fill the text that is kept, without decoding 64 MiB for it.
    return cut(_without_end(data)[: 4 * RAW_LENGTH + 4].decode("utf-8", "backslashreplace"))


class _CsvLines:
    """Feeds a csv.reader with lines and knows which of them the current record was made of.

    The csv module refuses long fields by a limit that holds for the whole process. It is raised only while a record
    that may need it is parsed, by one reader at a time.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.first = self.last = 0  # line numbers of the current record
        self._lines = _lines(file, name)
        self._name = name
        self._start = b""
        self._size = self._length = 0  # of the current record, in bytes and characters
        self._reason = ""
        self._limit: int | None = None  # the process's, while it is raised

    def rows(self) -> Iterator[list[str] | BadRecord]:
        """Yield one row per record; an empty one for a blank line."""
        reader = csv.reader(self, strict=True)
        while (row := self._next_row(reader)) is not None:
            yield row

    def _next_row(self, reader: Iterator[list[str]]) -> list[str] | BadRecord | None:
        self.first, self._size, self._length, self._reason = 0, 0, 0, ""
        try:
            row = next(reader, None)
        except csv.Error as error:
            if self.last > self.first:
                raise SourceError(
                    f"{self._name}:{self.first}: not valid CSV up to line {self.last} ({error}); "
                    "a quote that is opened here is not closed, or something follows the closing one"
                ) from error
            return BadRecord(f"not valid CSV ({error})", self.raw())
        finally:
            self._restore_limit()
        return BadRecord(self._reason, self.raw()) if self._reason else row

    def raw(self) -> str:
        """The text of the current record."""
        return _raw(self._start)

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self.last, data, is_whole = next(self._lines)
        if not self.first:
            self.first, self._start = self.last, b""
        self._size += len(data)
        if not is_whole or self._size > MAX_LINE:
            raise SourceError(
                f"{self._name}:{self.first}: a record longer than {MAX_LINE:,} bytes; is a quote in it not closed?"
            )
        if len(self._start) <= 4 * RAW_LENGTH:
            self._start += data
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            # The bytes that are no quote, comma or line end become others that are none: the record's end is kept.
            self._reason = self._reason or f"not UTF-8 ({error})"
            text = data.decode("utf-8", "backslashreplace")
        self._length += len(text)
        if self._limit is None and self._length > min(csv.field_size_limit(), _CSV_DEFAULT_LIMIT):
            _csv_limit_lock.acquire()
            self._limit = csv.field_size_limit(_CSV_NO_LIMIT)
        return text

    def _restore_limit(self) -> None:
        if self._limit is not None:
            csv.field_size_limit(self._limit)
            self._limit = None
            _csv_limit_lock.release()

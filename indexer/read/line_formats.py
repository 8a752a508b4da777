r"""Read records from lines of text: JSONL, TSV and CSV. Memory: one record.

The text is UTF-8 (`encodings` makes it so). A byte order mark at the start of a line is ignored: files that were joined
have it there. Null characters of CSV and TSV are left out, which is said. A line ends with "\n" or "\r\n".
Blank lines are ignored (JSONL: only white space; TSV and CSV: empty), and rows of empty fields, which is said.
Each other line, or CSV record of several lines, yields a pair of its place and the record, or a BadRecord if it cannot
be parsed.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from ...onnx_export.counts import counted
from ..errors import SourceError
from .cells import CellRecord
from .names import field_name
from .typed_text import TextRecord

MAX_LINE = 64 * 2**20  # largest number of bytes of a line, or of a CSV record
MAX_BLANK = 64 * 2**20  # largest number of bytes of blank lines in a row: a small gzip file can hold gigabytes of them
RAW_LENGTH = 10_000  # number of characters of a bad record that are kept

OTHER_HEADER = (
    "; if a title stands above the names of the fields, give the row with the names: --header-row, in Python "
    "Source(header_row=...)"
)

BOM = "\ufeff"
ITEMS = "items"  # field of a record that is a JSON array

NOT_ISO_2022_JP = "this is ISO-2022-JP, not UTF-8; say so (--encoding iso-2022-jp, in Python Source(encoding=...))"
# Stands, in text that was recoded to UTF-8, for bytes that its encoding does not have. UTF-8 never has such bytes.
BAD_BYTES = b"\xfe\xfe"
# How ISO-2022-JP begins a stretch of Japanese: JIS X 0208 of 1978 and 1983, JIS X 0212, JIS X 0213, half-width kana.
_JAPANESE_IN_ASCII = re.compile(rb"\x1b(?:\$[@B]|\$\([DOPQ]|\(I)")

_WHITE_SPACE, _LINE_ENDS = b" \t\n\r\x0b\x0c", b"\r\n"  # of which blank lines consist: in JSONL; in TSV and CSV
_IDEOGRAPHIC_SPACE = "\u3000".encode()
_BLOCK = 2**20

_CSV_DEFAULT_LIMIT = 131_072  # default of the csv module, see _CsvLines
_CSV_NO_LIMIT = 2**31 - 1
_csv_limit_lock = threading.Lock()


@dataclass(frozen=True)
class BadRecord:
    r"""A record that cannot be parsed, although those after it can.

    Attributes:
        reason: why it cannot be parsed.
        raw: its text, with bytes that cannot be decoded as \xNN, cut after 10,000 characters.
    """

    reason: str
    raw: str


Record = tuple[str, dict[str, Any] | BadRecord]


class Header:
    """The names of the columns of a table of text, and the records that its rows are.

    A first column without a name is left out: it holds the row numbers that pandas writes. Other columns without a name
    must be empty.

    Args:
        names: the cells of the header row.
        place: where it was read.
        say: called with a sentence if a column is left out.
        counted_by: what has that number of cells, for errors.

    Raises:
        SourceError: the header is missing or has a field twice.
    """

    def __init__(
        self,
        names: Sequence[str],
        place: str,
        say: Callable[[str], None] = lambda text: None,
        counted_by: str = "header",
    ) -> None:
        if not any(name.strip() for name in names):
            raise SourceError(f"{place}: expected a header line with the field names")
        self._counted_by = counted_by
        self._say = say
        self._empty, self._first_empty = 0, ""
        self._names = [field_name(name) for name in names]
        check_unique([name for name in self._names if name], place)
        if not self._names[0]:
            say(f"{place}: the first column has no name; it is left out")

    def skips(self, row: Sequence[Any], place: str) -> bool:
        """Whether a row has no value: spreadsheets write rows of commas. Such rows are counted, see `end`.

        Args:
            row: its cells.
            place: where it is.
        """
        if any(cell not in ("", None) for cell in row):
            return False
        self._empty += 1
        self._first_empty = self._first_empty or place
        return True

    def end(self) -> None:
        """Say how many rows were skipped."""
        if self._empty:
            self._say(
                f"left out {counted(self._empty, 'row')} without any value, the first of them {self._first_empty}"
            )

    def record(
        self, row: Sequence[Any], raw: str, *, where: str = "", typed: bool = False
    ) -> dict[str, Any] | BadRecord:
        """A row as a record.

        Args:
            row: its cells.
            raw: its text, for a BadRecord.
            where: the lines of the row, for a BadRecord.
            typed: the cells have types; otherwise they are text because the file has nothing else.
        """
        names = self._names
        if len(row) < len(names) or any(cell not in ("", None) for cell in row[len(names) :]):
            hint = OTHER_HEADER if sum(map(bool, names)) == 1 else ""
            return BadRecord(f"{len(row)} fields, but the {self._counted_by} has {len(names)}{where}{hint}", raw)
        record: dict[str, Any] = CellRecord() if typed else TextRecord()
        for column, (name, cell) in enumerate(zip(names, row, strict=False)):
            if name:
                record[name] = cell
            elif column and cell not in ("", None):
                reason = f"column {column + 1} has the value {cell!r} but no name in the header{where}"
                return BadRecord(reason + OTHER_HEADER, raw)
        return record


def read_jsonl(file: IO[bytes], name: str, *, arrays: bool = False) -> Iterator[Record]:
    """Read a JSONL file.

    Args:
        file: the file, opened in binary mode.
        name: what places and error messages call the file.
        arrays: whether an array is a record too: one with the field `ITEMS`, which holds its items.

    Yields:
        Pairs of place and record.

    Raises:
        SourceError: the file cannot be read.
    """
    for number, line in _text_lines(file, name, _WHITE_SPACE):
        if isinstance(line, BadRecord) or line.strip():
            yield f"{name}:{number}", line if isinstance(line, BadRecord) else _parse_json(line, arrays)


def read_tsv(
    file: IO[bytes],
    name: str,
    say: Callable[[str], None] = lambda text: None,
    *,
    fields: Sequence[str] | None = None,
    header_row: int = 1,
) -> Iterator[Record]:
    """Read a TSV file: a header line, then fields between tabs. Quotes have no special meaning.

    Args:
        file: the file, opened in binary mode.
        name: what places and error messages call the file.
        say: called with a sentence if a column or a row is left out, see `Header`.
        fields: names of the fields of a file that has no header.
        header_row: number of the line with the header, from 1.

    Yields:
        Pairs of place and record, which is a `TextRecord`.

    Raises:
        SourceError: the file cannot be read, or the header is missing or has a field twice.
    """
    lines = _text_lines(file, name, _LINE_ENDS)
    counted_by = "header" if fields is None else "first line"
    if fields is None:
        first = next((line for number, line in lines if number >= header_row), "")
        if isinstance(first, BadRecord):
            raise SourceError(f"{name}:{header_row}: {first.reason}")
        fields = first.split("\t")
    header = Header(fields, f"{name}:{header_row}", say, counted_by)
    for number, line in lines:
        place = f"{name}:{number}"
        if isinstance(line, BadRecord):
            yield place, line
        elif line:
            line = without_nulls(line, name, say)
            row = line.split("\t")
            if not header.skips(row, place):
                yield place, header.record(row, cut(line))
    header.end()


def read_lines(file: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line, for files that have no records in the sense of the other functions.

    Args:
        file: the file, opened in binary mode.
        name: what error messages call the file.

    Yields:
        Pairs of number and text, without the line's end.

    Raises:
        SourceError: the file cannot be read, or a line is not UTF-8.
    """
    for number, line in _text_lines(file, name, _LINE_ENDS):
        if isinstance(line, BadRecord):
            raise SourceError(f"{name}:{number}: {line.reason}")
        yield number, line


def read_csv(
    file: IO[bytes], name: str, say: Callable[[str], None] = lambda text: None, *, header_row: int = 1
) -> Iterator[Record]:
    """Read a CSV file: a header, then fields between commas, with quotes as in RFC 4180.

    Args:
        file: the file, opened in binary mode.
        name: what places and error messages call the file.
        say: called with a sentence if a column or a row is left out, see `Header`.
        header_row: number of the line with the header, from 1.

    Yields:
        Pairs of place and record, which is a `TextRecord`; the place is the record's first line. A line with wrong
        quotes is a BadRecord.

    Raises:
        SourceError: the file cannot be read; the header is missing or has a field twice; or a record of several lines
            has wrong quotes, so that it is unknown where the next record begins.
    """
    lines = _CsvLines(file, name, say)
    header: Header | None = None
    for row in lines.rows():
        place = f"{name}:{lines.first}"
        if header is None and lines.first < header_row:
            continue
        if isinstance(row, BadRecord):
            if header is None:
                raise SourceError(f"{place}: {row.reason}")
            yield place, row
        elif header is None:
            header = Header(row, f"{name}:{header_row}", say)
        elif row and not header.skips(row, place):
            several = f" (lines {lines.first} to {lines.last})" if lines.last > lines.first else ""
            yield place, header.record(row, lines.raw(), where=several)
    if header is None:
        header = Header([], f"{name}:{header_row}")
    header.end()


def is_iso_2022_jp(data: bytes) -> bool:
    """Whether text in ISO-2022-JP is among ``data``. It is ASCII, and so UTF-8, but its characters are others."""
    return b"\x1b" in data and _JAPANESE_IN_ASCII.search(data) is not None


def record_of(value: Any, text: str, *, arrays: bool) -> dict[str, Any] | BadRecord:
    """A JSON value as a record.

    Args:
        value: the value.
        text: its text, for a BadRecord.
        arrays: whether an array is a record, see `read_jsonl`.
    """
    if arrays and isinstance(value, list):
        return {ITEMS: value}
    if not isinstance(value, dict):
        return BadRecord(f"expected a JSON object, not {type(value).__name__}", cut(text))
    return value


def not_readable(error: UnicodeDecodeError) -> str:
    """Why bytes are no text, and what to do."""
    if error.object.startswith(BAD_BYTES, error.start):
        return "bytes that the encoding of the file does not have; name the right one (--encoding), or correct the line"
    return f"not UTF-8 ({error}); name the encoding (--encoding), or correct the line"


def without_nulls(text: str, name: str, say: Callable[[str], None]) -> str:
    """A text without null characters.

    Args:
        text: the text.
        name: what the message calls its file.
        say: called with a sentence if there is one.
    """
    if "\0" not in text:
        return text
    say(f"{name}: null characters are left out; if there are many, the file has another encoding (--encoding)")
    return text.replace("\0", "")


def cut(text: str) -> str:
    """Cut a text after `RAW_LENGTH` characters, and append a note if it was longer."""
    return text if len(text) <= RAW_LENGTH else f"{text[:RAW_LENGTH]}… (cut here)"


def check_unique(names: list[str], place: str) -> None:
    """Check the field names of a header.

    Args:
        names: the field names.
        place: what the message calls the header.

    Raises:
        SourceError: a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SourceError(f"{place}: the field {name!r} occurs twice in the header")
        seen.add(name)


def _parse_json(line: str, arrays: bool) -> dict[str, Any] | BadRecord:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRecord(f"not valid JSON ({error})", cut(line))
    return record_of(value, line, arrays=arrays)


def _lines(
    file: IO[bytes], name: str, blank: bytes, may_skip: Callable[[], bool] = lambda: True
) -> Iterator[tuple[int, bytes, bool]]:
    """Number and bytes of each line with its end, and whether it is whole: of a line that is too long, the start.

    Of several blank lines in a row only the first is yielded; the others are skipped by blocks.

    Args:
        file: the file.
        name: its name, for errors.
        blank: the bytes that a blank line may consist of.
        may_skip: says, after a blank line, whether it means nothing.
    """
    number, n_blank = 0, 0
    try:
        while line := file.readline(MAX_LINE + 1):
            number += 1
            line = line.removeprefix(codecs.BOM_UTF8)
            is_whole = len(line) <= MAX_LINE or line.endswith(b"\n")
            yield number, line, is_whole
            while not is_whole:
                rest = file.readline(2**20)
                is_whole = not rest or rest.endswith(b"\n")
            if line.replace(_IDEOGRAPHIC_SPACE, b"").strip() or not may_skip():
                n_blank = 0
                continue
            n_blank += len(line)
            while ahead := _blank_ahead(file, blank):
                number += ahead.count(b"\n")
                n_blank += len(ahead)
                if n_blank > MAX_BLANK:
                    break
            if n_blank > MAX_BLANK:
                raise SourceError(
                    f"{name}: more than {MAX_BLANK:,} bytes of blank lines in a row, up to line {number}; remove them"
                )
    except (OSError, EOFError, zlib.error) as error:
        where = f" after line {number}" if number else ""
        raise SourceError(f"{name}: cannot be read ({error}){where}") from error


def _blank_ahead(file: IO[bytes], blank: bytes) -> bytes:
    """Take blank lines from the buffer of a file; empty if none is at its start."""
    peek = getattr(file, "peek", None)
    ahead: bytes = b"" if peek is None else peek(_BLOCK)
    end = ahead.rfind(b"\n", 0, len(ahead) - len(ahead.lstrip(blank))) + 1
    if blank == _LINE_ENDS and b"\r\r" in ahead[:end]:  # a line with a "\r" in it is not empty
        return b""
    return file.read(end) if end else b""


def _text_lines(file: IO[bytes], name: str, blank: bytes) -> Iterator[tuple[int, str | BadRecord]]:
    """Number and text of each line without its end. Lines are decoded one by one: a bad byte affects only its line."""
    for number, data, is_whole in _lines(file, name, blank):
        if not is_whole:
            yield number, BadRecord(f"a line longer than {MAX_LINE:,} bytes", _raw(data))
            continue
        if is_iso_2022_jp(data):
            yield number, BadRecord(NOT_ISO_2022_JP, _raw(data))
            continue
        try:
            yield number, _without_end(data).decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, BadRecord(not_readable(error), _raw(data))


def _without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _raw(data: bytes) -> str:
    # A character has at most 4 bytes: this is enough for the text that is kept, without decoding 64 MiB.
    return cut(_without_end(data)[: 4 * RAW_LENGTH + 4].decode("utf-8", "backslashreplace"))


class _CsvLines:
    """Feeds lines to a csv.reader and records which lines the current record consists of.

    The csv module has a limit for the length of fields that applies to the whole process. It is raised only while a
    long record is parsed, by one reader at a time.
    """

    def __init__(self, file: IO[bytes], name: str, say: Callable[[str], None]) -> None:
        self.first = self.last = 0  # line numbers of the current record
        self._say = say
        self._lines = _lines(file, name, _LINE_ENDS, lambda: not self.first)
        self._name = name
        self._start = b""
        self._size = self._length = 0  # size of the current record, in bytes and characters
        self._reason = ""
        self._limit: int | None = None  # the limit of the process, while it is raised

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
                    "a quote that is opened here is not closed, or text follows the closing quote"
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
        if is_iso_2022_jp(data):  # its characters have bytes that are quotes, so the end of the record is not known
            raise SourceError(f"{self._name}:{self.last}: {NOT_ISO_2022_JP}")
        if len(self._start) <= 4 * RAW_LENGTH:
            self._start += data
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            # Escapes contain no quotes, commas or line ends, so the end of the record is still found.
            self._reason = self._reason or not_readable(error)
            text = data.decode("utf-8", "backslashreplace")
        text = without_nulls(text, self._name, self._say)  # the csv module of Python 3.10 refuses them
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

"""Read records from files of lines, Arrow files, spreadsheets, text files, folders of these, and standard input."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
import tempfile
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ...onnx_export.errors import InputError
from ..errors import SourceError
from .arrow_formats import read_ipc, read_lance, read_parquet, schema_metadata
from .encodings import as_utf8, check_encoding, find_encoding
from .find_files import SourceFile, find_files, left_out_of
from .json_values import read_json
from .line_formats import BadRecord, Record, read_csv, read_jsonl, read_lines, read_tsv
from .packed import MAX_UNPACK_RATIO, bytes_taken, check_zip, open_unpacked
from .spreadsheets import read_sheet, sheet_names
from .text_files import read_text

__all__ = ["BadRecord", "Record", "Source"]

_logger = logging.getLogger(__name__)

_STDIN = ("jsonl", "csv", "tsv", "json")
_TEXTS = ("jsonl", "csv", "tsv", "json", "text")  # kinds of files that are read from their start to their end
_COLUMNS = {"arrow": read_ipc, "lance": read_lance}
_FORMATS = ("jsonl", "csv", "tsv", "json", "text", "parquet", "arrow", "excel")
# Standard input is kept in the folder for temporary files, which often shares its disk or lies in memory.
MAX_STDIN_BYTES = 4 * 2**30
_BLOCK = 2**20

_seeking = threading.Lock()

_CANNOT_READ = (OSError, EOFError, UnicodeError, zlib.error, pa.ArrowException)


class Source:
    """Records of files, for `Index.create`, `Index.add` and `Index.upsert`. May be read several times.

    Iterating yields pairs in order: the record's place ("data.jsonl:17", "data.parquet row 5") and the record, a dict.
    A record that cannot be parsed is a `BadRecord`, if those after it can be parsed. Each row with a value,
    and each line that is not blank, yields exactly one pair.

    What was guessed, and what was left out, is logged as a warning: the encoding of a file that is not UTF-8, files of
    a folder that are not data, sheets after the first, rows without any value.

    Args:
        path: one of these, or a list of them:
            - a file: JSONL, JSON (an array of objects), CSV, TSV, plain text or Markdown, each also compressed by gzip
              or Zstandard; Parquet; Arrow IPC; a spreadsheet (.xlsx, .xls, .xlsb, .ods; needs the extra ``excel``);
            - a pattern such as "data/*.csv", if there is no file of that name;
            - a Lance dataset: a folder NAME.lance;
            - a folder that `datasets.Dataset.save_to_disk` wrote;
            - another folder: its data files, and those in folders below it, are read in the order of their names.
              Names that begin with a period are ignored. Text files are read if there are no other data files; each is
              one record, with its path in the folder as ``id``, its name as ``title`` and its content as ``text``.
              Those without text are left out;
            - "-": standard input. It is kept in a temporary file, because indexing reads it several times.
        format: ``"jsonl"``, ``"json"``, ``"csv"``, ``"tsv"``, ``"text"``, ``"parquet"``, ``"arrow"`` or ``"excel"``;
            None finds the format by the file's suffix. For standard input, one of the first four; None means
            ``"jsonl"``. For a folder, None.
        encoding: encoding of text, such as "cp932" or "utf-16". None: UTF-8, or UTF-16 with a byte order mark; a text
            that is not UTF-8 but Shift_JIS (CP932), EUC-JP, ISO-2022-JP or UTF-16 is recognized.
        sheet: name of the sheet of a spreadsheet; None takes the first.
        header_row: number of the row of a spreadsheet, or of the line of a CSV or TSV file, that has the names of the
            fields, from 1; those above it are left out. None: the first.
        fields: names of the fields of a TSV file that has no header.
        arrays: whether a JSON array is a record too; its field `items` then holds what is in it.
        max_stdin_bytes: largest number of bytes taken from standard input, 1 or more.
        max_unpack_ratio: how many times its size a compressed file, a Parquet file or a spreadsheet may unpack to, 1 or
            more; up to 256 MiB it always may.

    Attributes:
        paths: the paths.
        path: the first of them.

    Raises:
        SourceError: no data can be read from a path; or a folder has files that look like data but cannot be read.
            While iterating: the rest of a file cannot be read or unpacks to too much, or standard input is longer than
            ``max_stdin_bytes``.
        InputError: ``max_stdin_bytes``, ``max_unpack_ratio`` or ``header_row`` is less than 1, ``header_row`` is given
            for files without a header, or ``encoding`` is unknown.
        MissingExtraError: a spreadsheet needs the extra ``excel``.

    Example:
        >>> from pathlib import Path
        >>> from tansaku import Source
        >>> path = Path("temples.jsonl")
        >>> _ = path.write_text('{"id": "kinkaku", "text": "金閣寺は京都の北山にある寺院。"}', encoding="utf-8")
        >>> [record["id"] for place, record in Source(path)]
        ['kinkaku']
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        format: str | None = None,  # noqa: A002
        encoding: str | None = None,
        sheet: str | None = None,
        header_row: int | None = None,
        fields: Sequence[str] | None = None,
        arrays: bool = False,
        max_stdin_bytes: int = MAX_STDIN_BYTES,
        max_unpack_ratio: float = MAX_UNPACK_RATIO,
    ) -> None:
        if format is not None and format not in _FORMATS:
            raise SourceError(f"unknown format {format!r}; expected one of {', '.join(_FORMATS)}")
        if max_stdin_bytes < 1:
            raise InputError(f"max_stdin_bytes is {max_stdin_bytes}; it must be 1 or more")
        given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
        if not given or not all(str(each) for each in given):
            raise SourceError("the path is empty; give a file or a folder")  # to pathlib "" is "."
        self.paths = tuple(Path(each) for each in given)
        self.path = self.paths[0]
        self._encoding = None if encoding is None else check_encoding(encoding)
        self._found: dict[Path, str] = {}  # the encoding of each file
        self._sheet, self._fields, self._arrays, self._header_row = sheet, fields, arrays, header_row
        self._said: set[str] = set()
        self._bytes = 0  # of all files; 0 if they are not of `_TEXTS`
        self._bytes_done = 0  # of the files that are read
        self._open: IO[bytes] | None = None  # the file that is being read
        if not 1 <= max_unpack_ratio < math.inf:
            raise InputError(f"max_unpack_ratio is {max_unpack_ratio}; it must be 1 or more")
        self._max_stdin_bytes = max_stdin_bytes
        self._max_unpack_ratio = max_unpack_ratio
        self._spool: IO[bytes] | None = None
        self._files: list[SourceFile] | None = None  # None: standard input
        self._format = format or "jsonl"
        if "-" in map(str, given):
            if len(given) > 1:
                raise SourceError("stdin ('-') cannot be read beside files; give one of them")
            if self._format not in _STDIN:
                raise SourceError(f"stdin: cannot be read as {format}; expected {', '.join(_STDIN)}")
        else:
            self._files = [file for each in self.paths for file in find_files(each, format, self._say)]
        if header_row is not None and (header_row < 1 or not self.is_untyped):
            raise InputError(
                f"header_row is {header_row}; it must be 1 or more, and is for CSV, TSV and spreadsheets only"
            )

    @property
    def is_untyped(self) -> bool:
        """Whether only all values of a column give its type: in CSV and TSV they are texts, spreadsheets mix them."""
        kinds = [self._format] if self._files is None else [file.kind for file in self._files]
        return any(kind in ("csv", "tsv", "excel") for kind in kinds)

    @property
    def bytes_read(self) -> tuple[int, int]:
        """Bytes of the files that the latest iteration has read, and those of all files.

        Both are 0 before the first iteration, and if a file is no text, which is read in another order.
        """
        now = 0 if self._open is None else bytes_taken(self._open)
        return min(self._bytes_done + now, self._bytes), self._bytes

    def metadata(self) -> Iterator[tuple[Path, Mapping[bytes, bytes]]]:
        """Each Parquet and Arrow file, and the metadata of its schema.

        Raises:
            SourceError: a file cannot be read.
        """
        for file in self._files or ():
            try:
                found = schema_metadata(file.path, file.kind)
            except _CANNOT_READ as error:
                raise SourceError(f"{file.path}: cannot be read ({error})") from error
            yield file.path, found

    def __iter__(self) -> Iterator[Record]:
        """Yield pairs of place and record in order.

        Raises:
            SourceError: the rest of a file cannot be read.
        """
        return self.with_matrices(None)

    def with_matrices(self, field: str | None) -> Iterator[Record]:
        """The same pairs, with a column of token vectors as arrays where a file has columns.

        Args:
            field: name of the column; None: no such column.

        Raises:
            SourceError: the rest of a file cannot be read.
        """
        self._bytes, self._bytes_done, self._open = self._size(), 0, None
        if self._files is None:
            yield from self._records(SourceFile(self._format, Path("stdin")), self._open_stdin)
            return
        blank: dict[Path, list[Path]] = {}
        for file in self._files:
            try:
                if file.kind == "parquet":
                    yield from read_parquet(file.path, self._max_unpack_ratio, field)
                elif file.kind in _COLUMNS:
                    yield from _COLUMNS[file.kind](file.path, field)
                elif file.kind == "excel":
                    check_zip(file.path, self._max_unpack_ratio)
                    sheet = self._sheet_of(file.path)
                    yield from read_sheet(file.path, sheet, self._say, header_row=self._header_row)
                else:
                    open_file = partial(open_unpacked, file.path, self._max_unpack_ratio)
                    for place, record in self._records(file, open_file):
                        if file.found_in is not None and _is_blank_text(file, record):
                            blank.setdefault(file.found_in, []).append(file.path)
                        else:
                            yield place, record
            except _CANNOT_READ as error:
                raise SourceError(f"{file.path}: cannot be read ({error})") from error
        for found_in, paths in blank.items():
            self._say(left_out_of(found_in, paths, "text"))

    def _records(self, file: SourceFile, open_file: Callable[[], IO[bytes]]) -> Iterator[Record]:
        """The records of a text."""
        name = str(file.path)
        if file.path not in self._found:
            self._found[file.path] = self._encoding or self._guess(name, open_file)
        opened = open_file()
        with as_utf8(opened, self._found[file.path]) as text, self._counted(opened):
            if file.kind == "jsonl":
                yield from read_jsonl(text, name, arrays=self._arrays)
            elif file.kind == "json":
                yield from read_json(text, name, arrays=self._arrays)
            elif file.kind == "csv":
                yield from read_csv(text, name, self._say, header_row=self._header_row or 1)
            elif file.kind == "tsv":
                yield from read_tsv(text, name, self._say, fields=self._fields, header_row=self._header_row or 1)
            else:
                yield from read_text(text, name, file.doc_id, self._say)

    def _size(self) -> int:
        """Bytes of all files; 0 if one is no text, or cannot be found, which reading it will say."""
        if self._files is None or not all(file.kind in _TEXTS for file in self._files):
            return 0
        try:
            return sum(file.path.stat().st_size for file in self._files)
        except OSError:
            return 0

    @contextlib.contextmanager
    def _counted(self, opened: IO[bytes]) -> Iterator[None]:
        """Count the bytes of a file while it is read."""
        self._open = opened
        try:
            yield
            self._bytes_done += bytes_taken(opened)
        finally:
            self._open = None

    def _guess(self, name: str, open_file: Callable[[], IO[bytes]]) -> str:
        try:
            with open_file() as file:
                found = find_encoding(file)
        except _CANNOT_READ:  # reading it will say why, and after which line
            return "utf-8"
        if found not in ("utf-8", "utf-16"):
            self._say(f"{name}: read as {found}, by its first lines; encoding= or --encoding sets the encoding")
        return found

    def _sheet_of(self, path: Path) -> str:
        names = sheet_names(path)
        if self._sheet is None:
            if len(names) > 1:
                self._say(
                    f"{path}: only the sheet {names[0]!r} is read, and not {', '.join(map(repr, names[1:]))}; sheet= "
                    "or --sheet chooses one"
                )
            return names[0]
        if self._sheet not in names:
            raise SourceError(f"{path}: no sheet {self._sheet!r}; choose one: {', '.join(map(repr, names))}")
        return self._sheet

    def _say(self, text: str) -> None:
        """Log a warning, once."""
        if text not in self._said:
            self._said.add(text)
            _logger.warning("%s", text)

    def _open_stdin(self) -> IO[bytes]:
        if self._spool is None:
            spool = tempfile.TemporaryFile()  # noqa: SIM115  it has no name, and is removed when closed
            try:
                self._copy_stdin(spool)
                spool.flush()
            except BaseException as error:
                spool.close()
                if isinstance(error, OSError):
                    raise SourceError(f"stdin: cannot be read or kept in {tempfile.gettempdir()} ({error})") from error
                raise
            weakref.finalize(self, spool.close)
            self._spool = spool
        self._bytes = os.fstat(self._spool.fileno()).st_size
        return io.BufferedReader(_View(self._spool.fileno()))

    def _copy_stdin(self, spool: IO[bytes]) -> None:
        size = 0
        while block := sys.stdin.buffer.read(_BLOCK):
            size += len(block)
            if size > self._max_stdin_bytes:
                raise SourceError(
                    f"stdin: more than {self._max_stdin_bytes:,} bytes, which are kept in {tempfile.gettempdir()}; "
                    "allow more (max_stdin_bytes, or --max-stdin), or write a file and give its path"
                )
            spool.write(block)


def _is_blank_text(file: SourceFile, record: dict[str, Any] | BadRecord) -> bool:
    return file.kind == "text" and isinstance(record, dict) and not record["text"].strip()


def _read_at(descriptor: int, length: int, position: int) -> bytes:
    """Read from a place in an open file; Windows has no `os.pread`, and no other reader of this file seeks in it."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, position)
    with _seeking:
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, length)


class _View(io.RawIOBase):
    """An open file from its start, with a separate position, so that several readers do not disturb each other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = _read_at(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def lines_of(path: str | Path, max_unpack_ratio: float = MAX_UNPACK_RATIO) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a text file, which may be compressed by gzip or Zstandard, by its suffix.

    Its encoding is found as `Source` finds it; a warning is logged if it is not UTF-8 or UTF-16.

    Args:
        path: the file.
        max_unpack_ratio: as in `Source`.

    Yields:
        Pairs of number and text.

    Raises:
        SourceError: the file cannot be read, a line is not of that encoding, or the file unpacks to too much.
    """
    path = Path(path)
    try:
        encoding = "utf-8"
        if path.is_file():  # and no pipe, which can be read only once
            with open_unpacked(path, max_unpack_ratio) as file:
                encoding = find_encoding(file)
        if encoding not in ("utf-8", "utf-16"):
            _logger.warning("%s: read as %s, by its first lines; if that is wrong, save it as UTF-8", path, encoding)
        with as_utf8(open_unpacked(path, max_unpack_ratio), encoding) as text:
            yield from read_lines(text, str(path))
    except _CANNOT_READ as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error

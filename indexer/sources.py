"""Files of documents: JSONL (also .gz), Parquet and TSV, read record by record."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import SourceError

Record = tuple[str, dict[str, Any]]

_FORMATS = ".jsonl, .jsonl.gz, .parquet or .tsv"


class SourceFile:
    """The records of one file, each with its place ("data.jsonl:17"); iterate over it as often as needed.

    Raises SourceError at once if the file is missing, unreadable or of an unknown kind, and while iterating
    for content that cannot be parsed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise SourceError(f"{self.path}: no such file")
        if not self.path.is_file():
            raise SourceError(f"{self.path}: not a file; expected one {_FORMATS} file")
        readers = {".jsonl": _read_jsonl, ".jsonl.gz": _read_jsonl, ".parquet": _read_parquet, ".tsv": _read_tsv}
        kind = "".join(self.path.suffixes[-2:]) if self.path.suffix == ".gz" else self.path.suffix
        if kind not in readers:
            raise SourceError(f"{self.path}: unknown kind of file; expected {_FORMATS}")
        self._read = readers[kind]

    def __iter__(self) -> Iterator[Record]:
        """Yield (place, record) pairs in file order."""
        try:
            yield from self._read(self.path)
        except (OSError, EOFError, pa.ArrowException) as error:
            raise SourceError(f"{self.path}: cannot be read ({error})") from error


def _read_jsonl(path: Path) -> Iterator[Record]:
    with _open_text(path) as lines:
        for number, line in _numbered(path, lines):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise SourceError(f"{path}:{number}: not valid JSON ({error})") from error
            if not isinstance(record, dict):
                raise SourceError(f"{path}:{number}: expected a JSON object, not {type(record).__name__}")
            yield f"{path}:{number}", record


def _read_tsv(path: Path) -> Iterator[Record]:
    with _open_text(path) as lines:
        rows = csv.reader((line for _, line in _numbered(path, lines)), delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(rows, None)
        if header is None:
            raise SourceError(f"{path}: empty file; expected a header line with the field names")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise SourceError(f"{path}:{rows.line_num}: {len(row)} fields, but the header has {len(header)}")
            yield f"{path}:{rows.line_num}", dict(zip(header, row, strict=True))


def _read_parquet(path: Path) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                yield f"{path} row {number}", record
                number += 1


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    with path.open("rb") as raw:
        data = gzip.open(raw) if path.suffix == ".gz" else raw
        # utf-8-sig: files from other systems may start with a byte order mark.
        with io.TextIOWrapper(data, encoding="utf-8-sig", newline=None) as lines:  # type: ignore[arg-type]
            yield lines


def _numbered(path: Path, lines: TextIO) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        number += 1
        try:
            line = lines.readline()
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}:{number}: not UTF-8 near this line ({error.reason})") from error
        if not line:
            return
        yield number, line

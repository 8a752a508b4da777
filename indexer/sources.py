"""Files of documents: JSONL (also .gz), Parquet and TSV, read record by record."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .errors import SourceError

Record = tuple[str, dict[str, Any]]

_FORMATS = ".jsonl, .jsonl.gz, .parquet or .tsv"


class SourceFile:
    """The records of one file, each with its place ("data.jsonl:17"); iterate over it as often as needed.

    Raises SourceError at once if the file is missing or of an unknown kind, and while iterating if it cannot be
    read or parsed.
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
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise SourceError(f"{self.path}: cannot be read ({error})") from error


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path}:{number}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise SourceError(f"{path}:{number}: expected a JSON object, not {type(record).__name__}")
        yield f"{path}:{number}", record


def _read_tsv(path: Path) -> Iterator[Record]:
    lines = _lines(path)
    _, first = next(lines, (1, ""))
    header = first.split("\t")
    if not first.strip():
        raise SourceError(f"{path}:1: expected a header line with the field names")
    for name in header:
        if header.count(name) > 1:
            raise SourceError(f"{path}:1: the field {name!r} occurs twice in the header")
    for number, line in lines:
        if not line:
            continue
        row = line.split("\t")
        if len(row) != len(header):
            raise SourceError(f"{path}:{number}: {len(row)} fields, but the header has {len(header)}")
        yield f"{path}:{number}", dict(zip(header, row, strict=True))


def _read_parquet(path: Path) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            try:
                records = batch.to_pylist()
            except ValueError as error:  # text that is not UTF-8, times finer than Python's
                raise SourceError(f"{path} rows {number} to {number + len(batch)}: {error}") from error
            for record in records:
                yield f"{path} row {number}", record
                number += 1


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and line, its end left off. Decoded line by line, so that an error names the right one."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield number, data.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise SourceError(f"{path}:{number}: not UTF-8 ({error})") from error

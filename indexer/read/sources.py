"""Read records from files of lines, Arrow files, Lance and Hugging Face dataset folders, and standard input."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tempfile
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from ...onnx_export.errors import InputError
from ..errors import SourceError
from .arrow_formats import read_ipc, read_lance, read_parquet
from .json_format import read_json
from .line_formats import BadRecord, Record, read_csv, read_jsonl, read_lines, read_tsv

__all__ = ["BadRecord", "Record", "Source"]

_LINES: dict[str, Callable[..., Iterator[Record]]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
}
_COLUMNS = {"parquet": read_parquet, "arrow": read_ipc, "lance": read_lance}
_FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
# Standard input is kept in the folder for temporary files, which often shares its disk or lies in memory.
MAX_STDIN_BYTES = 4 * 2**30
_BLOCK = 2**20

_PACKED = (".gz", ".zst")
_EXPECTED = ".jsonl, .json, .csv, .tsv (each also .gz or .zst), .parquet, .arrow, .feather, .ipc or a .lance folder"

# Files in a folder that may be data but cannot be read, and files with such names that are known not to be data.
_NOT_READ = frozenset(
    ".7z .avro .bz2 .db .gz .json .lz4 .ndjson .orc .rar .sqlite .tar .tgz .xls .xlsx .xml .xz .zip .zst".split()
)
_NO_DATA = frozenset("config.json croissant.json dataset_info.json dataset_infos.json metadata.json".split())

_seeking = threading.Lock()

_CANNOT_READ = (OSError, EOFError, UnicodeError, zlib.error, pa.ArrowException)


class Source:
    """Records of a file or folder, for `Index.create`, `Index.add` and `Index.upsert`. May be read several times.

    Iterating yields pairs in order: the record's place ("data.jsonl:17", "data.parquet row 5") and the record, a dict.
    A record that cannot be parsed is a `BadRecord`, if those after it can be parsed. Each row, and each line that is
    not blank, yields exactly one pair.

    Args:
        path: one of these:
            - a file: JSONL, JSON (an array of objects), CSV or TSV, each also compressed by gzip or Zstandard; Parquet;
              Arrow IPC;
            - a Lance dataset: a folder NAME.lance;
            - a folder that `datasets.Dataset.save_to_disk` wrote;
            - another folder: its data files, and those in folders below it, are read in the order of their names.
              Files that are not data, such as a README, and names that begin with a period are ignored;
            - "-": standard input. It is kept in a temporary file, because indexing reads it several times.
        format: "jsonl", "json", "csv", "tsv", "parquet" or "arrow"; None finds the format by the file's suffix. For
            standard input, one of the first four; None means "jsonl". For a folder, None. JSON in a folder is not read,
            as it may be settings.
        fields: names of the fields of a TSV file that has no header.
        arrays: whether a JSON array is a record too; its field `items` then holds what is in it.
        max_stdin_bytes: largest number of bytes taken from standard input, 1 or more.

    Attributes:
        path: the path.

    Raises:
        SourceError: no data can be read from the path; or a folder has files that look like data but cannot be read.
            While iterating: the rest of a file cannot be read, or standard input is longer than ``max_stdin_bytes``.
        InputError: ``max_stdin_bytes`` is less than 1.

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
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002
        fields: Sequence[str] | None = None,
        arrays: bool = False,
        max_stdin_bytes: int = MAX_STDIN_BYTES,
    ) -> None:
        if format is not None and format not in _FORMATS:
            raise SourceError(f"unknown format {format!r}; expected one of {', '.join(_FORMATS)}")
        if not str(path):
            raise SourceError("the path is empty; give a file or a folder")  # to pathlib "" is "."
        if max_stdin_bytes < 1:
            raise InputError(f"max_stdin_bytes is {max_stdin_bytes}; it must be 1 or more")
        self.path = Path(path)
        self._max_stdin_bytes = max_stdin_bytes
        self._options: dict[str, dict[str, Any]] = {
            "jsonl": {"arrays": arrays},
            "json": {"arrays": arrays},
            "tsv": {"fields": fields},
        }
        self._spool: IO[bytes] | None = None
        self._files: list[tuple[str, Path]] | None = None  # format and path; None: standard input
        self._format = format or "jsonl"
        if str(path) == "-":
            if self._format not in _LINES:
                raise SourceError(f"stdin: cannot be read as {format}; expected jsonl, json, csv or tsv")
        else:
            self._files = _find_files(self.path, format)

    def __iter__(self) -> Iterator[Record]:
        """Yield pairs of place and record in order.

        Raises:
            SourceError: the rest of a file cannot be read.
        """
        if self._files is None:
            yield from _LINES[self._format](self._open_stdin(), "stdin", **self._options.get(self._format, {}))
            return
        for kind, path in self._files:
            yield from _read(kind, path, self._options.get(kind, {}))

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

    def readinto(self, buffer: Any) -> int:
        data = _read_at(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def lines_of(path: str | Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a UTF-8 file, which may be compressed by gzip or Zstandard, by its suffix.

    Raises:
        SourceError: the file cannot be read, or a line is not UTF-8.
    """
    path = Path(path)
    try:
        with _open(path) as file:
            yield from read_lines(file, str(path))
    except _CANNOT_READ as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def _read(kind: str, path: Path, options: Mapping[str, Any]) -> Iterator[Record]:
    try:
        if kind in _COLUMNS:
            yield from _COLUMNS[kind](path)
        else:
            with _open(path) as file:
                yield from _LINES[kind](file, str(path), **options)
    except _CANNOT_READ as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def _open(path: Path) -> IO[bytes]:
    packed = path.suffix.lower()
    if packed not in _PACKED:
        return path.open("rb")
    if not path.stat().st_size:  # both readers accept it, although a compressed file has a header
        raise EOFError(f"an empty file, not a {packed} file")
    if packed == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")))


def _find_files(path: Path, format: str | None) -> list[tuple[str, Path]]:  # noqa: A002
    """Format and path of the file, or of the files in the folder."""
    try:
        if path.is_dir():
            if format is not None:
                raise SourceError(f"{path}: a folder, for which no format can be given; leave the format out")
            files = [("lance", path)] if _is_lance(path) else list(_walk(path, (path.resolve(),)))
            if not files and not (path / "state.json").exists():
                raise SourceError(f"{path}: no data file in this folder; expected {_EXPECTED}")
            return files
        if not path.exists():
            raise SourceError(f"{path}: no such file")
        if not path.is_file():
            raise SourceError(f"{path}: not a file or folder; to read a pipe, give '-' and standard input")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    kind = format or _kind(path)
    if kind is None:
        raise SourceError(f"{path}: unknown kind of file; expected {_EXPECTED}, or give its format")
    return [(kind, path)]


def _kind(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    is_packed = bool(suffixes) and suffixes[-1] in _PACKED
    kind = _SUFFIXES.get("".join(suffixes[-2:-1] if is_packed else suffixes[-1:]))
    return None if is_packed and kind not in _LINES else kind


def _is_lance(folder: Path) -> bool:
    return folder.suffix == ".lance"


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Format and path of the data files in and below ``folder``, by name; ``above`` stops at links that loop."""
    if (folder / "dataset_dict.json").exists():
        raise SourceError(f"{folder}: a dataset with splits; choose one: {', '.join(_splits(folder))}")
    if (folder / "state.json").exists():
        yield from _saved_files(folder)
        return
    for path in sorted(folder.iterdir()):
        kind = _kind(path)
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if _is_lance(path):
                yield "lance", path
            elif path.resolve() not in above:
                yield from _walk(path, (*above, path.resolve()))
        elif kind not in (None, "json"):
            yield kind, path
        elif path.suffix.lower() in _NOT_READ and path.name not in _NO_DATA:
            raise SourceError(
                f"{path}: may be data, but cannot be read; move it out of the folder, or give single files"
            )


def _splits(folder: Path) -> list[str]:
    listed = _json_of(folder / "dataset_dict.json").get("splits")
    names = listed if isinstance(listed, list) else sorted(p.name for p in folder.iterdir() if p.is_dir())
    return [str(folder / str(name)) for name in names]


def _saved_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a dataset that `Dataset.save_to_disk` wrote; the folder may have older files too."""
    state = folder / "state.json"
    content = _json_of(state)
    if content.get("_indices_data_files"):
        raise SourceError(
            f"{state}: the dataset is a selection of rows; call `flatten_indices()` and save the dataset again"
        )
    try:
        names = [entry["filename"] for entry in content["_data_files"]]
        paths = [folder / name for name in names]
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"{state}: it has no list of data files, as `Dataset.save_to_disk` writes it; save the dataset again"
        ) from error
    for path in paths:
        if not path.is_file():
            raise SourceError(f"{path}: no such file, though {state} names it")
        yield "arrow", path


def _json_of(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path}: expected a JSON object, not {type(content).__name__}")
    return content

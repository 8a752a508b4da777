"""Where records come from: files of lines, Arrow files, Lance and Hugging Face dataset folders, standard input."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from ..errors import SourceError
from .arrow_formats import read_ipc, read_lance, read_parquet
from .line_formats import BadRecord, Record, read_csv, read_jsonl, read_tsv

__all__ = ["BadRecord", "Record", "Source"]

_LINES = {"jsonl": read_jsonl, "csv": read_csv, "tsv": read_tsv}
_COLUMNS = {"parquet": read_parquet, "arrow": read_ipc, "lance": read_lance}
_FORMATS = ("jsonl", "csv", "tsv", "parquet", "arrow")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_PACKED = (".gz", ".zst")
_EXPECTED = ".jsonl, .csv, .tsv (each also .gz or .zst), .parquet, .arrow, .feather, .ipc or a .lance folder"

# In a folder: files that may well be data but are not read, and those of them that are known to be none.
_NOT_READ = frozenset(
    ".7z .avro .bz2 .db .gz .json .lz4 .ndjson .orc .rar .sqlite .tar .tgz .xls .xlsx .xml .xz .zip .zst".split()
)
_NO_DATA = frozenset("config.json croissant.json dataset_info.json dataset_infos.json metadata.json".split())

_CANNOT_READ = (OSError, EOFError, UnicodeError, zlib.error, pa.ArrowException)


class Source:
    """Records, each with its place ("data.jsonl:17", "data.parquet row 5"); iterate over it as often as needed.

    Args:
        path: one of these:
            - a file: JSONL, CSV or TSV, each also packed by gzip or Zstandard; Parquet; Arrow IPC;
            - a Lance dataset: a folder NAME.lance;
            - a folder as `datasets.Dataset.save_to_disk` leaves it;
            - another folder, whose data files, also those in folders below, are read in the order of their names.
              Names that begin with a period are passed over, and so is what is no data, like a README;
            - "-": standard input, kept in a temporary file, as indexing reads twice.
        format: "jsonl", "csv", "tsv", "parquet" or "arrow", whatever a file's suffix says; for standard input one of
            the first three, "jsonl" by default.

    Iterating yields (place, record) pairs in order, the record a dict, or a BadRecord where one record cannot be parsed
    while those after it can. Every row, and every line that is not blank, gives exactly one pair.

    Raises SourceError at once if there is nothing of a kind that is read, or, in a folder, besides it something that
    looks like data of another kind; and while iterating for what makes going on impossible.
    """

    def __init__(self, path: str | Path, *, format: str | None = None) -> None:  # noqa: A002
        if format is not None and format not in _FORMATS:
            raise SourceError(f"unknown format {format!r}; expected one of {', '.join(_FORMATS)}")
        if not str(path):
            raise SourceError("the path is empty")  # pathlib would take it for the working folder
        self.path = Path(path)
        self._spool: IO[bytes] | None = None
        self._files: list[tuple[str, Path]] | None = None  # format and path; None: standard input
        self._format = format or "jsonl"
        if str(path) == "-":
            if self._format not in _LINES:
                raise SourceError(f"stdin: cannot be read as {format}; expected jsonl, csv or tsv")
        else:
            self._files = _find_files(self.path, format)

    def __iter__(self) -> Iterator[Record]:
        """Yield (place, record) pairs in order."""
        if self._files is None:
            yield from _LINES[self._format](self._open_stdin(), "stdin")
            return
        for kind, path in self._files:
            yield from _read(kind, path)

    def _open_stdin(self) -> IO[bytes]:
        if self._spool is None:
            spool = tempfile.TemporaryFile()  # noqa: SIM115  it has no name, and is gone when closed
            try:
                shutil.copyfileobj(sys.stdin.buffer, spool)
                spool.flush()
            except BaseException as error:
                spool.close()
                if isinstance(error, OSError):
                    raise SourceError(f"stdin: cannot be read or kept in {tempfile.gettempdir()} ({error})") from error
                raise
            weakref.finalize(self, spool.close)
            self._spool = spool
        return io.BufferedReader(_View(self._spool.fileno()))


class _View(io.RawIOBase):
    """An open file from its start, with a position of its own, so that readings do not disturb each other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _read(kind: str, path: Path) -> Iterator[Record]:
    try:
        if kind in _COLUMNS:
            yield from _COLUMNS[kind](path)
        else:
            with _open(path) as file:
                yield from _LINES[kind](file, str(path))
    except _CANNOT_READ as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def _open(path: Path) -> IO[bytes]:
    packed = path.suffix.lower()
    if packed not in _PACKED:
        return path.open("rb")
    if not path.stat().st_size:  # both readers take it for a packed file of nothing, which has a header
        raise EOFError(f"an empty file, no {packed} file")
    if packed == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")))


def _find_files(path: Path, format: str | None) -> list[tuple[str, Path]]:  # noqa: A002
    """Format and path of the file, or of the files in the folder."""
    try:
        if path.is_dir():
            if format is not None:
                raise SourceError(f"{path}: a folder, whose files say what they are; a format is for one file")
            files = [("lance", path)] if _is_lance(path) else list(_walk(path, (path.resolve(),)))
            if not files and not (path / "state.json").exists():
                raise SourceError(f"{path}: no data file in this folder; expected {_EXPECTED}")
            return files
        if not path.exists():
            raise SourceError(f"{path}: no such file")
        if not path.is_file():
            raise SourceError(f"{path}: not a file or folder; a pipe is read as standard input, by '-'")
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
    """Format and path of the data files in and below ``folder``, by name; ``above`` keeps links from going round."""
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
        elif kind is not None:
            yield kind, path
        elif path.suffix.lower() in _NOT_READ and path.name not in _NO_DATA:
            raise SourceError(f"{path}: may be data, but is not read; take it out of the folder, or name single files")


def _splits(folder: Path) -> list[str]:
    listed = _json_of(folder / "dataset_dict.json").get("splits")
    names = listed if isinstance(listed, list) else sorted(p.name for p in folder.iterdir() if p.is_dir())
    return [str(folder / str(name)) for name in names]


def _saved_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a dataset as `Dataset.save_to_disk` leaves it; the folder may hold others, of an earlier state."""
    state = folder / "state.json"
    content = _json_of(state)
    if content.get("_indices_data_files"):
        raise SourceError(f"{state}: a selection of the rows; save the dataset again after `flatten_indices()`")
    try:
        names = [entry["filename"] for entry in content["_data_files"]]
        paths = [folder / name for name in names]
    except (KeyError, TypeError) as error:
        raise SourceError(f"{state}: not as `Dataset.save_to_disk` writes it (no list of data files)") from error
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

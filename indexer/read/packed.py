"""Compressed files, which may unpack to a limit; those of gzip and Zstandard are unpacked while they are read.

A megabyte of them can hold gigabytes, and somebody may have made it so. Texts become some 3 to 10 times as long.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from ..errors import SourceError
from .find_files import PACKED

MAX_UNPACK_RATIO = 100
ALWAYS_UNPACKED = 2**28  # bytes that a file may unpack to, whatever its size
_BUFFER = 2**18


def open_unpacked(path: Path, max_ratio: float) -> IO[bytes]:
    """Open a file; by its suffix, it is unpacked while it is read.

    Args:
        path: the file.
        max_ratio: see `unpacked_limit`.

    Returns:
        The content. When more than the limit is read from it, SourceError is raised.

    Raises:
        OSError: the file cannot be opened.
        EOFError: it is empty, although a compressed file has a header.
    """
    packed = path.suffix.lower()
    if packed not in PACKED:
        return path.open("rb")
    if not path.stat().st_size:  # both readers accept it
        raise EOFError(f"an empty file, not a {packed} file")
    file: Any = pa.OSFile(str(path)) if packed == ".zst" else path.open("rb")
    try:
        unpacked: Any = pa.CompressedInputStream(file, "zstd") if packed == ".zst" else gzip.GzipFile(fileobj=file)
    except BaseException:
        file.close()
        raise
    return io.BufferedReader(cast(Any, _Bounded(unpacked, file, path, max_ratio)), _BUFFER)


def bytes_taken(file: IO[bytes]) -> int:
    """Number of bytes that were taken from the disk for a file of `open_unpacked`: of a compressed one, the packed."""
    raw = getattr(file, "raw", file)
    return (raw.packed if isinstance(raw, _Bounded) else raw).tell()


def unpacked_limit(path: Path, max_ratio: float) -> int:
    """Number of bytes that a file may unpack to: ``max_ratio`` times its size, and at least 256 MiB."""
    return max(ALWAYS_UNPACKED, int(max_ratio * path.stat().st_size))


def check_zip(path: Path, max_ratio: float) -> None:
    """Check what a zip file, such as a spreadsheet, says that it unpacks to; other files pass.

    Raises:
        SourceError: it is more than the limit.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(about.file_size for about in packed.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):  # whoever reads it will say what it is
        return
    if size > unpacked_limit(path, max_ratio):
        raise unpacks_to_too_much(path, max_ratio)


def unpacks_to_too_much(path: Path, max_ratio: float) -> SourceError:
    """The error for a file that unpacks to more than its limit."""
    return SourceError(
        f"{path}: unpacks to more than {unpacked_limit(path, max_ratio):,} bytes, {max_ratio:g} times its size; if "
        "that is right, allow more (max_unpack_ratio, or --max-unpack-ratio), or unpack it and give the unpacked file"
    )


class _Bounded(io.RawIOBase):
    """What a stream has, up to a number of bytes.

    Attributes:
        packed: the file that is unpacked.
    """

    def __init__(self, unpacked: Any, packed: Any, path: Path, max_ratio: float) -> None:
        self._unpacked, self.packed, self._path, self._max_ratio = unpacked, packed, path, max_ratio
        self._left = unpacked_limit(path, max_ratio)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if hasattr(self._unpacked, "read1"):  # what is there, so that damage later in the file spoils no line before it
            data = self._unpacked.read1(len(buffer))
            size = len(data)
            buffer[:size] = data
        else:
            size = self._unpacked.readinto(buffer)
        self._left -= size
        if self._left < 0:
            raise unpacks_to_too_much(self._path, self._max_ratio)
        return size

    def close(self) -> None:
        self._unpacked.close()
        self.packed.close()
        super().close()

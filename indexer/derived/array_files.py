"""The files of derived arrays: how segments and routing points are written, listed in arrays.json, and read again.

`arrays` draws the folder and decides what is in it. Arrays that cannot be used raise one of `UNUSABLE`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...onnx_export.files import atomic_folder, atomic_path, write_atomically
from ..codec.codec import ResidualCodec
from ..plain_files import only_ours, open_plain, read_plain
from ..table.database import side_folder, storage_errors
from ..table.table import IndexTable
from .postings import InvertedLists
from .routing import Routing
from .segments import Allocate, RowKeys, Segment, build_segment, segment_problem, string_columns, with_lists
from .strings import Strings
from .table_files import Checksums, checksum, with_new_files

MANIFEST = "arrays.json"
SMALL = 1 << 26  # bytes of files up to which every opening compares their checksums

_FORMAT = 3
_LISTS = ("list_offsets", "postings")
_NAMES = ("row_ids", "write_ids", "offsets", "centroid_ids", "residuals", *_LISTS)
_OF_ROUTING = ("offsets", "residuals")
_MAPPED = 1 << 22  # bytes of a file from which on it is mapped, not read


class DamagedError(Exception):
    """Derived arrays that cannot be used."""


UNUSABLE = (DamagedError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class OnDisk:
    """A segment and its entry in arrays.json."""

    segment: Segment
    entry: dict[str, Any]


@dataclass(frozen=True)
class Points:
    """Routing points and their entry in arrays.json; both None where lists are of the centroids."""

    routing: Routing | None = None
    entry: dict[str, Any] | None = None


@dataclass(frozen=True)
class Stored:
    """What arrays.json lists."""

    items: list[OnDisk]
    points: Points
    version: int

    def entries(self) -> list[dict[str, Any]]:
        """The entries of arrays.json for everything that has files."""
        entries = [item.entry for item in self.items]
        return entries if self.points.entry is None else [*entries, self.points.entry]


def arrays_folder(index: IndexTable) -> Path:
    """The folder of an index's derived arrays, which may not exist.

    Raises:
        StorageError: see `side_folder`.
    """
    name = "arrays" if index.shard.is_whole else f"arrays-{index.shard}"
    return side_folder(index.database, index.name) / name


def store_segment(index: IndexTable, rows: RowKeys, folder: Path, routing: Routing | None) -> OnDisk:
    """Write a new segment."""
    name = f"segment-{secrets.token_hex(8)}"
    with atomic_folder(folder / name) as making, _files_in(making) as allocate:
        build_segment(index, rows, residuals=True, routing=routing, allocate=allocate)
    files = {f"{array}.npy": _about(folder / name / f"{array}.npy") for array in _names(index)}
    entry = {"name": name, "files": files}
    return OnDisk(_open(folder, entry, index, routing), entry)


def store_routing(routing: Routing, codec: ResidualCodec, folder: Path) -> Points:
    """Write routing points."""
    name = f"routing-{secrets.token_hex(8)}"
    with atomic_folder(folder / name) as making:
        for array, content in zip(_OF_ROUTING, (routing.offsets, routing.residuals), strict=True):
            np.save(making / f"{array}.npy", content, allow_pickle=False)
    files = {f"{array}.npy": _about(folder / name / f"{array}.npy") for array in _OF_ROUTING}
    entry = {"name": name, "files": files, "tokens": routing.n_tokens}
    return Points(_open_routing(folder, entry, codec), entry)


def store_lists(item: OnDisk, folder: Path, index: IndexTable, routing: Routing | None) -> OnDisk:
    """Write a segment that has the codes of another one, as the same files, and lists of other routing points."""
    name, before = f"segment-{secrets.token_hex(8)}", folder / item.entry["name"]
    with atomic_folder(folder / name) as making:
        with _files_in(making) as allocate:
            with_lists(item.segment, index.codec, routing, allocate)
        same = {file: about for file, about in item.entry["files"].items() if Path(file).stem not in _LISTS}
        for file in same:
            try:
                os.link(before / file, making / file, follow_symlinks=False)
            except OSError:  # a file system without links
                shutil.copy2(before / file, making / file, follow_symlinks=False)
    files = same | {f"{array}.npy": _about(folder / name / f"{array}.npy") for array in _LISTS}
    entry = {"name": name, "files": files}
    return OnDisk(_open(folder, entry, index, routing), entry)


@contextlib.contextmanager
def _files_in(folder: Path) -> Iterator[Allocate]:
    """Allocates arrays as files in ``folder``, which are whole at the end."""
    made: list[np.memmap] = []

    def allocate(array: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if not all(shape):  # an empty file cannot be mapped
            empty = np.empty(shape, dtype)
            np.save(folder / f"{array}.npy", empty)
            return empty
        made.append(np.lib.format.open_memmap(folder / f"{array}.npy", "w+", dtype, shape))
        _reserve(folder / f"{array}.npy")
        return made[-1]

    yield allocate
    for mapped in made:
        mapped.flush()


def store_deleted(item: OnDisk, folder: Path, version: int) -> OnDisk:
    """Write a file that marks the deleted rows of a segment."""
    segment = folder / item.entry["name"]
    files = {name: about for name, about in item.entry["files"].items() if not name.startswith("deleted-")}
    if item.segment.deleted.any():
        name = f"deleted-{version}-{secrets.token_hex(4)}.npy"
        with atomic_path(segment / name) as making, making.open("wb") as file:
            np.save(file, np.packbits(item.segment.deleted), allow_pickle=False)
        files[name] = _about(segment / name)
    return replace(item, entry={**item.entry, "files": files})


def load_stored(folder: Path, index: IndexTable, *, every_checksum: bool = False, may_write: bool = True) -> Stored:
    """Read what arrays.json lists.

    Args:
        folder: the folder of the arrays.
        index: the open table.
        every_checksum: compare all checksums, also of large files whose time has not changed.
        may_write: the caller holds the lock.

    Raises:
        DamagedError: something is not as it was written, or is of another table. Reading may raise any of `UNUSABLE`.
    """
    manifest = read_manifest(folder)
    if not is_of(manifest, index) or manifest["format"] != _FORMAT:
        raise DamagedError("of another table, or of another release")
    touched = False
    entries = [*manifest["segments"], *([] if manifest["routing"] is None else [manifest["routing"]])]
    size_of_all = sum(about[0] for entry in entries for about in entry["files"].values())
    every_checksum = every_checksum or size_of_all <= SMALL
    for entry in entries:
        for name, about in entry["files"].items():
            path = folder / entry["name"] / name
            status = _regular(path)
            size, modified, expected = about
            if status.st_size != size:
                raise DamagedError(f"{path} has another size")
            # Of large files the checksum is computed only if the time has changed: one is then damaged, or a copy.
            if status.st_mtime_ns != modified and not may_write:
                raise DamagedError(f"{path} was changed; the checksum is compared under the lock")
            if every_checksum or status.st_mtime_ns != modified:
                if checksum(path) != expected:
                    raise DamagedError(f"{path} is damaged")
                touched = touched or status.st_mtime_ns != modified
                about[1] = status.st_mtime_ns
    points = Points()
    if manifest["routing"] is not None:
        points = Points(_open_routing(folder, manifest["routing"], index.codec), manifest["routing"])
    items = [OnDisk(_open(folder, entry, index, points.routing), entry) for entry in manifest["segments"]]
    if touched:
        _replace_manifest(folder, manifest)
    if manifest["version"] == index.table.version and manifest["committed"] != _committed(index):
        return Stored(items, points, -1)  # a table restored from a copy has reached the same version, with other rows
    return Stored(items, points, manifest["version"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of arrays.json; raises any of `UNUSABLE`."""
    content = json.loads(read_plain(folder / MANIFEST))
    manifest = content["arrays"]
    if content["crc"] != zlib.crc32(json.dumps(manifest).encode()):
        raise DamagedError(f"{MANIFEST} is damaged")
    return manifest


def table_checksums(index: IndexTable) -> Checksums | None:
    """The checksums of the table's files; empty if arrays.json is of another table, None if it does not have any."""
    try:
        manifest = read_manifest(arrays_folder(index))
        found = manifest["table_files"] if is_of(manifest, index) else {}
        return {name: (size, crc, transaction) for name, (size, crc, transaction) in found.items()}
    except UNUSABLE:
        return None


def _regular(path: Path) -> os.stat_result:
    """The status of a file; what is no file of its own, such as a link or a pipe, cannot be used."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path} is no file")
    return status


def is_of(manifest: dict[str, Any], index: IndexTable) -> bool:
    """Whether arrays are of this table, with its codec."""
    return (manifest["build_id"], manifest["codec_id"]) == (index.header.build_id, index.header.codec_id)


def _committed(index: IndexTable) -> str:
    """Time at which the open version was committed."""
    with storage_errors(index.place()):
        times = {int(version["version"]): version["timestamp"] for version in index.table.list_versions()}
    return str(times.get(index.table.version))


def _open_routing(folder: Path, entry: dict[str, Any], codec: ResidualCodec) -> Routing:
    place = folder / entry["name"]
    routing = Routing(*(_map(place / f"{name}.npy") for name in _OF_ROUTING), n_tokens=entry["tokens"])
    problem = routing.problem(codec)
    if problem:
        raise DamagedError(f"{place}: {problem}")
    return routing


def _names(index: IndexTable) -> list[str]:
    """The names of a segment's arrays."""
    return [*_NAMES, *(f"{column}_{part}" for column in string_columns(index.header) for part in ("text", "offsets"))]


def _open(folder: Path, entry: dict[str, Any], index: IndexTable, routing: Routing | None) -> Segment:
    place = folder / entry["name"]
    mapped = {name: _map(place / f"{name}.npy") for name in _names(index)}
    strings = {
        column: Strings(mapped[f"{column}_text"], mapped[f"{column}_offsets"])
        for column in string_columns(index.header)
    }
    deleted = np.zeros(len(mapped["row_ids"]), bool)
    for name in entry["files"]:
        if name.startswith("deleted-"):
            packed = np.load(io.BytesIO(read_plain(place / name)), allow_pickle=False)
            deleted = np.unpackbits(packed, count=len(deleted)).astype(bool)
    lists = InvertedLists(mapped["list_offsets"], mapped["postings"])
    segment = Segment(
        row_ids=mapped["row_ids"],
        write_ids=mapped["write_ids"],
        offsets=mapped["offsets"],
        centroid_ids=mapped["centroid_ids"],
        residuals=mapped["residuals"],
        lists=lists,
        deleted=deleted,
        ids=strings["id"],
        parent_ids=strings.get("parent_id"),
    )
    problem = segment_problem(segment, index.codec, routing)
    if problem:
        raise DamagedError(f"{place}: {problem}")
    return segment


def _map(path: Path) -> np.ndarray:
    with open_plain(path) as file:
        status = os.fstat(file.fileno())
        # Small files are read, because the system limits the number of memory maps; and so are those that other users
        # can change, which could be changed after they have been checked.
        if status.st_size <= _MAPPED or not only_ours(status):
            return np.load(file, allow_pickle=False)
        if np.lib.format.read_magic(file) != (1, 0):
            raise DamagedError(f"{path} is of another version of NumPy's format")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        if by_column or dtype.hasobject:
            raise DamagedError(f"{path} has another layout")
        return np.memmap(file, dtype, "r", file.tell(), shape)


def store_manifest(index: IndexTable, current: Stored, folder: Path, known: Checksums) -> None:
    """Replace arrays.json: list what is current, with the checksums of the table's files, of which some are known."""
    manifest = {
        "format": _FORMAT,
        "table": index.name,
        "build_id": index.header.build_id,
        "codec_id": index.header.codec_id,
        "version": index.table.version,
        "committed": _committed(index),
        "segments": [item.entry for item in current.items],
        "routing": current.points.entry,
        "table_files": with_new_files(index, known),
    }
    _replace_manifest(folder, manifest)


def _replace_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    checksum = zlib.crc32(json.dumps(manifest).encode())
    write_atomically(folder / MANIFEST, json.dumps({"crc": checksum, "arrays": manifest}, indent=1))


def remove_unnamed(folder: Path, stored: Stored) -> None:
    """Remove the files that arrays.json does not list."""
    named = {entry["name"]: entry["files"] for entry in stored.entries()}
    # Names with a dot were never completed.
    for path in (
        path for kind in ("segment-*", "routing-*") for path in (*folder.glob(kind), *folder.glob(f".{kind}"))
    ):
        if path.name not in named:
            shutil.rmtree(path, ignore_errors=True)
            continue
        for file in path.glob("deleted-*.npy"):
            if file.name not in named[path.name]:
                with contextlib.suppress(OSError):
                    file.unlink()


def _reserve(path: Path) -> None:
    """Reserve a file's space on disk: on a full disk, writing to its memory map would end the process.

    Nobody else may write to it, whatever the system's default is: a map of it changes with the file.
    """
    with path.open("r+b") as file:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~(stat.S_IWGRP | stat.S_IWOTH))
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _about(path: Path) -> list[int]:
    """A file's size, time of last change, and CRC-32."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, checksum(path)]

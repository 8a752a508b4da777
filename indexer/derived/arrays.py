"""Derived arrays: all segments of an index at one version of its table, kept on disk next to the table.

A segment is a fixed group of up to 65,536 rows, see `segments`.

    arrays/arrays.json          the version, the segments with size, time and CRC-32 of each file, and the checksums of
                                the table's files (`table_files`)
    arrays/SEGMENT/NAME.npy     the arrays of one segment
    arrays/SEGMENT/deleted-VERSION.npy   which of its rows are deleted

The table is the source of truth. `load_arrays` brings the arrays to the version that is open: new rows make a new
segment, deleted rows are marked, and files that are missing, damaged or of another table are made again. Files are
complete before arrays.json lists them, and arrays.json is replaced in one step. Files that are no longer listed are
removed; readers that have them mapped can still use them.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from ...onnx_export.files import atomic_folder, atomic_path, write_atomically
from ...onnx_export.progress import Progress
from ..errors import BusyError
from ..plain_files import only_ours, open_plain, read_plain
from ..table.database import side_folder, storage_errors
from ..table.locks import LOCK_MODE, LOCK_VARIABLE, lock_seconds
from ..table.table import IndexTable
from .postings import MAX_ROWS, InvertedLists
from .segments import RowKeys, Segment, build_segment, parts, read_keys, segment_problem, string_columns
from .strings import Strings
from .table_files import Checksums, check_files, checksum, with_new_files

_FORMAT = 2
_MANIFEST = "arrays.json"
_NAMES = ("row_ids", "write_ids", "offsets", "centroid_ids", "residuals", "list_offsets", "postings")
_MOSTLY_DELETED = 0.3  # a segment with a larger share of deleted rows is made again
_LOCK_FILE = "arrays.lock"
_LOCK_SECONDS = 120.0  # another process that makes the arrays is waited for; one that holds the lock for ever, too
_MAPPED = 1 << 22  # bytes of a file from which on it is mapped, not read
_SMALL = 1 << 26  # bytes of files up to which every opening compares their checksums


class _DamagedError(Exception):
    """Derived arrays that cannot be used."""


_UNUSABLE = (_DamagedError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class Arrays:
    """All codes of an index at one version.

    Attributes:
        version: version of the table.
        segments: the codes, in groups of rows.
    """

    version: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class _OnDisk:
    """A segment and its entry in arrays.json."""

    segment: Segment
    entry: dict[str, Any]


def arrays_folder(index: IndexTable) -> Path:
    """The folder of an index's derived arrays, which may not exist.

    Raises:
        StorageError: see `side_folder`.
    """
    return side_folder(index.database, index.name) / "arrays"


def load_arrays(index: IndexTable, *, derived: bool = True) -> Arrays:
    """Load the segments of the table at the version that ``index`` has open.

    Args:
        index: the open table.
        derived: memory-map the arrays on disk, after bringing them up to date. If the folder cannot be written to, or
            another process holds its lock for longer than two minutes (or ``TANSAKU_LOCK_SECONDS``), they are made in
            memory. Files that other users may change are read, not mapped. False: they are made in memory without
            residuals, which are then read from the table.

    Returns:
        The segments.

    Raises:
        StorageError: the table cannot be read, or is damaged; or there is a link, a pipe, a socket or a device among
            the derived arrays.
        InputError: ``TANSAKU_LOCK_SECONDS`` is not a number from 0.
    """
    folder = arrays_folder(index)
    check_files(index, _table_checksums(index) or {}, up_to=_SMALL)
    if not derived:
        return _in_memory(index, residuals=False)
    current = _up_to_date(index, folder)
    if current is not None:
        return current
    seconds = lock_seconds(_LOCK_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / _LOCK_FILE, timeout=seconds, mode=LOCK_MODE):
            return _synchronized(index, folder)
    except (OSError, filelock.Timeout):  # read-only, full, or another reader takes very long
        return _in_memory(index, residuals=True)


def check_arrays(index: IndexTable, progress: Progress) -> tuple[int, int, bool]:
    """Compare all files of the table and of its derived arrays with their checksums, whatever their size.

    Args:
        index: the open table.
        progress: called as the work proceeds.

    Returns:
        Number of files that were compared, of bytes in them, and whether the derived arrays are usable. Those that are
        not are given up, so that the next `load_arrays` makes them again.

    Raises:
        StorageError: a file of the table is damaged.
        BusyError: another process holds the lock of the derived arrays for longer than two minutes (or
            ``TANSAKU_LOCK_SECONDS``).
    """
    files, size = check_files(index, _table_checksums(index) or {}, progress=progress)
    folder = arrays_folder(index)
    if not os.path.lexists(folder / _MANIFEST):
        return files, size, True
    seconds = lock_seconds(_LOCK_SECONDS)
    try:
        with filelock.FileLock(folder / _LOCK_FILE, timeout=seconds, mode=LOCK_MODE):
            stored, _ = _load(folder, index, every_checksum=True)
    except filelock.Timeout:
        raise BusyError(
            f"{folder / _LOCK_FILE}: another process holds this lock for longer than {seconds:g} s; wait until it "
            f"ends, or allow more time ({LOCK_VARIABLE})"
        ) from None
    except PermissionError:  # read-only
        return files, size, True
    except _UNUSABLE:
        with storage_errors(f"folder {folder}"):
            (folder / _MANIFEST).unlink()
        return files, size, False
    sizes = [about[0] for item in stored for about in item.entry["files"].values()]
    return files + len(sizes), size + sum(sizes), True


def folder_bytes(folder: Path) -> int:
    """Number of bytes of all files below a folder; 0 if the folder does not exist."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def array_bytes(index: IndexTable) -> dict[str, int]:
    """Measure the derived arrays on disk.

    Args:
        index: the open table.

    Returns:
        Number of bytes by name of array; empty if there are no arrays for the open version.
    """
    try:
        manifest = _read_manifest(arrays_folder(index))
        if not _is_of(manifest, index) or manifest["version"] != index.table.version:
            return {}
        files = [item for entry in manifest["segments"] for item in entry["files"].items()]
        names = dict.fromkeys(Path(name).stem.split("-")[0] for name, _ in files)
        return {n: sum(about[0] for name, about in files if Path(name).stem.split("-")[0] == n) for n in names}
    except _UNUSABLE:
        return {}


def _in_memory(index: IndexTable, *, residuals: bool) -> Arrays:
    segments = [build_segment(index, part, residuals=residuals) for part in parts(read_keys(index))]
    return Arrays(index.table.version, tuple(segments))


def _up_to_date(index: IndexTable, folder: Path) -> Arrays | None:
    """The segments on disk, if nothing has to be written: then no lock is needed, which another process may hold.

    Files that another process removes meanwhile are missing here, and then the lock is waited for.
    """
    try:
        stored, version = _load(folder, index, may_write=False)
    except _UNUSABLE:
        return None
    if version != index.table.version or _table_checksums(index) is None:
        return None
    return Arrays(version, tuple(item.segment for item in stored))


def _synchronized(index: IndexTable, folder: Path) -> Arrays:
    version = index.table.version
    known = _table_checksums(index)
    try:
        stored, stored_version = _load(folder, index)
    except _UNUSABLE:
        stored, stored_version = [], -1
    _remove_unnamed(folder, stored)  # left by an interruption
    if stored_version == version and known is not None:
        return Arrays(version, tuple(item.segment for item in stored))
    rows = read_keys(index)
    kept = [_without_missing(item, rows) for item in stored]
    missing = _not_in(rows, [item.segment.keys() for item in kept])
    kept, missing = _compacted(kept, missing)
    marked = [_store_deleted(item, folder, version) for item in kept]
    made = [_store(index, part, folder) for part in parts(missing)]
    current = [item for item in marked + made if len(item.segment)]
    # A reader of an older version does not replace the arrays of a newer one.
    if stored_version <= version:
        _store_manifest(index, current, folder, known or {})
        _remove_unnamed(folder, current)
    return Arrays(version, tuple(item.segment for item in current))


def _without_missing(item: _OnDisk, rows: RowKeys) -> _OnDisk:
    """Mark the rows of a segment as deleted that the table does not have, or has with other codes."""
    segment = item.segment
    if not len(rows):
        return replace(item, segment=replace(segment, deleted=np.ones(len(segment), bool)))
    at = np.minimum(np.searchsorted(rows.row_ids, segment.row_ids), len(rows) - 1)
    same = (rows.row_ids[at] == segment.row_ids) & (rows.write_ids[at] == segment.write_ids)
    return replace(item, segment=replace(segment, deleted=~same))


def _not_in(rows: RowKeys, held: list[RowKeys]) -> RowKeys:
    """Those of ``rows`` that are in no segment."""
    if not held:
        return rows
    return rows.take(~np.isin(rows.row_ids, np.concatenate([keys.row_ids for keys in held])))


def _compacted(items: list[_OnDisk], missing: RowKeys) -> tuple[list[_OnDisk], RowKeys]:
    """Which segments stay, and which rows go into new segments: missing rows, and those of segments that are replaced.

    Segments with many deleted rows are replaced. So are small ones, together with the new rows: the sizes of segments
    then grow about as powers of two.
    """
    kept = []
    for item in items:
        segment = item.segment
        if segment.deleted.mean() > _MOSTLY_DELETED:
            missing = _joined(missing, segment.keys())
        else:
            kept.append(item)
    kept.sort(key=lambda item: -len(item.segment))
    while kept and len(missing) and len(kept[-1].segment) <= 2 * len(missing):
        if len(missing) + len(kept[-1].segment) > MAX_ROWS:
            break
        missing = _joined(missing, kept.pop().segment.keys())
    return kept, missing


def _joined(a: RowKeys, b: RowKeys) -> RowKeys:
    both = RowKeys(*(np.concatenate(pair) for pair in zip(_columns(a), _columns(b), strict=True)))
    return both.take(np.argsort(both.row_ids, kind="stable"))


def _columns(keys: RowKeys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return keys.row_ids, keys.write_ids, keys.counts


def _store(index: IndexTable, rows: RowKeys, folder: Path) -> _OnDisk:
    """Write a new segment."""
    name = f"segment-{secrets.token_hex(8)}"
    with atomic_folder(folder / name) as making:

        def allocate(array: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            if not all(shape):  # an empty file cannot be mapped
                empty = np.empty(shape, dtype)
                np.save(making / f"{array}.npy", empty)
                return empty
            mapped = np.lib.format.open_memmap(making / f"{array}.npy", "w+", dtype, shape)
            _reserve(making / f"{array}.npy")
            return mapped

        segment = build_segment(index, rows, residuals=True, allocate=allocate)
        for array in (segment.row_ids, segment.offsets, segment.centroid_ids, segment.residuals):
            if isinstance(array, np.memmap):
                array.flush()
        del segment
    files = {f"{array}.npy": _about(folder / name / f"{array}.npy") for array in _names(index)}
    entry = {"name": name, "files": files}
    return _OnDisk(_open(folder, entry, index), entry)


def _store_deleted(item: _OnDisk, folder: Path, version: int) -> _OnDisk:
    """Write a file that marks the deleted rows of a segment."""
    segment = folder / item.entry["name"]
    files = {name: about for name, about in item.entry["files"].items() if not name.startswith("deleted-")}
    if item.segment.deleted.any():
        name = f"deleted-{version}-{secrets.token_hex(4)}.npy"
        with atomic_path(segment / name) as making, making.open("wb") as file:
            np.save(file, np.packbits(item.segment.deleted), allow_pickle=False)
        files[name] = _about(segment / name)
    return replace(item, entry={**item.entry, "files": files})


def _load(
    folder: Path, index: IndexTable, *, every_checksum: bool = False, may_write: bool = True
) -> tuple[list[_OnDisk], int]:
    manifest = _read_manifest(folder)
    if not _is_of(manifest, index) or manifest["format"] != _FORMAT:
        raise _DamagedError("of another table, or of another release")
    touched = False
    size_of_all = sum(about[0] for entry in manifest["segments"] for about in entry["files"].values())
    every_checksum = every_checksum or size_of_all <= _SMALL
    for entry in manifest["segments"]:
        for name, about in entry["files"].items():
            path = folder / entry["name"] / name
            status = _regular(path)
            size, modified, expected = about
            if status.st_size != size:
                raise _DamagedError(f"{path} has another size")
            # Of large files the checksum is computed only if the time has changed: one is then damaged, or a copy.
            if status.st_mtime_ns != modified and not may_write:
                raise _DamagedError(f"{path} was changed; the checksum is compared under the lock")
            if every_checksum or status.st_mtime_ns != modified:
                if checksum(path) != expected:
                    raise _DamagedError(f"{path} is damaged")
                touched = touched or status.st_mtime_ns != modified
                about[1] = status.st_mtime_ns
    items = [_OnDisk(_open(folder, entry, index), entry) for entry in manifest["segments"]]
    if touched:
        _replace_manifest(folder, manifest)
    if manifest["version"] == index.table.version and manifest["committed"] != _committed(index):
        return items, -1  # a table restored from a copy has reached the same version again, with other rows
    return items, manifest["version"]


def _read_manifest(folder: Path) -> dict[str, Any]:
    content = json.loads(read_plain(folder / _MANIFEST))
    manifest = content["arrays"]
    if content["crc"] != zlib.crc32(json.dumps(manifest).encode()):
        raise _DamagedError(f"{_MANIFEST} is damaged")
    return manifest


def _table_checksums(index: IndexTable) -> Checksums | None:
    """The checksums of the table's files; empty if arrays.json is of another table, None if it does not have any."""
    try:
        manifest = _read_manifest(arrays_folder(index))
        found = manifest["table_files"] if _is_of(manifest, index) else {}
        return {name: (size, crc, transaction) for name, (size, crc, transaction) in found.items()}
    except _UNUSABLE:
        return None


def _regular(path: Path) -> os.stat_result:
    """The status of a file; what is no file of its own, such as a link or a pipe, cannot be used."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise _DamagedError(f"{path} is no file")
    return status


def _is_of(manifest: dict[str, Any], index: IndexTable) -> bool:
    return (manifest["build_id"], manifest["codec_id"]) == (index.header.build_id, index.header.codec_id)


def _committed(index: IndexTable) -> str:
    """Time at which the open version was committed."""
    with storage_errors(index.place()):
        times = {int(version["version"]): version["timestamp"] for version in index.table.list_versions()}
    return str(times.get(index.table.version))


def _names(index: IndexTable) -> list[str]:
    """The names of a segment's arrays."""
    return [*_NAMES, *(f"{column}_{part}" for column in string_columns(index.header) for part in ("text", "offsets"))]


def _open(folder: Path, entry: dict[str, Any], index: IndexTable) -> Segment:
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
    problem = segment_problem(segment, index.codec)
    if problem:
        raise _DamagedError(f"{place}: {problem}")
    return segment


def _map(path: Path) -> np.ndarray:
    with open_plain(path) as file:
        status = os.fstat(file.fileno())
        # Small files are read, because the system limits the number of memory maps; and so are those that other users
        # can change, which could be changed after they have been checked.
        if status.st_size <= _MAPPED or not only_ours(status):
            return np.load(file, allow_pickle=False)
        if np.lib.format.read_magic(file) != (1, 0):
            raise _DamagedError(f"{path} is of another version of NumPy's format")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        if by_column or dtype.hasobject:
            raise _DamagedError(f"{path} has another layout")
        return np.memmap(file, dtype, "r", file.tell(), shape)


def _store_manifest(index: IndexTable, items: list[_OnDisk], folder: Path, known: Checksums) -> None:
    manifest = {
        "format": _FORMAT,
        "table": index.name,
        "build_id": index.header.build_id,
        "codec_id": index.header.codec_id,
        "version": index.table.version,
        "committed": _committed(index),
        "segments": [item.entry for item in items],
        "table_files": with_new_files(index, known),
    }
    _replace_manifest(folder, manifest)


def _replace_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    checksum = zlib.crc32(json.dumps(manifest).encode())
    write_atomically(folder / _MANIFEST, json.dumps({"crc": checksum, "arrays": manifest}, indent=1))


def _remove_unnamed(folder: Path, items: list[_OnDisk]) -> None:
    named = {item.entry["name"]: item.entry["files"] for item in items}
    for path in (*folder.glob("segment-*"), *folder.glob(".segment-*")):  # the second were never completed
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

"""Derived arrays: all segments of an index at one version of its table, kept on disk next to the table.

A segment is a fixed group of up to 65,536 rows, see `segments`; `array_files` writes and reads the files.

    arrays/arrays.json          the version, the segments with size, time and CRC-32 of each file, and the checksums of
                                the table's files (`table_files`)
    arrays/SEGMENT/NAME.npy     the arrays of one segment
    arrays/ROUTING/NAME.npy     the routing points, if the index has outgrown the centroids of its codec, see `routing`
    arrays/SEGMENT/deleted-VERSION.npy   which of its rows are deleted
    arrays/calibration.json     what searches were measured to find (`plugin/search/calibrator.py`); not listed, and
                                checked by its content

The table is the source of truth. `load_arrays` brings the arrays to the version that is open: new rows make a new
segment, deleted rows are marked, and files that are missing, damaged or of another table are made again. When the table
has grown by half, routing points are found again, and all segments get new inverted lists. Files are complete before
arrays.json lists them, and arrays.json is replaced in one step. Files that are no longer listed are removed; readers
that have them mapped can still use them.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import numpy as np

from ...onnx_export.progress import Progress
from ..codec.codec import ResidualCodec
from ..errors import BusyError
from ..table.database import storage_errors
from ..table.locks import LOCK_MODE, LOCK_VARIABLE, lock_seconds
from ..table.table import IndexTable
from .array_files import (
    MANIFEST,
    SMALL,
    UNUSABLE,
    OnDisk,
    Points,
    Stored,
    arrays_folder,
    is_of,
    load_stored,
    read_manifest,
    remove_unnamed,
    store_deleted,
    store_lists,
    store_manifest,
    store_routing,
    store_segment,
    table_checksums,
)
from .postings import MAX_ROWS
from .routing import Routing, is_wanted
from .segments import RowKeys, Segment, build_segment, parts, read_keys, with_lists
from .table_files import check_files

_logger = logging.getLogger(__name__)

_MOSTLY_DELETED = 0.3  # a segment with a larger share of deleted rows is made again
_LOCK_FILE = "arrays.lock"
_LOCK_SECONDS = 120.0  # another process that makes the arrays is waited for; one that holds the lock for ever, too


@dataclass(frozen=True)
class Arrays:
    """All codes of an index at one version.

    Attributes:
        version: version of the table.
        segments: the codes, in groups of rows.
        routing: the routing points that inverted lists are of; None if they are of the centroids.
    """

    version: int
    segments: tuple[Segment, ...]
    routing: Routing | None = None


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
    check_files(index, table_checksums(index) or {}, up_to=SMALL)
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
    files, size = check_files(index, table_checksums(index) or {}, progress=progress)
    folder = arrays_folder(index)
    if not os.path.lexists(folder / MANIFEST):
        return files, size, True
    seconds = lock_seconds(_LOCK_SECONDS)
    try:
        with filelock.FileLock(folder / _LOCK_FILE, timeout=seconds, mode=LOCK_MODE):
            stored = load_stored(folder, index, every_checksum=True)
    except filelock.Timeout:
        raise BusyError(
            f"{folder / _LOCK_FILE}: another process holds this lock for longer than {seconds:g} s; wait until it "
            f"ends, or allow more time ({LOCK_VARIABLE})"
        ) from None
    except PermissionError:  # read-only
        return files, size, True
    except UNUSABLE:
        with storage_errors(f"folder {folder}"):
            (folder / MANIFEST).unlink()
        return files, size, False
    sizes = [about[0] for entry in stored.entries() for about in entry["files"].values()]
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
        manifest = read_manifest(arrays_folder(index))
        if not is_of(manifest, index) or manifest["version"] != index.table.version:
            return {}
        files = [item for entry in manifest["segments"] for item in entry["files"].items()]
        names = dict.fromkeys(Path(name).stem.split("-")[0] for name, _ in files)
        sizes = {n: sum(about[0] for name, about in files if Path(name).stem.split("-")[0] == n) for n in names}
        if manifest["routing"] is not None:
            sizes["routing"] = sum(about[0] for about in manifest["routing"]["files"].values())
        return sizes
    except UNUSABLE:
        return {}


def _in_memory(index: IndexTable, *, residuals: bool) -> Arrays:
    segments = [build_segment(index, part, residuals=residuals) for part in parts(read_keys(index))]
    routing = _routing_for(index.codec, segments, None) if residuals else None
    if routing is not None:
        segments = [with_lists(segment, index.codec, routing) for segment in segments]
    return Arrays(index.table.version, tuple(segments), routing)


def _up_to_date(index: IndexTable, folder: Path) -> Arrays | None:
    """The segments on disk, if nothing has to be written: then no lock is needed, which another process may hold.

    Files that another process removes meanwhile are missing here, and then the lock is waited for.
    """
    try:
        stored = load_stored(folder, index, may_write=False)
    except UNUSABLE:
        return None
    if stored.version != index.table.version or table_checksums(index) is None:
        return None
    return _arrays(stored)


def _synchronized(index: IndexTable, folder: Path) -> Arrays:
    version = index.table.version
    known = table_checksums(index)
    try:
        stored = load_stored(folder, index)
    except UNUSABLE:
        stored = Stored([], Points(), -1)
    remove_unnamed(folder, stored)  # left by an interruption
    if stored.version == version and known is not None:
        return _arrays(stored)
    rows = read_keys(index)
    kept = [_without_missing(item, rows) for item in stored.items]
    missing = _not_in(rows, [item.segment.keys() for item in kept])
    kept, missing = _compacted(kept, missing)
    marked = [store_deleted(item, folder, version) for item in kept]
    made = [store_segment(index, part, folder, stored.points.routing) for part in parts(missing)]
    current = Stored([item for item in marked + made if len(item.segment)], stored.points, version)
    # A reader of an older version does not replace the arrays of a newer one.
    if stored.version <= version:
        current = _routed(index, current, folder)
        store_manifest(index, current, folder, known or {})
        remove_unnamed(folder, current)
    return _arrays(current)


def _arrays(stored: Stored) -> Arrays:
    return Arrays(stored.version, tuple(item.segment for item in stored.items), stored.points.routing)


def _routed(index: IndexTable, current: Stored, folder: Path) -> Stored:
    """The same segments with lists of other routing points, where the present ones no longer fit."""
    routing = _routing_for(index.codec, [item.segment for item in current.items], current.points.routing)
    if routing is current.points.routing or routing is None:
        return current
    points = store_routing(routing, index.codec, folder)
    items = [store_lists(item, folder, index, points.routing) for item in current.items]
    return Stored(items, points, current.version)


def _routing_for(codec: ResidualCodec, segments: list[Segment], known: Routing | None) -> Routing | None:
    """The routing for ``segments``: ``known`` as long as it fits, new points where they are wanted, or None."""
    n_tokens = sum(len(segment.centroid_ids) for segment in segments)
    if known is not None and known.fits(n_tokens):
        return known
    if not is_wanted(codec, n_tokens):
        return known
    _logger.info("finding routing points for %s token vectors, from their codes", f"{n_tokens:,}")
    return Routing.train(codec, [segment.codes for segment in segments])


def _without_missing(item: OnDisk, rows: RowKeys) -> OnDisk:
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


def _compacted(items: list[OnDisk], missing: RowKeys) -> tuple[list[OnDisk], RowKeys]:
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

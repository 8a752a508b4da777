"""Checksums of the files of an index's table, in a local folder: LanceDB itself has none.

LanceDB never changes a file that it has written, so a file that changes is damaged. The checksums are kept in
arrays.json, and are taken when the derived arrays are brought to a version of the table.

A manifest (`_versions/*.manifest`) is the one file whose name comes again: in a table that was restored from a copy.
Each is therefore kept together with the name of a transaction file of its version, which never comes again, and is
compared only while that is there.
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

from ...onnx_export.progress import Progress, no_progress
from ..errors import StorageError
from ..table.database import local_folder
from ..table.table import IndexTable

# For each file, by its path in the folder of the table: size, CRC-32, and the transaction file of a manifest.
Checksums = dict[str, tuple[int, int, str | None]]

_BLOCK = 1 << 22
_MANIFESTS, _TRANSACTIONS = "_versions", "_transactions"
_NEVER_CHANGED = ("data/**/*.*", "_deletions/*", "_indices/*/*", f"{_TRANSACTIONS}/*.txn", f"{_MANIFESTS}/*.manifest")


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def with_new_files(index: IndexTable, known: Checksums) -> Checksums:
    """The checksums of all files of the table: those known, and those of files that have come since."""
    folder = _table_folder(index)
    if folder is None:
        return {}
    paths = {path.relative_to(folder).as_posix(): path for pattern in _NEVER_CHANGED for path in folder.glob(pattern)}
    fresh = {name: path for name, path in paths.items() if name not in known or not _is_comparable(folder, known[name])}
    # The versions since the last time share the last of their transactions: they are removed together, or later ones.
    transactions = [name for name in fresh if name.startswith(_TRANSACTIONS)]
    newest = max(transactions, key=lambda name: paths[name].stat().st_mtime_ns, default=None)
    made: Checksums = {}
    for name, path in fresh.items():
        is_manifest = name.startswith(_MANIFESTS)
        if newest or not is_manifest:
            with contextlib.suppress(FileNotFoundError):  # `optimize` has just removed it
                made[name] = (path.stat().st_size, checksum(path), newest if is_manifest else None)
    return {**{name: about for name, about in known.items() if name in paths}, **made}


def check_files(
    index: IndexTable, known: Checksums, *, up_to: int | None = None, progress: Progress = no_progress
) -> tuple[int, int]:
    """Compare the files of the table with their checksums; files that `optimize` has removed are passed over.

    Args:
        index: the open table.
        known: what was kept.
        progress: called as the work proceeds.
        up_to: compare the sizes only if all files together have more bytes; None always compares the checksums.

    Returns:
        How many files were compared, and their bytes.

    Raises:
        StorageError: a file is damaged, or the manifest of the latest version is gone.
    """
    folder = _table_folder(index)
    if folder is None or not known:
        return 0, 0
    whole = up_to is None or sum(size for size, _, _ in known.values()) <= up_to
    latest = min((name for name in known if name.startswith(_MANIFESTS)), default="")  # LanceDB counts them down
    files = read = 0
    for number, (name, about) in enumerate(known.items()):
        progress("check files", number, len(known), 0)
        path, (size, crc, _) = folder / name, about
        if not _is_comparable(folder, about):
            continue
        try:
            if path.stat().st_size != size or (whole and checksum(path) != crc):
                raise _damaged(index, path, "is not as it was written")
        except FileNotFoundError:
            newer = any(f"{_MANIFESTS}/{other.name}" < name for other in (folder / _MANIFESTS).glob("*.manifest"))
            if name == latest and not newer:
                raise _damaged(index, path, "is missing, and with it the latest version of the table") from None
            continue
        files, read = files + 1, read + (size if whole else 0)
    progress("check files", len(known), len(known), 0)
    return files, read


def _is_comparable(folder: Path, about: tuple[int, int, str | None]) -> bool:
    return about[2] is None or (folder / about[2]).exists()


def _table_folder(index: IndexTable) -> Path | None:
    folder = local_folder(index.database)
    return None if folder is None else folder / f"{index.name}.lance"


def _damaged(index: IndexTable, path: Path, problem: str) -> StorageError:
    return StorageError(f"{index.place()}: {path} {problem}; restore the table from a copy, or create it again")

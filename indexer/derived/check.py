"""A whole index compared with its checksums, as openings do it for small ones only."""

from __future__ import annotations

from dataclasses import dataclass

from ...onnx_export.progress import Progress
from ..table.table import IndexTable
from .arrays import check_arrays, load_arrays
from .postings import MAX_ROWS
from .segments import check_codes, parts, read_keys


@dataclass(frozen=True)
class CheckReport:
    """What `Index.check` has checked.

    Attributes:
        files: number of files that were compared with their checksums. A database in an object store has none of its
            table's: the store has checksums of its own.
        bytes: number of bytes in them.
        rows: number of rows whose codes were compared with the codec.
        rebuilt: derived arrays were damaged, and have been made again.
    """

    files: int
    bytes: int
    rows: int
    rebuilt: bool


def check_index(index: IndexTable, progress: Progress) -> CheckReport:
    """Check an open index; see `Index.check`.

    Args:
        index: the open table, whose codec was checked when it was opened.
        progress: called as the work proceeds.

    Returns:
        What was checked.

    Raises:
        StorageError: the table is damaged, or cannot be read.
    """
    files, size, usable = check_arrays(index, progress)
    rows = read_keys(index)
    for number, part in enumerate(parts(rows)):
        progress("check rows", number * MAX_ROWS, len(rows), 0)
        check_codes(index, part)
    progress("check rows", len(rows), len(rows), 0)
    if not (usable and files):
        load_arrays(index)  # makes what is damaged again, and takes the checksums of files that have none
    return CheckReport(files, size, len(rows), not usable)

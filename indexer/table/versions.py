"""The versions of an index that are kept, and how to go back to one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lancedb.table import Table

from ...onnx_export.errors import InputError
from .changes import on_latest
from .table import IndexTable, open_index_table


@dataclass(frozen=True)
class IndexVersion:
    """A version of an index: what each write leaves.

    Attributes:
        version: its number.
        time: when it was written, in the time zone of this machine.
        rows: number of its rows; in an index of passages each passage is a row.
    """

    version: int
    time: datetime
    rows: int


def kept_versions(index: IndexTable) -> list[IndexVersion]:
    """The versions that are kept, the oldest first.

    Raises:
        StorageError: the table cannot be read.
    """

    def listed(table: Table) -> list[IndexVersion]:
        return [
            IndexVersion(int(one["version"]), one["timestamp"].astimezone(), int(one["metadata"]["total_rows"]))
            for one in table.list_versions()
        ]

    return sorted(on_latest(index, listed), key=lambda version: version.version)


def restore_version(index: IndexTable, version: int) -> None:
    """Make an earlier version the latest one; the later ones are kept.

    Args:
        index: the open table.
        version: the number of the version.

    Raises:
        InputError: the version is not kept.
        NotAnIndexError: its codec is no longer there.
        WriteConflictError: other writers got in the way several times.
        StorageError: the table cannot be read or written.
    """
    kept = [one.version for one in kept_versions(index)]
    if version not in kept:
        raise InputError(
            f"{index.place()} does not keep version {version}; use one of {', '.join(map(str, kept))} "
            "(`tansaku optimize` removes old versions)"
        )
    open_index_table(index.database, index.name, version=version)  # whether it can be read, with its codec

    def restore(table: Table) -> None:
        table.checkout(version)
        table.restore()

    on_latest(index, restore)

"""Commits counted: the rows that a version of the table holds against those that were handed to LanceDB.

LanceDB has reported commits as done that lacked rows. What is missing is found here while the version before and the
staged rows are still there: the commit is undone, and a StorageError says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lancedb.db import DBConnection
from lancedb.expr import col
from lancedb.table import Table

from ..errors import StorageError
from .database import find_table, storage_errors
from .schema import read_header

T = TypeVar("T")

_REMEDY = (
    "{undone}, and the encoded rows are kept. Repeat the call; if it fails again, leave out the column of the least "
    "common type and report this"
)


def check_made(database: DBConnection, name: str, version: int, rows: int) -> None:
    """Raise StorageError unless ``version``, which made the table or replaced all of its rows, holds ``rows`` rows.

    The commit is then undone: the rows before it come back, or the table is dropped where it was new.
    """
    found = _at(database, name, version, lambda table: table.count_rows())
    if found not in (rows, None):
        _undo(database, name, version, f"LanceDB stored {found:,} of {rows:,} rows")


def check_merged(
    database: DBConnection, name: str, version: int, write_id: int, rows: int, kept: Sequence[str]
) -> None:
    """Raise StorageError unless the commit ``version`` wrote ``rows`` rows of the write ``write_id``.

    Where it may have left rows with the ids ``kept`` as they were, the table must hold these ids at least. The commit
    is undone, unless another has followed it.
    """

    def count(table: Table) -> int:
        written = f"write_id = {int(write_id)} AND _row_last_updated_at_version = {int(version)}"
        found = table.count_rows(written)
        if found < rows and kept:
            return table.search().where(col("id").isin(list(kept))).select(["id"]).to_arrow().num_rows
        return found

    found = _at(database, name, version, count)
    if found not in (rows, None):
        _undo(database, name, version, f"LanceDB stored {found:,} of {rows:,} rows that were merged")


def check_made_by(database: DBConnection, name: str, build_id: int, rows: int | None) -> None:
    """`check_made` for the version that an interrupted build has made; nothing if that or ``rows`` is not known."""
    if rows is None:
        return
    for version in sorted(_versions(database, name)):
        if _at(database, name, version, lambda table: read_header(table.schema, name).build_id) == build_id:
            check_made(database, name, version, rows)
            return


def _at(database: DBConnection, name: str, version: int, look: Callable[[Table], T]) -> T | None:
    """What ``look`` finds in the table at ``version``; None if that has been given up, by an `optimize` after it."""
    try:
        with storage_errors(f"table {name!r}"):
            table = find_table(database, name, version)
            return None if table is None else look(table)
    except StorageError:
        if version in _versions(database, name):
            raise
        return None


def _versions(database: DBConnection, name: str) -> set[int]:
    with storage_errors(f"table {name!r}"):
        table = find_table(database, name)
        return set() if table is None else {int(kept["version"]) for kept in table.list_versions()}


def _undo(database: DBConnection, name: str, version: int, problem: str) -> None:
    undone = f"the table was left as it is, in version {version}, because another write has followed"
    with storage_errors(f"table {name!r}: {problem}, and this could not be undone"):
        table = find_table(database, name)
        if table is not None and table.version == version:
            if version == 1:
                database.drop_table(name)
                undone = "the table was removed again"
            elif version - 1 not in _versions(database, name):
                undone = f"the table was left as it is, because version {version - 1} has been given up"
            else:
                table.restore(version - 1)
                undone = "the version before was put back"
    raise StorageError(f"table {name!r}: {problem}; {_REMEDY.format(undone=undone)}")

"""Columns that a table gets after it was made. LanceDB adds them without a rewrite; rows before are null there.

A column in which no row has a value has no type of its own: it is stored as text, and takes the type of its first
values.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from lancedb.table import Table

from ..errors import WriteConflictError
from .changes import on_latest
from .database import find_table, storage_errors
from .table import IndexTable


def empty_columns(index: IndexTable, fields: Sequence[pa.Field]) -> set[str]:
    """The columns in which no row has a value.

    Args:
        index: the open table.
        fields: the columns to look at; only those of strings can be meant.

    Raises:
        StorageError: the table cannot be read.
    """
    names = [field.name for field in fields if pa.types.is_string(field.type)]
    return on_latest(index, lambda table: {name for name in names if _is_empty(table, name)})


def add_columns(index: IndexTable, fields: Sequence[pa.Field]) -> None:
    """Add columns that the table lacks. An empty column of another type is replaced.

    Args:
        index: the open table.
        fields: the columns; those that are there already are left alone.

    Raises:
        WriteConflictError: another writer gave a column of the same name another type, or values meanwhile; or other
            writers got in the way several times, or replaced the table.
        StorageError: the disk or the object store failed.
    """

    def add(table: Table) -> None:
        there = {field.name: field.type for field in table.schema}
        missing = [field for field in fields if there.get(field.name) != field.type]
        replaced = [field.name for field in missing if field.name in there]
        if not missing:
            return
        if not all(_is_empty(table, name) for name in replaced):
            raise WriteConflictError(
                f"{index.place()}: another writer gave the columns {', '.join(map(repr, replaced))} values of another "
                "type; open the index again and repeat"
            )
        if replaced:
            _drop_empty(index, table, replaced)
        table.add_columns([pa.field(field.name, field.type) for field in missing])

    on_latest(index, add)


def _drop_empty(index: IndexTable, table: Table, names: list[str]) -> None:
    """Drop columns, unless another writer has filled one in the moment between looking and dropping."""
    dropped = int(table.drop_columns(names).version)
    with storage_errors(index.place()):
        before = find_table(index.database, index.name, dropped - 1)
    if before is not None and not all(_is_empty(before, name) for name in names if name in before.schema.names):
        table.checkout(dropped - 1)
        table.restore()
        raise WriteConflictError(
            f"{index.place()}: another writer filled a column that had been empty, and nothing was written; repeat"
        )


def _is_empty(table: Table, name: str) -> bool:
    if set(".`") & set(name):  # LanceDB would read a path; columns of ours have no such names
        return False
    return not len(table.search().where(f"`{name}` IS NOT NULL").select([name]).limit(1).to_arrow())

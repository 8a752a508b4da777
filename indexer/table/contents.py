"""What a database holds: its indexes, their documents, and how to remove one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from lancedb.db import DBConnection

from ..errors import WriteConflictError
from .codec_table import codec_table
from .conditions import Where, condition_errors, condition_sql
from .database import drop_table, side_folder, storage_errors, table_names
from .schema import user_fields
from .table import IndexTable, find_header, open_index_table

_ROWS = 8192  # of one query: Lance reads ahead within it


def index_names(database: DBConnection) -> list[str]:
    """The names of the indexes in a database, sorted. Tables that tansaku did not make are left out.

    Raises:
        StorageError: the database cannot be read.
    """
    return sorted(name for name in table_names(database) if find_header(database, name) is not None)


def count_documents(index: IndexTable, condition: str | None = None) -> int:
    """Number of documents: of rows or, in an index of passages, of different ``parent_id``.

    Args:
        index: the open table.
        condition: LanceDB's SQL that rows must meet; None means all rows.
    """
    if not index.header.passage_tokens:
        return index.table.count_rows(condition)
    rows = index.table.search().select(["parent_id"])
    found = (rows if condition is None else rows.where(condition)).to_arrow()
    return len(found["parent_id"].unique())


def stored_documents(index: IndexTable, where: Where | None = None) -> Iterator[dict[str, Any]]:
    """What was given for each row: id, title, text and the caller's columns; of a passage also its place.

    Args:
        index: the open table.
        where: a condition over the columns; None means all rows.

    Yields:
        One dict for each row, of `Index.create`'s fields; of a passage with ``parent_id`` and ``passage``.

    Raises:
        InputError: the condition is not valid.
        StorageError: the table cannot be read.
    """
    places = ["parent_id", "passage"] if index.header.passage_tokens else []
    columns = ["id", *places, "title", "text", *(field.name for field in user_fields(index.table.schema, index.header))]
    condition = None
    if where is not None:
        condition = condition_sql(where, index.table.schema, index.header, if_empty="leave it out for all rows")
    with condition_errors(index.place(), where or ""):
        for start in range(0, index.table.count_rows(condition), _ROWS):
            rows = index.table.search().select(columns).offset(start).limit(_ROWS)
            yield from (rows if condition is None else rows.where(condition)).to_arrow().to_pylist()


def drop_index(database: DBConnection, name: str, *, version: int | None = None) -> None:
    """Remove an index: its table, its codecs and what is kept beside it.

    Args:
        database: the database.
        name: name of the table.
        version: the version that it must still have; None means any.

    Raises:
        TableNotFoundError: there is no such table.
        WriteConflictError: it has another version.
        NotAnIndexError: the table was not made by tansaku.
        StorageError: the disk or the object store failed; or there is a link in what would be removed.
    """
    index = open_index_table(database, name)
    if version is not None and index.table.version != version:
        raise WriteConflictError(f"{index.place()} was changed meanwhile, and was not removed")
    beside = side_folder(database, name)
    with storage_errors(index.place()):
        database.drop_table(name)
        drop_table(database, codec_table(name))
        shutil.rmtree(beside, ignore_errors=True)

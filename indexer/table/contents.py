"""What a database holds: its indexes, their documents, and how to remove one."""

from __future__ import annotations

import difflib
import itertools
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.compute as pc
from lancedb.db import DBConnection

from ...onnx_export.errors import InputError
from ..errors import StorageError, WriteConflictError
from .codec_table import codec_table
from .columns_of_rows import read_columns
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
    return len(read_columns(index.table, ["parent_id"], condition)["parent_id"].unique())


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
    condition = _condition(index, where)
    with condition_errors(index.place(), where or ""):
        for start in range(0, index.table.count_rows(condition), _ROWS):
            yield from _rows(index, condition, given_columns(index), start, _ROWS)


def page_of_documents(
    index: IndexTable, where: Where | None, *, start: int, limit: int, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Some of what `stored_documents` gives. Rows of one version of a table are always in the same order.

    Args:
        index: the open table.
        where: a condition over the columns; None means all rows.
        start: number of rows that come before.
        limit: largest number of rows.
        columns: what is read of each row, of `given_columns`; None reads all.

    Raises:
        InputError: the condition is not valid, or there is no such column.
        StorageError: the table cannot be read.
    """
    known = given_columns(index)
    for name in columns or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InputError(f"{index.place()} has no column {name!r}; did you mean {near!r}?")
    condition = _condition(index, where)
    wanted = known if columns is None else list(dict.fromkeys(["id", *columns]))
    with condition_errors(index.place(), where or ""), storage_errors(index.place()):
        return _rows(index, condition, wanted, start, limit)


def count_rows(index: IndexTable, where: Where | None = None) -> tuple[int, int]:
    """Number of rows and of documents that meet a condition.

    Args:
        index: the open table.
        where: a condition over the columns; None means all rows.

    Raises:
        InputError: the condition is not valid.
        StorageError: the table cannot be read.
    """
    condition = _condition(index, where)
    with condition_errors(index.place(), where or ""), storage_errors(index.place()):
        rows = index.table.count_rows(condition)
        return rows, count_documents(index, condition) if index.header.passage_tokens else rows


def given_columns(index: IndexTable) -> list[str]:
    """The columns with what was given for a row; of a passage also with its place."""
    places = ["parent_id", "passage"] if index.header.passage_tokens else []
    return ["id", *places, "title", "text", *(field.name for field in user_fields(index.table.schema, index.header))]


def _condition(index: IndexTable, where: Where | None) -> str | None:
    if where is None:
        return None
    return condition_sql(where, index.table.schema, index.header, if_empty="leave it out for all rows")


def _rows(index: IndexTable, condition: str | None, columns: list[str], start: int, limit: int) -> list[dict[str, Any]]:
    rows = index.table.search().select(columns).offset(start).limit(limit)
    return (rows if condition is None else rows.where(condition)).to_arrow().to_pylist()


def joined_documents(index: IndexTable, where: Where | None = None) -> Iterator[dict[str, Any]]:
    """What was given for each document: as `stored_documents`, but the passages of a document are joined.

    Where a passage ends, the text has a line end in place of the white space that was there. Memory: about 100 bytes
    for each passage.

    Args:
        index: the open table.
        where: a condition over the columns, which one passage of the document must meet; None means all documents.

    Yields:
        One dict for each document, of `Index.create`'s fields.

    Raises:
        InputError: the condition is not valid.
        StorageError: the table cannot be read, or the version that is open has been removed.
    """
    if not index.header.passage_tokens:
        yield from stored_documents(index, where)
        return
    fields = [field.name for field in user_fields(index.table.schema, index.header)]
    passages = _passages(index, _row_ids(index, where), ["parent_id", "title", "text", *fields])
    for doc_id, found in itertools.groupby(passages, key=lambda passage: passage["parent_id"]):
        parts = list(found)
        text = "\n".join(part["text"] for part in parts)
        yield {"id": doc_id, "title": parts[0]["title"], "text": text, **{name: parts[0][name] for name in fields}}


def _row_ids(index: IndexTable, where: Where | None) -> list[int]:
    """The row ids of all passages of documents that a condition finds, document by document and in order."""
    with condition_errors(index.place(), where or ""), storage_errors(index.place()):
        rows = read_columns(index.table, ["parent_id", "passage"])
        if where is not None:
            condition = condition_sql(
                where, index.table.schema, index.header, if_empty="leave it out for all documents"
            )
            found = read_columns(index.table, ["parent_id"], condition)
            rows = rows.filter(pc.is_in(rows["parent_id"], found["parent_id"].unique()))  # pyright: ignore[reportAttributeAccessIssue]
    return rows.sort_by([("parent_id", "ascending"), ("passage", "ascending")])["_rowid"].to_pylist()


def _passages(index: IndexTable, row_ids: list[int], columns: list[str]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(row_ids), _ROWS):
        wanted = row_ids[start : start + _ROWS]
        with storage_errors(index.place()):
            found = index.table.take_row_ids(wanted).select(columns).with_row_id().to_arrow().to_pylist()
        by_id = {row.pop("_rowid"): row for row in found}
        if len(by_id) < len(wanted):
            raise StorageError(f"{index.place()}: version {index.table.version} has been removed; read it again")
        yield from (by_id[row_id] for row_id in wanted)


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

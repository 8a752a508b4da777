"""Fetch: the rows of the table behind row numbers, as hits or as whole documents."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...indexer.errors import StorageError
from ...indexer.read.documents import Document
from ...indexer.table.database import storage_errors
from ...indexer.table.schema import RESERVED_FIELDS, IndexHeader, internal_fields, user_fields
from ...onnx_export.errors import InputError
from .results import Hit, RankedRows
from .stored_codes import StoredCodes

ALWAYS = ("id", "score")  # what all hits have
_TEXTS = ("title", "text")
_ROWS_READ_AT_ONCE = 4096


def chosen_columns(codes: StoredCodes, fields: Sequence[str] | None) -> list[str]:
    """The columns to read for the ``fields`` of `SearchOptions`.

    Raises:
        InputError: A name that hits do not have.
    """
    own = hit_columns(codes.schema, codes.index.header)
    columns = [*_TEXTS, *own]
    if fields is None:
        return columns
    for name in fields:
        if name not in (*columns, *ALWAYS):
            known = ", ".join([*ALWAYS, *columns])
            near = difflib.get_close_matches(name, [*ALWAYS, *columns], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{codes.index.place()}: hits have no field {name!r}; use {known}{hint}")
    return [name for name in dict.fromkeys(fields) if name in columns]


def fetch_hits(codes: StoredCodes, ranked: RankedRows, columns: Sequence[str], *, passages: bool = False) -> list[Hit]:
    """The ranked rows as hits, in the same order.

    Args:
        codes: The index's codes.
        ranked: The rows.
        columns: What is read of them, see `chosen_columns`.
        passages: Whether hits have the ids of passages, not those of the documents.

    Raises:
        StorageError: The table cannot be read, or the version that is open has been removed.
    """
    (hits,) = fetch_many(codes, [ranked], columns, passages=passages)
    return hits


def fetch_many(
    codes: StoredCodes, ranked: Sequence[RankedRows], columns: Sequence[str], *, passages: bool = False
) -> list[list[Hit]]:
    """`fetch_hits` for several queries: the rows of all are read together, a row that several found once.

    Args:
        codes: The index's codes.
        ranked: The rows of each query.
        columns: What is read of them, see `chosen_columns`.
        passages: Whether hits have the ids of passages, not those of the documents.

    Raises:
        StorageError: As `fetch_hits`.
    """
    rows = np.concatenate([np.empty(0, np.int64), *(of_one.rows for of_one in ranked)])
    scores = np.concatenate([np.empty(0, np.float32), *(of_one.scores for of_one in ranked)])
    hits: list[Hit] = []
    for start in range(0, len(rows), _ROWS_READ_AT_ONCE):
        at_once = rows[start : start + _ROWS_READ_AT_ONCE]
        records: list[dict[str, Any]] = [{} for _ in at_once]
        if columns:
            records = take_rows(codes, at_once, list(columns)).to_pylist()
        ids = codes.ids(at_once, of_passages=passages)
        hits += [
            Hit(
                id=hit_id,
                score=score,
                title=record.pop("title", ""),
                text=record.pop("text", ""),
                fields=record,
            )
            for hit_id, record, score in zip(ids, records, scores[start : start + len(ids)].tolist(), strict=True)
        ]
    ends = np.cumsum([len(of_one.rows) for of_one in ranked]).tolist()
    return [hits[end - len(of_one.rows) : end] for of_one, end in zip(ranked, ends, strict=True)]


def hit_columns(schema: pa.Schema, header: IndexHeader) -> list[str]:
    """The names of `Hit.fields`: the caller's columns, and in an index of passages the passage's place."""
    others = {*RESERVED_FIELDS, *internal_fields(header)}
    return [name for name in schema.names if name not in others]


def read_documents(codes: StoredCodes, ids: list[str]) -> list[Document | None]:
    """Whole documents or passages by id, in the order of ``ids``; None for an id that is not in the index.

    Raises:
        StorageError: As `fetch_hits`.
    """
    documents = joined(document_parts(codes, ids))
    return [documents.get(doc_id) for doc_id in ids]


def document_parts(codes: StoredCodes, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of documents or passages by id: title, text, the caller's columns, and the number of a passage.

    Raises:
        StorageError: As `fetch_hits`.
    """
    header = codes.index.header
    fields = [field.name for field in user_fields(codes.schema, header)]
    distinct = list(dict.fromkeys(ids))
    positions, rows = codes.find_ids(distinct)
    order = ["passage"] if header.passage_tokens else []
    records = take_rows(codes, rows, ["title", "text", *order, *fields]).to_pylist()
    parts: dict[str, list[dict[str, Any]]] = {}
    for position, record in zip(positions.tolist(), records, strict=True):
        part: dict[str, Any] = {"title": record["title"], "text": record["text"]}
        part["fields"] = {name: record[name] for name in fields}
        part["passage"] = record["passage"] if order else 0
        parts.setdefault(distinct[position], []).append(part)
    return parts


def joined(parts: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Document]:
    """Whole documents from `document_parts`: the passages of each in their order, one a line."""
    documents: dict[str, Document] = {}
    for doc_id, of_document in parts.items():
        in_order = sorted(of_document, key=lambda part: part["passage"])
        first = in_order[0]
        documents[doc_id] = Document(
            doc_id, "\n".join(part["text"] for part in in_order), first["title"], first["fields"]
        )
    return documents


def take_rows(codes: StoredCodes, rows: np.ndarray, columns: list[str]) -> pa.Table:
    """Columns of rows given by number, in their order; a row may be given several times.

    Raises:
        StorageError: As `fetch_hits`.
    """
    index = codes.index
    if not len(rows):
        return codes.schema.empty_table().select(columns)
    row_ids = codes.row_ids[rows].tolist()
    distinct = list(dict.fromkeys(row_ids))
    with storage_errors(index.place()):
        found = index.table.take_row_ids(distinct).select(columns).with_row_id().to_arrow()
    # LanceDB returns rows in an order of its own, and leaves out those that it does not find.
    position = {row_id: i for i, row_id in enumerate(found["_rowid"].to_pylist())}
    if len(position) < len(distinct):
        raise StorageError(f"{index.place()}: version {codes.version} has been removed; refresh and search again")
    return found.take([position[row_id] for row_id in row_ids]).drop_columns(["_rowid"])

"""Fetch: the rows of the table behind row numbers, as hits or as whole documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ...indexer.errors import StorageError
from ...indexer.read.documents import Document
from ...indexer.table.database import storage_errors
from ...indexer.table.schema import RESERVED_FIELDS, IndexHeader, internal_fields, user_fields
from .results import Hit, RankedRows
from .stored_codes import StoredCodes


def fetch_hits(codes: StoredCodes, ranked: RankedRows, *, passages: bool = False) -> list[Hit]:
    """The ranked rows with their texts and the caller's columns, in the same order.

    Args:
        codes: The index's codes.
        ranked: The rows.
        passages: Whether hits have the ids of passages, not those of the documents.

    Raises:
        StorageError: The table cannot be read, or the version that is open has been removed.
    """
    header = codes.index.header
    fields = hit_columns(codes.schema, header)
    records = take_rows(codes, ranked.rows, ["title", "text", *fields]).to_pylist()
    ids = codes.ids(ranked.rows, of_passages=passages)
    return [
        Hit(
            id=hit_id,
            score=float(score),
            title=record["title"],
            text=record["text"],
            fields={name: record[name] for name in fields},
        )
        for hit_id, record, score in zip(ids, records, ranked.scores, strict=True)
    ]


def hit_columns(schema: pa.Schema, header: IndexHeader) -> list[str]:
    """The names of `Hit.fields`: the caller's columns, and in an index of passages the passage's place."""
    others = {*RESERVED_FIELDS, *internal_fields(header)}
    return [name for name in schema.names if name not in others]


def read_documents(codes: StoredCodes, ids: list[str]) -> list[Document | None]:
    """Whole documents or passages by id, in the order of ``ids``; None for an id that is not in the index.

    Raises:
        StorageError: As `fetch_hits`.
    """
    header = codes.index.header
    fields = [field.name for field in user_fields(codes.schema, header)]
    order = ["passage"] if header.passage_tokens else []
    distinct = list(dict.fromkeys(ids))
    positions, rows = codes.find_ids(distinct)
    records = take_rows(codes, rows, ["title", "text", *order, *fields]).to_pylist()
    parts: dict[str, list[dict[str, Any]]] = {}
    for position, record in zip(positions.tolist(), records, strict=True):
        parts.setdefault(distinct[position], []).append(record)
    documents: dict[str, Document] = {}
    for doc_id, of_document in parts.items():
        if order:
            of_document.sort(key=lambda record: record["passage"])
        first = of_document[0]
        text = "\n".join(record["text"] for record in of_document)
        documents[doc_id] = Document(doc_id, text, first["title"], {name: first[name] for name in fields})
    return [documents.get(doc_id) for doc_id in ids]


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

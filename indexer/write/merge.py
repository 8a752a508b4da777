"""Add documents to an existing table, or replace documents in it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from lancedb.expr import col

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ..codec.codec import OUTGROWN_REMEDY
from ..derived.drift import is_far, measure_drift
from ..derived.routing import is_outgrown
from ..errors import WriteConflictError
from ..read.columns import ColumnTypes
from ..read.documents import Document, DocumentReader, FieldNames
from ..read.passages import Passages
from ..read.scan import scan
from ..read.vectors import GivenVectors
from ..table.changes import delete_rows, merge_rows, on_latest, slices, whole_documents
from ..table.database import side_folder
from ..table.fragments import FragmentPlace, append_fragments
from ..table.new_columns import add_columns, empty_columns
from ..table.schema import document_schema, reserved_fields, user_fields
from ..table.table import IndexTable
from .build_steps import stage_rows, with_progress
from .options import WriteOptions
from .report import BuildReport
from .rows import RowMaker
from .staging import Staging
from .workers.start import pool_of

_logger = logging.getLogger(__name__)

_MEASURED_AT_GROWTH = 1.5
_MEASURED_FROM = 100  # rows


def merge_documents(
    index: IndexTable,
    records: Iterable[Any],
    encoder: Encoder | None,
    *,
    vectors: GivenVectors | None = None,
    update: bool,
    options: WriteOptions,
) -> BuildReport:
    """Add documents to a table: the work of `Index.add` and `Index.upsert`.

    Args:
        index: the open table.
        records: the documents, as `Index.add` takes them.
        encoder: makes the token vectors; None if ``vectors`` are given.
        vectors: token vectors that the caller made.
        update: replace documents that have the same ids; False refuses such ids.
        options: how documents are read, resumed and reported.

    Returns:
        The counts of what was written.

    Raises:
        TansakuError: the errors that `Index.add` lists.
    """
    if index.header.pool > 1:
        require_extra("pooling")
    header = index.header
    there = user_fields(index.table.schema, header)
    empty = empty_columns(index, there)
    known = {field.name: field.type for field in there if field.name not in empty}
    given = (options.names or FieldNames()).arrow_types()
    _check_types(index, given, known)
    reader = DocumentReader(records, options.names, options.rejects, reserved_fields(header), vectors, known)
    documents = Passages(reader, encoder and encoder.count_document_tokens, header.passage_tokens)
    with (
        Staging(side_folder(index.database, index.name), resume=options.resume, merges=True) as staging,
        pool_of(options.workers, encoder, index.codec.dim, index.database) as pool,
    ):
        earlier = staging.write_id()
        types = ColumnTypes(given | known)
        column_types = reader.infer_types(options.progress)

        def check(chunk: list[Document]) -> None:
            types.update(chunk)
            if not update:
                check_ids(index, chunk, earlier)

        total = 0 if header.passage_tokens else reader.total
        found = scan(documents, check, reader.leave_out, options.progress, total, reader.bytes_read)
        fields = _merged(there, types.fields())
        plan = {
            "work": "upsert" if update else "append",
            "table": header.build_id,
            "model": header.fingerprint,
            "columns": sorted(str(field) for field in fields),
            "source": found.digests,
        }
        write_id = staging.begin(plan)
        maker = RowMaker(encoder, header, fields, write_id)
        # New columns, and rows that replace others, need a merge; other rows can be appended where they lie.
        appends = pool is not None and pool.is_spread and not update and not _new_columns(there, fields)
        place = FragmentPlace.of(index.database, index.name, appends=True) if appends else None
        report = stage_rows(
            documents, found, maker, index.codec, staging, reader.reject, options.progress, None, pool, place
        )
        staged = staging.batches(document_schema(fields, header), report.rows)
        batches = with_progress(staged, report.rows, options.progress)
        _add_new(index, there, fields)
        if place is not None:
            lost = append_fragments(index, place, staging.fragments().metadata, write_id, resumed=earlier is not None)
        else:
            resumed = earlier is not None
            report.updated, lost = _merge_staged(index, batches, write_id, update=update, resumed=resumed)
        if lost:
            delete_rows(index, col("write_id") == write_id)
        staging.finish()  # after a conflict too: a repeated call would meet the same conflict
        if lost:
            raise WriteConflictError(
                f"{index.place()}: another writer added {lost} of these rows at the same time, and this call added "
                "nothing; leave those documents out, or upsert them"
            )
    report.column_types = {name: kind for name, kind in column_types.items() if name not in known}
    report.rejected = 0 if options.rejects is None else options.rejects.of_call
    _say_if_a_rebuild_would_help(index, report)
    return report


def _check_types(index: IndexTable, given: Mapping[str, pa.DataType], known: Mapping[str, pa.DataType]) -> None:
    for name, kind in given.items():
        if known.get(name, kind) != kind:
            raise InputError(
                f"{index.place()}: the column {name!r} has the type {known[name]}, and values; a write cannot make it "
                f"{kind}. Leave out its type, or index all documents into a new table"
            )


def _merged(there: list[pa.Field], found: list[pa.Field]) -> list[pa.Field]:
    """The columns of a table with the types that were found, and after them those that it lacks."""
    types = {field.name: field.type for field in found}
    known = {field.name for field in there}
    return [
        *(field.with_type(types.get(field.name, field.type)) for field in there),
        *(field for field in found if field.name not in known),
    ]


def _add_new(index: IndexTable, there: list[pa.Field], fields: list[pa.Field]) -> None:
    """Give the table the columns that it lacks, and log a warning that names them."""
    new = _new_columns(there, fields)
    if not new:
        return
    add_columns(index, new)
    named = ", ".join(f"{field.name!r} ({field.type})" for field in new)
    _logger.warning("%s: new columns %s; the rows before have no value there", index.place(), named)


def _new_columns(there: list[pa.Field], fields: list[pa.Field]) -> list[pa.Field]:
    before = {field.name: field.type for field in there}
    return [field for field in fields if before.get(field.name) != field.type]


def _say_if_a_rebuild_would_help(index: IndexTable, report: BuildReport) -> None:
    """Log a warning if the codec is too small for the index as it is now, or fits the later documents badly.

    The second is measured whenever the index has grown by half: it reads numbers of every row.
    """
    if not report.rows:
        return
    rows = on_latest(index, lambda table: table.count_rows())
    if is_outgrown(index.codec, rows * report.tokens // report.rows):
        _logger.warning("%s %s", index.place(), OUTGROWN_REMEDY)
        return
    before = rows - report.rows + report.updated
    if rows < _MEASURED_FROM or _times_grown(rows) == _times_grown(before):
        return
    fit = on_latest(index, lambda table: measure_drift(index, table))
    if is_far(fit.drift, fit.later):
        _logger.warning(
            "%s: documents added later lie far from the centroids, with a mean cosine of %s, against %s at training; "
            "searches find less of them: train a new codec with Index.rebuild (tansaku rebuild)",
            index.place(),
            f"{fit.drift.cosine:.2f}",
            f"{fit.drift.trained_cosine:.2f}",
        )


def _times_grown(rows: int) -> int:
    return int(math.log(max(rows, 1), _MEASURED_AT_GROWTH))


def check_ids(index: IndexTable, documents: Sequence[Document], ours: int | None) -> None:
    """Check that the index has none of the ids of documents.

    Args:
        index: the open table.
        documents: documents or passages to be added.
        ours: write_id of an interrupted call that is being resumed; rows that it wrote are ignored. None: no such call.

    Raises:
        InputError: the index has an id already.
        StorageError: the table cannot be read.
    """
    passages = index.header.passage_tokens
    column = index.header.document_id_field
    given = {(d.parent_id if passages else d.id) or "": d for d in documents}
    condition = col(column).isin(sorted(given))
    found = on_latest(index, lambda table: table.search().where(condition).select([column, "write_id"]).to_arrow())
    stored = found.to_pylist()
    for row in stored:
        if row["write_id"] != ours:
            raise InputError(
                f"{given[row[column]].place}: document {row[column]!r} is in the index already; leave it out, give it "
                "another id, or upsert it"
            )


def _merge_staged(
    index: IndexTable, batches: Iterable[pa.RecordBatch], write_id: int, *, update: bool, resumed: bool
) -> tuple[int, int]:
    """Merge staged rows slice by slice.

    All passages of a document are in one slice. Its earlier passages are deleted in the same transaction.

    Returns:
        The number of rows that replaced others, and the number that another writer added first.
    """
    updated, lost = 0, 0
    passages = bool(index.header.passage_tokens)
    for rows in whole_documents(slices(batches), "parent_id" if passages else None):
        ids = rows["id"].to_pylist()
        if resumed:
            ours = _ids_of_write(index, ids, write_id)
            if len(ours) == len(ids):
                continue
            if not update:
                rows = _without_ids(rows, ours)
        stale = col("parent_id").isin(sorted(set(rows["parent_id"].to_pylist()))) if update and passages else None
        inserted, replaced = merge_rows(index, rows, update=update, stale=stale)
        updated += replaced
        lost += len(rows) - inserted - replaced
    return updated, lost


def _ids_of_write(index: IndexTable, ids: list[str], write_id: int) -> set[str]:
    ours = col("id").isin(ids) & (col("write_id") == write_id)
    found = on_latest(index, lambda table: table.search().where(ours).select(["id"]).to_arrow())
    return set(found["id"].to_pylist())


def _without_ids(rows: pa.Table, ids: set[str]) -> pa.Table:
    return rows.filter(pa.array([doc_id not in ids for doc_id in rows["id"].to_pylist()])) if ids else rows

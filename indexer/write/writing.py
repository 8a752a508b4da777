"""Documents into a table: a new one (`build_table`), or one that is there (`merge_documents`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.expr import col

from ...onnx_export.encode.bundle import Bundle
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.progress import Progress, no_progress
from ..errors import WriteConflictError
from ..read.columns import ColumnTypes, check_fields
from ..read.documents import Document, DocumentReader, FieldNames, GivenVectors, canonical_id, id_forms
from ..read.passages import split_documents
from ..read.rejects import Rejects
from ..read.scan import chunks, scan
from ..table.changes import delete_rows, index_text, merge_rows, slices, whole_documents
from ..table.database import find_table, side_folder, storage_errors
from ..table.schema import IndexHeader, document_schema, reserved_fields, user_fields
from ..table.table import IndexTable, check_absent, create_index_table, find_header, open_index_table
from .build import BuildReport, RowMaker, stage_rows, train_codec
from .staging import Staging


@dataclass(frozen=True)
class WriteOptions:
    """How documents are read and what happens when something goes wrong.

    Attributes:
        names: which fields are id, text and title.
        rejects: takes records that cannot be indexed; None stops at the first.
        resume: take up what an interrupted call has left; False gives it up.
        progress: called as the work goes on.
    """

    names: FieldNames | None = None
    rejects: Rejects | None = None
    resume: bool = True
    progress: Progress = no_progress


def build_table(
    database: DBConnection,
    name: str,
    records: Iterable[Any],
    encoder: Encoder | None,
    *,
    model: Bundle,
    vectors: GivenVectors | None = None,
    nbits: int,
    pool: int,
    passage_tokens: int | None,
    fulltext: bool,
    overwrite: bool,
    options: WriteOptions,
) -> BuildReport:
    """Index documents into a new table; see `Index.create`.

    ``encoder`` is None where the documents have ``vectors``; ``model`` is what they come from.
    """
    header = IndexHeader(model.name, model.fingerprint, "", 0, pool, passage_tokens, fulltext)
    reader = DocumentReader(records, options.names, options.rejects, reserved_fields(header), vectors)
    documents = Passages(reader, encoder, passage_tokens)
    with Staging(side_folder(database, name), resume=options.resume) as staging:
        there = find_header(database, name)
        if not overwrite and (there is None or there.build_id != staging.write_id()):
            check_absent(database, name)
        types = ColumnTypes()
        found = scan(documents, types.update, reader.leave_out, options.progress)
        fields = types.fields()
        plan = {
            "work": "overwrite" if overwrite else "create",
            "model": model.fingerprint,
            "nbits": nbits,
            "pool": pool,
            "passage_tokens": passage_tokens,
            "fulltext": fulltext,
            "columns": [str(field) for field in fields],
            "source": found.digests,
        }
        write_id = staging.begin(plan)
        maker = RowMaker(encoder, replace(header, build_id=write_id), fields, write_id)
        trained = staging.load_codec()
        if trained is None:
            trained = train_codec(documents, found, maker, nbits, staging, reader.reject, options.progress)
        codec, fit = trained
        maker = replace(maker, header=replace(maker.header, codec_id=codec.codec_id))
        report = stage_rows(
            documents, found, maker, codec, staging, reader.reject, options.progress, staging.load_sample()
        )
        if there is None or there.build_id != write_id:  # else the interruption came between the commit and the end
            schema = document_schema(fields, maker.header)
            rows = _counted(staging.batches(schema), report.documents, options.progress)
            create_index_table(database, name, schema, codec, fit, rows, overwrite=overwrite)
        index_text(open_index_table(database, name))
        staging.finish()
    report.rejected = 0 if options.rejects is None else options.rejects.of_call
    return report


def merge_documents(
    index: IndexTable,
    records: Iterable[Any],
    encoder: Encoder | None,
    *,
    vectors: GivenVectors | None = None,
    update: bool,
    options: WriteOptions,
) -> BuildReport:
    """Add documents to a table, with ``update`` in place of those that have their ids; see `Index.upsert`.

    ``encoder`` is None where the documents have ``vectors``.
    """
    header = index.header
    fields = user_fields(index.table.schema, header)
    reader = DocumentReader(records, options.names, options.rejects, reserved_fields(header), vectors)
    documents = Passages(reader, encoder, header.passage_tokens)
    with Staging(side_folder(index.database, index.name), resume=options.resume, merges=True) as staging:
        earlier = staging.write_id()

        def check(chunk: list[Document]) -> None:
            check_fields(chunk, fields)
            check_ids(index, chunk, earlier, may_exist=update)

        found = scan(documents, check, reader.leave_out, options.progress)
        plan = {
            "work": "upsert" if update else "append",
            "table": header.build_id,
            "model": header.fingerprint,
            "source": found.digests,
        }
        write_id = staging.begin(plan)
        maker = RowMaker(encoder, header, fields, write_id)
        report = stage_rows(documents, found, maker, index.codec, staging, reader.reject, options.progress)
        batches = _counted(staging.batches(document_schema(fields, header)), report.documents, options.progress)
        report.updated, lost = _merge_staged(index, batches, write_id, update=update, resumed=earlier is not None)
        if lost:
            delete_rows(index, col("write_id") == write_id)
        staging.finish()  # after a conflict too: the same call would meet the other's rows again
        if lost:
            raise WriteConflictError(
                f"{index.place()}: another writer has added {lost} of the rows meanwhile; nothing was added by this "
                "call"
            )
    report.rejected = 0 if options.rejects is None else options.rejects.of_call
    return report


class Passages:
    """Documents, or where ``tokens`` is given their passages; iterate over it as often as needed."""

    def __init__(self, documents: Iterable[Document], encoder: Encoder | None, tokens: int | None) -> None:
        self._documents = documents
        self._encoder = encoder
        self._tokens = tokens

    def __iter__(self) -> Iterator[Document]:
        """Yield documents or passages in order."""
        if self._tokens is None or self._encoder is None:
            yield from self._documents
            return
        for chunk in chunks(self._documents):
            yield from split_documents(chunk, self._tokens, self._encoder.count_document_tokens)


def check_ids(index: IndexTable, documents: Sequence[Document], ours: int | None, *, may_exist: bool) -> None:
    """Raise InputError for an id that the index holds, in another Unicode form or (not ``may_exist``) in the same.

    Rows of the write ``ours`` do not count: an interrupted call has written them.
    """
    passages = index.header.passage_tokens
    column = index.header.document_id_field
    given = {(d.parent_id if passages else d.id) or "": d for d in documents}
    wanted = sorted({form for doc_id in given for form in id_forms(doc_id)})
    with storage_errors(index.place()):
        query = index.table.search().where(col(column).isin(wanted)).select([column, "write_id"])
        stored = query.to_arrow().to_pylist()
    by_form = {canonical_id(doc_id): document for doc_id, document in given.items()}
    for row in stored:
        document = by_form.get(canonical_id(row[column]))
        if document is None or row["write_id"] == ours:
            continue
        if row[column] not in given:
            raise InputError(
                f"{document.place}: id {document.id!r} is in the index already in another Unicode form; use that one"
            )
        if not may_exist:
            raise InputError(
                f"{document.place}: document {row[column]!r} is in the index already; leave it out, give it another "
                "id, or upsert it"
            )


def _merge_staged(
    index: IndexTable, batches: Iterable[pa.RecordBatch], write_id: int, *, update: bool, resumed: bool
) -> tuple[int, int]:
    """Merge staged rows slice by slice; returns how many took the place of others, and how many another has added.

    All passages of a document are in one slice, and those that it had before are deleted with it.
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
    table = find_table(index.database, index.name)
    if table is None:
        return set()
    found = table.search().where(col("id").isin(ids) & (col("write_id") == write_id)).select(["id"]).to_arrow()
    return set(found["id"].to_pylist())


def _without_ids(rows: pa.Table, ids: set[str]) -> pa.Table:
    return rows.filter(pa.array([doc_id not in ids for doc_id in rows["id"].to_pylist()])) if ids else rows


def _counted(batches: Iterable[pa.RecordBatch], total: int, progress: Progress) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        progress("commit", done, total, 0)

"""Build a new table from documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from lancedb.db import DBConnection

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.extras import require_extra
from ..read.columns import ColumnTypes
from ..read.documents import DocumentReader, FieldNames
from ..read.passages import Passages
from ..read.scan import scan
from ..read.vectors import GivenVectors
from ..table.changes import index_text
from ..table.counted import check_made_by
from ..table.database import side_folder
from ..table.fragments import FragmentPlace, create_from_fragments
from ..table.schema import IndexHeader, document_schema, reserved_fields
from ..table.table import check_absent, check_replaceable, create_index_table, find_header, open_index_table
from .build_steps import stage_rows, train_codec, with_progress
from .options import WriteOptions
from .report import BuildReport
from .rows import RowMaker
from .staging import Staging
from .workers.start import pool_of


def build_table(
    database: DBConnection,
    name: str,
    records: Iterable[Any],
    encoder: Encoder | None,
    *,
    model: Encoder,
    vectors: GivenVectors | None = None,
    nbits: int,
    pool: int,
    passage_tokens: int | None,
    fulltext: bool,
    overwrite: bool,
    options: WriteOptions,
) -> BuildReport:
    """Index documents into a new table: the work of `Index.create` and `Index.create_from_vectors`.

    Args:
        database: where the table is made.
        name: name of the table.
        records: the documents, as `Index.create` takes them.
        encoder: makes the token vectors; None if ``vectors`` are given.
        model: the model that the vectors come from.
        vectors: token vectors that the caller made.
        nbits: bits per dimension of a residual.
        pool: pooling factor, see `pool_tokens`.
        passage_tokens: largest number of tokens of a passage; None indexes each document as one row.
        fulltext: keep a column for full text search.
        overwrite: replace a table of that name.
        options: how documents are read, resumed and reported.

    Returns:
        The counts of what was written.

    Raises:
        TansakuError: the errors that `Index.create` lists.
    """
    if pool > 1:
        require_extra("pooling")
    header = IndexHeader(model.bundle.name, model.bundle.fingerprint, "", 0, pool, passage_tokens, fulltext)
    reader = DocumentReader(records, options.names, options.rejects, reserved_fields(header), vectors)
    documents = Passages(reader, encoder and encoder.count_document_tokens, passage_tokens)
    with (
        Staging(side_folder(database, name), resume=options.resume) as staging,
        pool_of(options.workers, encoder, model.dim, database) as workers,
    ):
        there = find_header(database, name)
        if not overwrite and (there is None or there.build_id != staging.write_id()):
            check_absent(database, name)
        check_replaceable(database, name)
        types = ColumnTypes((options.names or FieldNames()).arrow_types())
        column_types = reader.infer_types(options.progress)
        total = 0 if passage_tokens else reader.total
        found = scan(documents, types.update, reader.leave_out, options.progress, total, reader.bytes_read)
        fields = types.fields()
        plan = {
            "work": "overwrite" if overwrite else "create",
            "model": model.bundle.fingerprint,
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
            trained = train_codec(
                documents, found, maker, nbits, staging, reader.reject, options.progress, model, workers
            )
        codec, fit = trained
        maker = replace(maker, header=replace(maker.header, codec_id=codec.codec_id))
        place = FragmentPlace.of(database, name, appends=False) if workers is not None and workers.is_spread else None
        report = stage_rows(
            documents,
            found,
            maker,
            codec,
            staging,
            reader.reject,
            options.progress,
            staging.load_sample(),
            workers,
            place,
        )
        if there is not None and there.build_id == write_id:  # the interrupted call had already committed
            check_made_by(database, name, write_id, staging.noted("rows"))
        else:
            schema = document_schema(fields, maker.header)
            how = {"overwrite": overwrite, "note_rows": partial(staging.note, "rows")}
            if place is None:
                rows = with_progress(staging.batches(schema, report.rows), report.rows, options.progress)
                create_index_table(database, name, schema, codec, fit, rows, **how)
            else:
                fragments = staging.fragments().metadata
                create_from_fragments(database, name, schema, codec, fit, fragments, **how)
                options.progress("commit", report.rows, report.rows, 0)
        index_text(open_index_table(database, name))
        staging.finish()
    report.column_types = column_types
    report.rejected = 0 if options.rejects is None else options.rejects.of_call
    return report

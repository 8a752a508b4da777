"""Rebuild an index: train a new codec on its current rows, encode each row again from its text, then swap.

The rows are read from one version of the table. Changes that other writers commit later are applied twice: before the
swap, and once more after it, for commits that arrived just before the swap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa
from lancedb.expr import col

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.progress import no_progress
from ..codec.codec import ResidualCodec
from ..errors import StorageError, WriteConflictError
from ..read.documents import Document
from ..read.scan import DOCUMENTS_PER_CHUNK, scan
from ..table.changes import delete_rows, index_text, merge_rows
from ..table.columns_of_rows import read_columns
from ..table.contents import count_documents
from ..table.counted import check_made_by
from ..table.database import side_folder, storage_errors
from ..table.new_columns import add_columns
from ..table.schema import document_schema, user_fields
from ..table.table import IndexTable, create_index_table, open_index_table
from .build_steps import noted, train_codec
from .options import WriteOptions
from .report import IDS_NAMED, BuildReport
from .rows import RowMaker, SampleCodes, compress_documents
from .staging import Staging


def rebuild_table(index: IndexTable, encoder: Encoder, nbits: int | None, options: WriteOptions) -> BuildReport:
    """Train a new codec and encode all rows with it: the work of `Index.rebuild`.

    Args:
        index: the open table.
        encoder: the model of the index, or another one that the rows get vectors of.
        nbits: bits per dimension of a residual; None keeps those of the current codec.
        options: resume and progress; the others are not used.

    Returns:
        The counts of what was written.

    Raises:
        TansakuError: the errors that `Index.rebuild` lists.
    """
    if index.header.pool > 1:
        require_extra("pooling")
    with Staging(side_folder(index.database, index.name), resume=options.resume) as staging:
        pinned = index
        plan = staging.earlier_plan()
        if index.header.build_id == staging.write_id():  # the interrupted call had already swapped
            check_made_by(index.database, index.name, index.header.build_id, staging.noted("rows"))
            fields = user_fields(index.table.schema, index.header)
            maker = RowMaker(encoder, index.header, fields, index.header.build_id)
            _apply_later_changes(index, int(plan["table"]), staging.noted("caught-up") or 0, maker)
            index_text(index)
            staging.finish()
            passages = index.header.passage_tokens is not None
            with storage_errors(index.place()):
                return BuildReport(index.table.count_rows(), documents=count_documents(index), passages=passages)
        if plan.get("work") == "rebuild" and plan.get("table") == index.header.build_id:
            pinned = _at_version(index, int(plan["version"]))
            if pinned is None:  # `optimize` has removed that version
                staging.discard()
                pinned = index
        if not pinned.table.count_rows():
            raise InputError("the index is empty; there is nothing to train a codec on")
        model = encoder.bundle
        texts = Texts(pinned)
        found = scan(texts, lambda chunk: None, _no_rejects, no_progress)
        write_id = staging.begin(
            {
                "work": "rebuild",
                "table": index.header.build_id,
                "version": pinned.table.version,
                "nbits": nbits or index.codec.nbits,
                "model": model.fingerprint,
            }
        )
        fields = user_fields(pinned.table.schema, pinned.header)
        header = replace(index.header, build_id=write_id, model=model.name, fingerprint=model.fingerprint)
        maker = RowMaker(encoder, header, fields, write_id)
        trained = staging.load_codec()
        if trained is None:
            trained = train_codec(
                texts, found, maker, nbits or index.codec.nbits, staging, _no_rejects, options.progress
            )
        codec, fit = trained
        maker = replace(maker, header=replace(maker.header, codec_id=codec.codec_id))
        report = _stage(pinned, maker, codec, staging, found.count, options)

        latest = open_index_table(index.database, index.name)
        if latest.header != index.header:
            raise _replaced(index)
        maker = replace(maker, fields=user_fields(latest.table.schema, latest.header))
        schema = document_schema(maker.fields, maker.header)
        staging.note("caught-up", latest.table.version)
        note_rows = partial(staging.note, "rows")
        staged = document_schema(fields, maker.header)
        rows = _caught_up(staging, staged, report.rows, pinned.table.version, latest, maker, codec)
        create_index_table(index.database, index.name, schema, codec, fit, rows, overwrite=True, note_rows=note_rows)
        _apply_later_changes(index, index.header.build_id, latest.table.version, maker)
        index_text(open_index_table(index.database, index.name))
        staging.finish()
    return report


class Texts:
    """The rows of a table as documents without fields, in the table's order. May be iterated over several times.

    Args:
        index: the open table.
    """

    def __init__(self, index: IndexTable) -> None:
        self._index = index

    def __iter__(self) -> Iterator[Document]:
        """Yield one document for each row.

        Raises:
            InputError: a row has no text.
            StorageError: the table cannot be read.
        """
        with storage_errors(self._index.place()):
            for batch in self._index.table.search().select(["id", "title", "text"]).to_batches(DOCUMENTS_PER_CHUNK):
                yield from _documents(batch)


def _documents(batch: pa.RecordBatch) -> list[Document]:
    rows = batch.select(["id", "title", "text"]).to_pylist()
    for row in rows:
        if not row["text"]:
            raise InputError(
                f"document {row['id']!r} was added as vectors, without a text to encode; delete it, or create the "
                "index again from all vectors"
            )
    return [Document(row["id"], row["text"], row["title"], place=f"row {row['id']!r}") for row in rows]


def _stage(
    pinned: IndexTable, maker: RowMaker, codec: ResidualCodec, staging: Staging, total: int, options: WriteOptions
) -> BuildReport:
    report = BuildReport(passages=maker.header.passage_tokens is not None)
    with storage_errors(pinned.place()):
        known = SampleCodes(staging.load_sample())
        for number, batch in enumerate(pinned.table.search().to_batches(DOCUMENTS_PER_CHUNK)):
            staged = staging.chunk_report(number)
            if staged is None:
                note = partial(noted, options.progress, "encode", report.rows, total, report.tokens)
                rows, cut = _encoded_again(batch, maker, codec, known, report.rows, note)
                staged = {
                    "documents": rows.num_rows,
                    "firsts": rows["passage"].to_pylist().count(0) if report.passages else rows.num_rows,
                    "tokens": sum(rows["token_count"].to_pylist()),
                    "truncated": len(cut),
                    "truncated_ids": cut[:IDS_NAMED],
                }
                staging.write_chunk(number, rows, staged)
            else:
                report.resumed += staged["documents"]
            report.rows += staged["documents"]
            report.documents += staged.get("firsts", staged["documents"])
            report.tokens += staged["tokens"]
            report.truncated += staged.get("truncated", 0)
            report.truncated_ids = [*report.truncated_ids, *staged.get("truncated_ids", [])][:IDS_NAMED]
            options.progress("encode", report.rows, total, report.tokens)
    report.unread, report.unread_ids = maker.unread.count, maker.unread.ids
    return report


def _encoded_again(
    batch: pa.RecordBatch,
    maker: RowMaker,
    codec: ResidualCodec,
    known: SampleCodes | None = None,
    start: int = 0,
    note: Callable[[int], None] | None = None,
) -> tuple[pa.RecordBatch, list[str]]:
    """The rows of ``batch`` with codes of the new codec; all other columns stay as they are. And the ids of cut rows.

    ``known`` has the codes of rows that were in the codec's sample, by position. ``start`` is the position of the first
    row of ``batch``. ``note`` is called now and then with the number of rows that are encoded.
    """
    known = known or SampleCodes(None)
    documents = _documents(batch)
    fresh = [document for position, document in enumerate(documents, start) if position not in known]
    vectors, truncated = maker.vectors(fresh, note) if fresh else ([], [])
    codes = compress_documents(fresh, vectors, truncated, maker, codec, _no_rejects)
    codes |= {document.id: known[p] for p, document in enumerate(documents, start) if p in known}
    kept = dict(zip(batch.schema.names, batch.columns, strict=True))
    rows = maker.batch({**kept, **maker.code_columns([codes[document.id] for document in documents], codec)})
    return rows, [document.id for document in documents if codes[document.id].truncated]


def _caught_up(
    staging: Staging,
    schema: pa.Schema,
    count: int,
    version: int,
    latest: IndexTable,
    maker: RowMaker,
    codec: ResidualCodec,
) -> Iterator[pa.RecordBatch]:
    """Staged rows (``count`` of ``schema``), read at ``version``, with the changes up to ``latest`` applied."""
    ids = {doc_id for batch in staging.batches(schema, count) for doc_id in batch["id"].to_pylist()}
    gone, changed = _changes(ids, version, latest)
    for batch in staging.batches(schema, count):
        keep = [doc_id not in gone for doc_id in batch["id"].to_pylist()] if gone else None
        yield _with_columns(batch if keep is None else batch.filter(pa.array(keep)), maker)
    for batch in changed:
        yield _encoded_again(batch, maker, codec)[0]
    # LanceDB notices overwrites that happen after it started to take these rows. This check covers those before.
    if open_index_table(latest.database, latest.name).header != latest.header:
        raise _replaced(latest)


def _with_columns(batch: pa.RecordBatch, maker: RowMaker) -> pa.RecordBatch:
    """Rows as ``maker`` makes them. Columns that another writer added after they were read are null in them."""
    there = dict(zip(batch.schema.names, batch.columns, strict=True))
    missing = {
        field.name: field.type
        for field in maker.fields
        if field.name not in there or there[field.name].type != field.type
    }
    nulls = {name: pa.nulls(len(batch), kind) for name, kind in missing.items()}
    return maker.batch({**there, **nulls}) if missing else batch


def _apply_later_changes(index: IndexTable, old_build: int, version: int, maker: RowMaker) -> None:
    """Apply to the new rows the changes committed after ``version`` of the old build and before the swap."""
    rebuilt = open_index_table(index.database, index.name)
    if rebuilt.header != maker.header:
        return  # another writer has replaced the table again
    before_swap, swapped = None, rebuilt
    for later in sorted(int(v["version"]) for v in rebuilt.table.list_versions() if int(v["version"]) > version):
        candidate = _at_version(rebuilt, later, same_index=False)
        if candidate is not None and candidate.header.build_id == old_build:
            before_swap = candidate
        elif candidate is not None and candidate.header == rebuilt.header:
            swapped = candidate
            break
    if before_swap is None:
        return
    add_columns(rebuilt, user_fields(before_swap.table.schema, before_swap.header))
    rebuilt = open_index_table(index.database, index.name)
    maker = replace(maker, fields=user_fields(rebuilt.table.schema, rebuilt.header))
    with storage_errors(rebuilt.place()):
        rows = read_columns(rebuilt.table, ["id", "write_id"]).to_pylist()
        at_swap = _ids(swapped)
    # Rows that others wrote or deleted after the swap are newer than the changes applied here.
    unchanged = {row["id"] for row in rows if row["write_id"] == maker.write_id}
    newer = (at_swap | {row["id"] for row in rows}) - unchanged
    gone, changed = _changes(unchanged, version, before_swap)
    batches = [_encoded_again(batch, maker, rebuilt.codec)[0] for batch in changed]
    if batches:
        rows = pa.Table.from_batches(batches)
        kept = rows.filter(pa.array([doc_id not in newer for doc_id in rows["id"].to_pylist()]))
        merge_rows(rebuilt, kept, update=True)
        gone -= set(rows["id"].to_pylist())
    if gone:
        delete_rows(rebuilt, col("id").isin(sorted(gone)) & (col("write_id") == maker.write_id))


def _changes(ids: set[str], version: int, new: IndexTable) -> tuple[set[str], list[pa.RecordBatch]]:
    """Compare ``new`` with ``version``, in which the rows ``ids`` existed.

    Returns:
        The ids that were changed or deleted, and the rows of ``new`` that were changed or added.
    """
    if version == new.table.version:
        return set(), []
    with storage_errors(new.place()):
        query = new.table.search().where(f"_row_last_updated_at_version > {int(version)}")
        changed = query.to_arrow().to_batches(DOCUMENTS_PER_CHUNK)
        gone = ids - _ids(new)
    return gone | {doc_id for batch in changed for doc_id in batch["id"].to_pylist()}, changed


def _ids(index: IndexTable) -> set[str]:
    return set(read_columns(index.table, ["id"])["id"].to_pylist())


def _at_version(index: IndexTable, version: int, *, same_index: bool = True) -> IndexTable | None:
    try:
        found = open_index_table(index.database, index.name, version=version)
    except StorageError:
        return None
    return found if not same_index or found.header == index.header else None


def _replaced(index: IndexTable) -> WriteConflictError:
    return WriteConflictError(
        f"{index.place()} was replaced by another writer during the rebuild, and nothing was written; open the index "
        "again and repeat"
    )


def _no_rejects(document: Document, error: InputError) -> None:
    raise error

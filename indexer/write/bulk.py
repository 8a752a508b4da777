"""The steps of a build as functions, for engines that bring their own workers: Spark, Daft, Dask, a queue of your own.

`plan_rows` is called once. Each task calls `encode_rows` and `write_rows`. At the end `commit_rows` is called once.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from lancedb.expr import col

from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.extras import require_extra
from ...onnx_export.kinds import check_kind, check_whole
from ...onnx_export.progress import no_progress
from ..codec.codec import ResidualCodec, check_nbits
from ..codec.pooling import pool_tokens
from ..errors import WriteConflictError
from ..read.columns import ColumnTypes
from ..read.documents import Document, DocumentReader, FieldNames
from ..read.passages import Passages, check_room
from ..read.rejects import Rejects
from ..read.scan import chunks, scan
from ..table.changes import delete_rows, index_text, on_latest
from ..table.codec_table import Fit
from ..table.database import Database, connect, location_of
from ..table.fragments import (
    FragmentPlace,
    append_fragments,
    create_from_fragments,
    ids_of,
    rows_of,
    write_fragments,
)
from ..table.model import Models
from ..table.schema import IndexHeader, document_schema, reserved_fields, user_fields
from ..table.table import check_absent, check_replaceable, check_table_name, find_header, open_index_table
from .build_steps import add_counts, choose_codec, fit_of
from .report import BuildReport
from .rows import RowMaker, compress_vectors, usable_documents
from .units import Chunk, compress_chunk

Mode = Literal["create", "append", "overwrite"]


@dataclass(frozen=True)
class RowPlan:
    """What all tasks of a build have in common; `plan_rows` makes one. It can be pickled, and holds the codec.

    Attributes:
        table: name of the table.
        mode: "create", "append" or "overwrite".
        header: the settings of the index.
        fields: the columns besides id, title and text.
        write_id: the number that marks the rows of this build.
        codec: compresses the vectors.
        fit: how well it fits its sample.
        database: the database's folder or URI.
        storage_options: LanceDB's options for object stores; they may hold credentials.
        load: loads the model.
    """

    table: str
    mode: Mode
    header: IndexHeader
    fields: list[pa.Field]
    write_id: int
    codec: ResidualCodec
    fit: Fit
    database: str
    storage_options: Mapping[str, str] | None = field(repr=False)
    load: Callable[[], Encoder] = field(repr=False)

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows."""
        return document_schema(self.fields, self.header)

    @property
    def place(self) -> FragmentPlace:
        """Where fragments are written."""
        database = connect(self.database, create=True, storage_options=self.storage_options)
        return FragmentPlace.of(database, self.table, appends=self.mode == "append")


@dataclass
class EncodedRows:
    """What `encode_rows` made of documents.

    Attributes:
        rows: the rows of the table: codes and all other columns.
        report: counts, such as tokens, texts that were cut and characters that the model cannot read.
        rejected: the records that cannot be indexed: ``place``, which is the number of the row in the batch,
            ``reason`` and ``record``.
    """

    rows: pa.RecordBatch
    report: BuildReport
    rejected: list[dict[str, Any]]


def plan_rows(
    db: Database,
    table: str,
    sample: Iterable[Any] = (),
    *,
    documents: int | None = None,
    mode: Mode = "create",
    encoder: Encoder | None = None,
    nbits: int = 2,
    pool: int = 1,
    passage_tokens: int | None = None,
    fulltext: bool = False,
    names: FieldNames | None = None,
    threads: int = 1,
    storage_options: Mapping[str, str] | None = None,
) -> RowPlan:
    """Plan a build whose rows are made by another engine: train its codec, and fix its columns.

    Args:
        db: a database folder or a URI that all tasks can reach.
        table: name of the table.
        sample: documents to train the codec on and to take the types of the columns from, chosen at random from all;
            what `Index.create` takes. About 10,000 are enough. Of a table that rows are appended to, the codec is used.
        documents: number of all documents, by which the codec is sized; None: those of the sample.
        mode: make a table, append to one, or replace one.
        encoder: see `Index.create`.
        nbits: see `Index.create`.
        pool: see `Index.create`.
        passage_tokens: see `Index.create`.
        fulltext: see `Index.create`.
        names: see `Index.create`; give types of columns whose values in the sample do not show them.
        threads: number of threads for encoding in each task.
        storage_options: see `Index.create`.

    Returns:
        The plan.

    Example:
        >>> from tansaku import Index, commit_rows, encode_rows, plan_rows, write_rows
        >>> import pyarrow as pa
        >>> documents = [{"id": "kinkaku", "text": "金閣寺は京都の北山にある寺院。"}]
        >>> plan = plan_rows(folder, "temples", documents)
        >>> encoded = encode_rows(plan, pa.RecordBatch.from_pylist(documents))
        >>> encoded.report.tokens == sum(encoded.rows["token_count"].to_pylist())
        True
        >>> commit_rows(plan, write_rows(plan, [encoded.rows]))
        1

    Raises:
        InputError: the sample is empty or cannot be used, an option is out of range, or tasks cannot open the database
            or the model.
        TableExistsError: the table exists, and ``mode`` is "create".
        TableNotFoundError: it does not exist, and ``mode`` is "append".
        MissingExtraError: the extra ``pooling`` is needed and not installed.
        StorageError: the disk or the object store failed.
    """
    if mode not in ("create", "append", "overwrite"):
        raise InputError(f"mode is {mode!r}; use 'create', 'append' or 'overwrite'")
    check_whole("threads", threads)
    database = connect(db, create=mode != "append", storage_options=storage_options)
    place, options = location_of(database)
    write_id = secrets.randbits(62) + 1
    if mode == "append":
        index = open_index_table(database, table)
        model = Models(encoder).find(index)
        fields = user_fields(index.table.schema, index.header)
        parts = index.header, fields, write_id, index.codec, index.fit
        return RowPlan(table, mode, *parts, place, options, model.elsewhere(threads))
    check_table_name(table)
    check_nbits(nbits)
    check_whole("pool", pool)
    if pool > 1:
        require_extra("pooling")
    if mode == "create":
        check_absent(database, table)
    check_replaceable(database, table)
    model = Models(encoder).default()
    if passage_tokens is not None:
        check_room(passage_tokens, model.bundle.document.max_length)
    bundle = model.bundle
    header = IndexHeader(bundle.name, bundle.fingerprint, "", write_id, pool, passage_tokens, fulltext)
    types = ColumnTypes((names or FieldNames()).arrow_types())
    reader = DocumentReader(sample, names, None, reserved_fields(header))
    reader.infer_types(no_progress)
    passages = Passages(reader, model.count_document_tokens, passage_tokens)
    scan(passages, types.update, reader.leave_out, no_progress)
    vectors, lengths = _sampled(passages, RowMaker(model, header, [], write_id), reader)
    given = sum(1 for _ in reader)
    codec = choose_codec(vectors, len(vectors) * max(documents or given, given) // given, nbits, model)
    codes = compress_vectors(np.split(vectors, np.cumsum(lengths)[:-1]), [False] * len(lengths), codec)
    fit = fit_of([code.centroid_cosine for code in codes], lengths)
    header = replace(header, codec_id=codec.codec_id)
    return RowPlan(table, mode, header, types.fields(), write_id, codec, fit, place, options, model.elsewhere(threads))


def encode_rows(plan: RowPlan, documents: pa.RecordBatch | pa.Table) -> EncodedRows:
    """Encode documents: rows in, rows of the table out. The model is loaded once in each process.

    Args:
        plan: the plan.
        documents: columns ``id``, ``text``, optionally ``title``, and the plan's columns. Ids must be unique among all
            batches.

    Returns:
        The rows, a report on them, and what was rejected.

    Raises:
        InputError: the documents have a column that the plan lacks.
        BundleError: the model is not there, or is another one.
    """
    check_kind("plan", plan, RowPlan, "give what plan_rows returned")
    encoder = _model_of(plan)
    rejects = _Collected()
    known = {each.name: each.type for each in plan.fields}
    unknown = [name for name in documents.schema.names if name not in (*known, "id", "title", "text")]
    if unknown:
        raise InputError(
            f"column {unknown[0]!r} is not in the plan (its columns: {', '.join(['id', 'title', 'text', *known])}); "
            "give plan_rows a sample that has it, or leave it out"
        )
    table = documents if isinstance(documents, pa.Table) else pa.Table.from_batches([documents])
    reader = DocumentReader(table, FieldNames(id="id"), rejects, reserved_fields(plan.header), None, known)
    passages = Passages(reader, encoder.count_document_tokens, plan.header.passage_tokens)
    types = ColumnTypes(known)
    maker = RowMaker(encoder, plan.header, plan.fields, plan.write_id)
    report = BuildReport(passages=plan.header.passage_tokens is not None)
    made: list[pa.RecordBatch] = []
    with contextlib.suppress(InputError):  # all of them are rejected
        scan(passages, types.update, reader.leave_out, no_progress)
    for number, part in enumerate(chunks(passages)):
        done = compress_chunk(Chunk(number, part), *maker.vectors(part), maker, plan.codec)
        reasons = dict(done.report["rejected"])
        for document in part:
            if document.place in reasons:
                reader.reject(document, InputError(reasons[document.place]))
        made.append(done.rows)
        add_counts(report, done.report)
    report.unread, report.unread_ids, report.rejected = maker.unread.count, maker.unread.ids, len(rejects.noted)
    rows = pa.Table.from_batches(made, plan.schema).combine_chunks().to_batches()
    empty = pa.RecordBatch.from_pylist([], plan.schema)
    return EncodedRows(rows[0] if rows else empty, report, rejects.noted)


def write_rows(plan: RowPlan, rows: Iterable[pa.RecordBatch]) -> list[str]:
    """Write rows into the table's folder, where no reader sees them before `commit_rows`.

    Args:
        plan: the plan.
        rows: what `encode_rows` made.

    Returns:
        Names of what was written, for `commit_rows`. What a task wrote that failed later does no harm.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        StorageError: the disk or the object store failed.
    """
    check_kind("plan", plan, RowPlan, "give what plan_rows returned")
    return write_fragments(plan.place, plan.schema, rows)


def commit_rows(plan: RowPlan, fragments: Sequence[str]) -> int:
    """Make all rows those of the table, in one transaction. Repeated after an interruption, it commits once.

    Memory: about 100 bytes for each id.

    Args:
        plan: the plan.
        fragments: what `write_rows` returned, of all tasks.

    Returns:
        The number of rows.

    Raises:
        InputError: nothing is given, or an id or a fragment is there twice.
        TableExistsError: the table exists, and ``mode`` is "create".
        WriteConflictError: another writer added the same ids or replaced the table at the same time.
        MissingExtraError: the extra ``ray`` is not installed.
        StorageError: the disk or the object store failed.
    """
    check_kind("plan", plan, RowPlan, "give what plan_rows returned")
    rows = rows_of(fragments)
    if not rows:
        raise InputError("there are no rows to commit; give what write_rows returned in all tasks")
    database = connect(plan.database, create=True, storage_options=plan.storage_options)
    there = find_header(database, plan.table)
    if plan.mode != "append":
        if there is None or there.build_id != plan.write_id:  # otherwise it has been committed before
            _check_ids(plan, fragments, ())
            how: dict[str, Any] = {"overwrite": plan.mode == "overwrite", "note_rows": lambda rows: None}
            create_from_fragments(database, plan.table, plan.schema, plan.codec, plan.fit, fragments, **how)
        index_text(open_index_table(database, plan.table))
        return rows
    index = open_index_table(database, plan.table)
    if index.header != plan.header:
        raise InputError(f"{index.place()} was made again after the rows were planned; plan and encode them again")
    if not on_latest(index, lambda table: table.count_rows(f"write_id = {int(plan.write_id)}")):
        ids = on_latest(index, lambda table: table.search().select(["id"]).to_arrow())["id"]
        _check_ids(plan, fragments, (batch.to_pylist() for batch in ids.chunks))
    lost = append_fragments(index, plan.place, fragments, plan.write_id, resumed=True)
    if lost:
        delete_rows(index, col("write_id") == plan.write_id)
        raise WriteConflictError(
            f"{index.place()}: another writer added {lost} of these documents at the same time, and nothing was added; "
            "plan and encode the others again"
        )
    index_text(index)
    return rows


def _check_ids(plan: RowPlan, fragments: Sequence[str], there: Iterable[list[str]]) -> None:
    """Raise InputError if an id, or a whole fragment, is there twice, or in the table already."""
    paths = [file["path"] for fragment in fragments for file in json.loads(fragment)["files"]]
    if len(set(paths)) < len(paths):
        raise InputError("a fragment is there twice; give what write_rows returned in each task once")
    seen: set[str] = set()
    for ids in ids_of(plan.place, fragments):
        for doc_id in ids:
            if doc_id in seen:
                raise InputError(f"id {doc_id!r} occurs twice; ids must be unique among all batches")
            seen.add(doc_id)
    for ids in there:
        for doc_id in ids:
            if doc_id in seen:
                raise InputError(f"document {doc_id!r} is in the index already; leave it out, or give it another id")


def _sampled(documents: Iterable[Document], maker: RowMaker, reader: DocumentReader) -> tuple[np.ndarray, list[int]]:
    """The pooled token vectors of a sample, and how many each document has."""
    parts: list[np.ndarray] = []
    for part in chunks(documents):
        vectors, _ = maker.vectors(part)
        usable = usable_documents(part, vectors, reader.reject)
        parts += [pool_tokens(vectors[i], maker.header.pool) for i in usable]
    return np.concatenate(parts), [len(part) for part in parts]


_models: dict[int, Encoder] = {}  # of plans that this process has worked for, by their write_id


def _model_of(plan: RowPlan) -> Encoder:
    if plan.write_id not in _models:
        _models.clear()
        _models[plan.write_id] = plan.load()
    return _models[plan.write_id]


class _Collected(Rejects):
    """Rejected records in a list."""

    def __init__(self) -> None:
        self.noted: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Nothing to do: it is of one call."""

    def note(self, place: str, reason: str, record: Any) -> None:
        """Keep a record, unless its place was noted."""
        if all(each["place"] != place for each in self.noted):
            self.noted.append({"place": place, "reason": reason, "record": record})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.noted)

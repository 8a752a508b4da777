"""Changes to an existing index: merge rows, delete rows, compact files. Each is one transaction of LanceDB.

LanceDB commits optimistically. If another writer has committed first, it tries again by itself if the two did not
touch the same rows, and fails otherwise. A write from a table object that was opened before an overwrite or a rebuild
always fails, so codes of an old codec never get into a table with a new one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import pyarrow as pa
from lancedb.expr import Expr, col
from lancedb.table import Table

from ...onnx_export.errors import InputError
from ...onnx_export.retry import retrying
from ..errors import StorageError, TableNotFoundError, WriteConflictError
from .aligned import aligned
from .codec_table import prune_codecs, stored_codecs
from .conditions import Where, condition_errors, condition_sql
from .contents import count_documents
from .counted import check_merged
from .database import find_table, storage_errors
from .fulltext import ensure_text_index
from .ids import checked_ids
from .lance_errors import is_vanished
from .schema import read_header
from .table import IndexTable

BYTES_PER_TRANSACTION = 256 * 2**20  # rows merged in one transaction: LanceDB keeps them in memory
_IDS_PER_TRANSACTION = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class DeleteReport:
    """What `Index.delete` did.

    Attributes:
        rows: number of rows deleted. In an index of passages each passage is a row, otherwise each document.
        missing: given ids that were not in the index, in the order given.
        documents: number of documents that these rows belonged to.
    """

    rows: int
    missing: list[str]
    documents: int = field(default=0, compare=False)


@dataclass(frozen=True)
class OptimizeReport:
    """What `Index.optimize` did.

    Attributes:
        fragments_before: number of data fragments of the table before.
        fragments_after: number of data fragments after.
        versions_removed: number of old versions of the table that were removed.
        codecs_removed: number of codecs that were removed because no version needs them.
    """

    fragments_before: int
    fragments_after: int
    versions_removed: int
    codecs_removed: int


def slices(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Group batches into lists of about `BYTES_PER_TRANSACTION`.

    Args:
        batches: the batches.

    Yields:
        Lists of batches, in order.
    """
    part: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        part.append(batch)
        size += batch.nbytes
        if size >= BYTES_PER_TRANSACTION:
            yield part
            part, size = [], 0
    if part:
        yield part


def whole_documents(parts: Iterator[list[pa.RecordBatch]], column: str | None) -> Iterator[pa.Table]:
    """Make tables of parts, and move the cuts between them so that each document is in one table.

    Args:
        parts: lists of batches.
        column: the column with the document's id; its equal values follow each other. None keeps the cuts.

    Yields:
        Tables, in order.
    """
    rest = None
    part = next(parts, None)
    while part is not None:
        following = next(parts, None)
        rows = pa.Table.from_batches(part)
        rows = rows if rest is None else pa.concat_tables([rest, rows])
        start = len(rows)
        if column is not None and following is not None:
            values = rows[column].to_pylist()
            start = next((n for n in range(len(rows) - 1, 0, -1) if values[n - 1] != values[n]), 0)
        rest = rows.slice(start) if start < len(rows) else None
        if start:
            yield rows.slice(0, start)
        part = following


def merge_rows(index: IndexTable, rows: pa.Table, *, update: bool, stale: Expr | None = None) -> tuple[int, int]:
    """Insert rows whose ids are new, and optionally replace rows that have the same ids.

    Args:
        index: the open table.
        rows: the rows.
        update: replace existing rows that have the ids of ``rows``; False leaves them as they are.
        stale: condition for further rows to delete in the same transaction: those that meet it and whose ids are not
            in ``rows``.

    Returns:
        The number of rows inserted and the number of rows replaced.

    Raises:
        WriteConflictError: other writers got in the way several times, or replaced the table.
        StorageError: the disk or the object store failed, or rows are missing after the commit.
    """
    ready = _ready(rows)

    def merge(table: Table) -> tuple[int, int, int]:
        builder = table.merge_insert("id").when_not_matched_insert_all()
        if update:
            builder = builder.when_matched_update_all()
        if stale is not None:
            builder = builder.when_not_matched_by_source_delete(stale)
        result = builder.execute(ready)
        return result.num_inserted_rows, result.num_updated_rows, result.version

    inserted, updated, version = on_latest(index, merge)
    if len(rows):
        kept = [] if update else rows["id"].to_pylist()  # rows of another that has added the same ids meanwhile
        check_merged(index.database, index.name, version, rows["write_id"][0].as_py(), len(rows), kept)
    return inserted, updated


def delete_rows(index: IndexTable, where: Expr | str) -> int:
    """Delete rows that meet a condition.

    Args:
        index: the open table.
        where: the condition over the table's columns.

    Returns:
        The number of rows deleted.

    Raises:
        InputError: ``where`` is not a valid condition.
        WriteConflictError: other writers got in the way several times, or replaced the table.
        StorageError: the disk or the object store failed.
    """

    def delete(table: Table) -> int:
        with condition_errors(index.place(), where):
            return table.delete(where).num_deleted_rows  # type: ignore[attr-defined]  # LanceDB's stub lacks it

    return on_latest(index, delete)


def delete_documents(
    index: IndexTable, ids: Sequence[str] | None, where: Where | None, *, dry_run: bool = False
) -> DeleteReport:
    """Delete documents by id, or rows by a condition: the work of `Index.delete`.

    Args:
        index: the open table.
        ids: ids of documents or passages; None if ``where`` is given.
        where: a condition; None if ``ids`` is given.
        dry_run: count only.

    Returns:
        What was deleted, or would be.

    Raises:
        TansakuError: the errors that `Index.delete` lists.
    """
    if (ids is None) == (where is None):
        raise InputError("delete needs either ids or a condition (where); give one of them")
    if where is not None:
        condition = condition_sql(where, index.table.schema, index.header, if_empty="it would delete everything")
        with condition_errors(index.place(), where):
            documents = count_documents(index, condition) if index.header.passage_tokens else None
            rows = index.table.count_rows(condition) if dry_run else None
        rows = delete_rows(index, condition) if rows is None else rows
        return DeleteReport(rows, [], rows if documents is None else documents)
    return _delete_ids(index, checked_ids(ids or []), dry_run)


def index_text(index: IndexTable) -> None:
    """Make LanceDB's full text index, if the table has a column for it and no index yet.

    Args:
        index: the open table.

    Raises:
        WriteConflictError: other writers got in the way several times, or replaced the table.
        StorageError: the disk or the object store failed.
    """
    if index.header.fulltext:
        on_latest(index, ensure_text_index)


def optimize_table(index: IndexTable, keep: timedelta) -> OptimizeReport:
    """Merge small fragments, update LanceDB's own indices and remove old versions: the work of `Index.optimize`.

    Args:
        index: the open table.
        keep: age from which versions are removed.

    Returns:
        What was merged and removed.

    Raises:
        TansakuError: the errors that `Index.optimize` lists.
    """
    if keep < timedelta(0):
        raise InputError(f"keep is {keep}; it must not be negative")
    database, name = index.database, index.name
    fragments, versions = on_latest(index, lambda table: (_fragments(table), _versions(table)))
    index_text(index)

    def optimize(table: Table) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it warns that readers of old versions will fail
            table.optimize(cleanup_older_than=keep)

    on_latest(index, optimize)
    fragments_after, remaining = on_latest(index, lambda table: (_fragments(table), _versions(table)))

    def codecs_in_use(latest: Table) -> set[str]:
        opened = [find_table(database, name, version) for version in _versions(latest)]
        return {read_header(table.schema, index.place()).codec_id for table in opened if table is not None}

    removed = 0
    if len(stored_codecs(database, name)) > 1:
        removed = prune_codecs(database, name, on_latest(index, codecs_in_use))
    return OptimizeReport(fragments, fragments_after, len(versions - remaining), removed)


def _ready(rows: pa.Table) -> pa.Table:
    """``rows`` in one chunk, aligned, as LanceDB needs them."""
    batches = rows.combine_chunks().to_batches()  # LanceDB does not keep the order of several chunks
    return pa.Table.from_batches([aligned(batch) for batch in batches], rows.schema)


def _delete_ids(index: IndexTable, ids: Sequence[str], dry_run: bool) -> DeleteReport:
    """Delete documents by id, with all their passages. Each transaction deletes up to 10,000 documents."""
    given = list(dict.fromkeys(ids))
    report = _delete_by(index, index.header.document_id_field, given, dry_run)
    if index.header.passage_tokens and report.missing:  # which may be ids of passages
        passages = _delete_by(index, "id", report.missing, dry_run)
        report = DeleteReport(report.rows + passages.rows, passages.missing, report.documents + passages.documents)
    return report


def _delete_by(index: IndexTable, column: str, ids: Sequence[str], dry_run: bool) -> DeleteReport:
    parents = index.header.document_id_field
    rows, documents, missing = 0, set(), []
    columns = list(dict.fromkeys([column, parents]))
    for start in range(0, len(ids), _IDS_PER_TRANSACTION):
        part = ids[start : start + _IDS_PER_TRANSACTION]
        wanted = col(column).isin(list(part))
        found = on_latest(index, lambda table, wanted=wanted: table.search().where(wanted).select(columns).to_arrow())
        stored = set(found[column].to_pylist())
        documents.update(found[parents].to_pylist())
        missing += [doc_id for doc_id in part if doc_id not in stored]
        if dry_run:
            rows += len(found)
        elif stored:
            rows += delete_rows(index, wanted)
    return DeleteReport(rows, missing, len(documents))


def on_latest(index: IndexTable, action: Callable[[Table], T]) -> T:
    """Read or change the latest version of the table, and again if another writer got in the way or removed it.

    Args:
        index: the open table.
        action: called with the latest version; it may be called several times.

    Returns:
        What ``action`` returned.

    Raises:
        WriteConflictError: several attempts failed, or the table was replaced after ``index`` was opened.
        StorageError: the disk or the object store failed.
    """
    table: Table | None = None

    def may_succeed(error: BaseException) -> bool:
        if table is None:  # it was dropped or replaced
            return False
        # A version that `optimize` has just removed cannot be read, but a later one can.
        vanished = isinstance(error, StorageError) and (is_vanished(error) or _latest(index).version != table.version)
        return isinstance(error, WriteConflictError) or vanished

    for attempt in retrying(may_succeed, tries=8, first_pause=0.05):
        with attempt:
            table = None
            table = _latest(index)
            with storage_errors(index.place()):
                return action(table)
    raise AssertionError("the last attempt raises")


def _latest(index: IndexTable) -> Table:
    with storage_errors(index.place()):
        table = find_table(index.database, index.name)
    if table is None:
        raise TableNotFoundError(f"{index.place()} has been dropped since it was opened")
    # The table object stays at this version: if another writer replaces the table now, writes through it fail.
    if read_header(table.schema, index.place()) != index.header:
        raise WriteConflictError(
            f"{index.place()} was replaced or rebuilt after it was opened, and nothing was written; "
            "open the index again and repeat"
        )
    return table


def _versions(table: Table) -> set[int]:
    return {int(version["version"]) for version in table.list_versions()}


def _fragments(table: Table) -> int:
    return table.stats()["fragment_stats"]["num_fragments"]  # type: ignore[index]  # a dict, whatever its type says

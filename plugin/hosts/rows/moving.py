"""Rows with codes from one place to another: a database, an index, a Parquet file. A few are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ....indexer.codec.codec import ResidualCodec
from ....indexer.index import Index
from ....indexer.read.documents import FieldNames
from ....indexer.table.database import storage_errors
from ....indexer.table.schema import user_fields
from ....indexer.table.table import IndexTable
from ....indexer.write.parquet_parts import ParquetParts
from ....onnx_export.errors import InputError
from ....onnx_export.progress import Progress, no_progress
from ...rows.coder import Coder
from ...rows.columns import joined
from ...rows.row_search import RowId
from ...rows.row_store import CodedRow, RowStore
from .codes_file import CODES, ID, VECTOR, CodesFile, common_schema, metadata_of, rows_table

_ROWS = 500  # at a time
_VECTORS = "tansaku_token_vectors"  # the field of documents for an index


@dataclass
class MoveReport:
    """What was moved.

    Attributes:
        read: number of rows that were read.
        written: number of rows that were written.
        there: number of rows that were there already with codes, and left alone.
        without_codes: number of rows that were left out because they have no codes.
        resumed: how many of ``written`` an interrupted call had written.
    """

    read: int = 0
    written: int = 0
    there: int = 0
    without_codes: int = 0
    resumed: int = 0


class RowsToMove(Protocol):
    """Where rows come from.

    Attributes:
        place: where that is, for messages.
        state: what changes with the rows, where that is known.
        text_columns: names of the columns with text.
        columns: types of the other columns; None where the database does not tell.
        id_type: type of the ids; None where the database does not tell.
        total: number of rows.
    """

    place: str
    state: str
    text_columns: tuple[str, ...]
    columns: Mapping[str, pa.DataType | None]
    id_type: pa.DataType | None
    total: int

    def batches(self, skip: int, after: RowId | None) -> Iterator[tuple[list[CodedRow], int]]:
        """The rows in a fixed order, some at a time, and the number of those without codes among them.

        Args:
            skip: number of rows to pass over, which were read before.
            after: id of the last of them.
        """
        ...


class StoredRows:
    """The rows of a database.

    Args:
        store: the database.
    """

    def __init__(self, store: RowStore[Any]) -> None:
        self._store = store
        self.place, self.state, self.text_columns = store.place, "", store.text_columns
        self.columns: Mapping[str, pa.DataType | None] = dict.fromkeys(store.fields)
        self.id_type: pa.DataType | None = None
        self.total = store.count()

    def batches(self, skip: int, after: RowId | None) -> Iterator[tuple[list[CodedRow], int]]:
        """See `RowsToMove`."""
        for rows in self._store.coded_rows(_ROWS, after):
            yield rows, 0
        yield [], self._store.count_without_codes()


class FileRows:
    """The rows of a Parquet file.

    Args:
        file: the file.
        fields: names of the other columns; None: all.

    Raises:
        InputError: the file does not have one of them.
    """

    def __init__(self, file: CodesFile, fields: Sequence[str] | None = None) -> None:
        self._file = file
        self.place, self.state, self.text_columns = str(file.path), "", file.text_columns
        self.id_type, self.total = file.id_type, file.total
        self.columns: Mapping[str, pa.DataType | None] = _chosen(file.columns, fields, self.place)

    def batches(self, skip: int, after: RowId | None) -> Iterator[tuple[list[CodedRow], int]]:
        """See `RowsToMove`."""
        passed = 0
        for rows, without in self._file.rows(_ROWS, (*self.text_columns, *self.columns)):
            fresh = rows[max(0, skip - passed) :]
            passed += len(rows)
            yield fresh, without


class IndexRows:
    """The rows of an index: its vectors are decoded, and coded again with the codec of the model's bundle.

    Passages are rows, with the columns ``parent_id`` and ``passage``.

    Args:
        index: the open table.
        coder: makes codes and row vectors.
        fields: names of the other columns; None: all.

    Raises:
        InputError: the index keeps pooled vectors, or has no such column.
        ModelMismatchError: it is of another model.
    """

    def __init__(self, index: IndexTable, coder: Coder, fields: Sequence[str] | None = None) -> None:
        header = index.header
        header.check_model(coder.encoder.bundle, index.place())
        if header.pool > 1:
            raise InputError(
                f"{index.place()} keeps pooled token vectors (--pool {header.pool}), and rows have all of them; index "
                "the documents again without --pool, or add them to the table as texts"
            )
        self._index, self._coder = index, coder
        self.place, self.state = index.place(), f"{header.build_id} {index.table.version}"
        self.id_type, self.total = pa.string(), index.table.count_rows()
        titled = index.table.count_rows("title != ''") > 0
        self.text_columns: tuple[str, ...] = ("title", "text") if titled else ("text",)
        places = {"parent_id": pa.string(), "passage": pa.int32()} if header.passage_tokens else {}
        others = {field.name: field.type for field in user_fields(index.table.schema, header)}
        self.columns: Mapping[str, pa.DataType | None] = {**places, **_chosen(others, fields, self.place)}

    def batches(self, skip: int, after: RowId | None) -> Iterator[tuple[list[CodedRow], int]]:
        """See `RowsToMove`."""
        names = [*self.text_columns, *self.columns]
        for start in range(skip, self.total, _ROWS):
            with storage_errors(self.place):
                found = self._index.table.search().select([ID, *names, "centroid_ids", "residuals"])
                rows = found.offset(start).limit(_ROWS).to_arrow().to_pylist()
            vectors = [_decoded(self._index.codec, row["centroid_ids"], row["residuals"]) for row in rows]
            coded = self._coder.code_vectors(vectors, self._cut(rows))
            yield (
                [
                    CodedRow(row[ID], one.row_vector, one.codes, {name: row[name] for name in names})
                    for row, one in zip(rows, coded, strict=True)
                ],
                0,
            )

    def _cut(self, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Which texts are longer than the model reads: an index does not keep that, so they are tokenized again."""
        texts = [joined(row[name] for name in self.text_columns) for row in rows]
        tokenized = iter(self._coder.encoder.tokenize_documents([text for text in texts if text.strip()]))
        return [bool(text.strip()) and next(tokenized).truncated for text in texts]


def to_file(
    source: RowsToMove,
    path: Path,
    coder: Coder,
    *,
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> MoveReport:
    """Write rows into a Parquet file, which appears whole at the end.

    Args:
        source: the rows.
        path: the file.
        coder: the coder of the rows.
        resume: continue what an interrupted call left; False discards it.
        overwrite: replace a file of that name.
        progress: called for each batch.

    Raises:
        InputError: the file cannot be written, a column cannot be one of Parquet, or there are no rows with codes.
        CodesError: codes are damaged, or of another codec, model or row vectors; the message names the row.
        ResumeError: the interrupted call had another source or model.
        BusyError: another process writes the file.
    """
    report, names = MoveReport(), [*source.text_columns, *source.columns]
    for name in names:
        if name in (ID, VECTOR, CODES):
            raise InputError(f"the column {name!r} has a name that the file needs; leave it out (--field names others)")
    with ParquetParts(path, resume=resume, overwrite=overwrite) as parts:
        parts.begin(
            {
                "the source": [source.place, source.state],
                "the codec": coder.codec_id,
                "the row vectors": [coder.row_vectors_id, coder.row_dim],
                "the columns": names,
            }
        )
        report.resumed = report.read = report.written = sum(note["rows"] for note in parts.notes)
        after = parts.notes[-1]["last"] if parts.notes else None
        for rows, without in source.batches(report.read, after):
            report.without_codes += without
            if not rows:
                continue
            for row in rows:
                coder.check(row.codes, row.id)
            parts.write(rows_table(rows, names, coder.row_dim), {"rows": len(rows), "last": rows[-1].id})
            report.read += len(rows)
            report.written += len(rows)
            progress("copy", report.written, source.total, 0)
        if not report.written:
            raise InputError(f"{source.place} has no rows with codes; encode them with fill()")
        parts.finish(common_schema(parts.schemas(), metadata_of(coder, source.text_columns)))
    report.read += report.without_codes
    return report


def to_rows(
    source: RowsToMove,
    make: Callable[[Mapping[str, pa.DataType], pa.DataType], RowStore[Any]],
    *,
    replace: bool = False,
    progress: Progress = no_progress,
) -> MoveReport:
    """Write rows into a table of a database.

    A batch is written whole or not at all. Rows that are there with codes are left alone, so that an interrupted call
    continues when it is repeated.

    Args:
        source: the rows.
        make: opens or makes the table, from the types of its other columns and of its ids.
        replace: write over the rows that are there.
        progress: called for each batch.

    Raises:
        CodesError: codes are damaged, or of another codec, model or row vectors; the message names the row.
        InputError: a row does not fit the table.
        HostError: the database cannot be reached, or refuses; the rows of earlier batches are there.
    """
    report, store = MoveReport(), None
    for rows, without in source.batches(0, None):
        report.read += len(rows) + without
        report.without_codes += without
        if not rows:
            continue
        if store is None:
            store = make(*_types(source, rows))
        there = set() if replace else store.ids_with_codes([row.id for row in rows])
        fresh = [row for row in rows if row.id not in there]
        report.there += len(rows) - len(fresh)
        if fresh:
            store.write_coded(fresh)
        report.written += len(fresh)
        progress("copy", report.written + report.there, source.total, 0)
    return report


def to_index(
    source: RowsToMove,
    coder: Coder,
    db: str,
    table: str,
    *,
    overwrite: bool = False,
    resume: bool = True,
    progress: Progress = no_progress,
) -> tuple[Index, MoveReport]:
    """Make an index of rows: the token vectors are decoded, and the index trains its own codec on them.

    Args:
        source: the rows.
        coder: the coder of the rows.
        db: the database of the index, see `Index.create`.
        table: name of the table.
        overwrite: replace a table of that name.
        resume: continue what an interrupted call left; False discards it.
        progress: see `Index.create`.

    Raises:
        TansakuError: as `Index.create_from_vectors`; CodesError, see `to_rows`.
    """
    documents = _Documents(source, coder)
    index = Index.create_from_vectors(
        db,
        table,
        documents,
        _VECTORS,
        encoder=coder.encoder,
        names=FieldNames(id=ID),
        overwrite=overwrite,
        resume=resume,
        progress=progress,
    )
    built = index.last_build
    rows, resumed = (0, 0) if built is None else (built.rows, built.resumed)
    return index, MoveReport(documents.read, rows, 0, documents.without_codes, resumed)


class _Documents:
    """Rows as documents of an index, which reads them several times."""

    def __init__(self, source: RowsToMove, coder: Coder) -> None:
        self._source, self._coder = source, coder
        self.read = self.without_codes = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        texts = self._source.text_columns
        titled = texts == ("title", "text")
        self.read = self.without_codes = 0
        for rows, without in self._source.batches(0, None):
            self.read += len(rows) + without
            self.without_codes += without
            vectors = self._coder.decode([row.codes for row in rows], rows=[row.id for row in rows])
            for row, matrix in zip(rows, vectors, strict=True):
                text = row.columns.get("text") if titled else joined(row.columns.get(name) for name in texts)
                others = {name: row.columns.get(name) for name in self._source.columns}
                title = {"title": row.columns.get("title") or ""} if titled else {}
                yield f"row {row.id!r}", {ID: row.id, **title, "text": text or "", **others, _VECTORS: matrix}


def _types(source: RowsToMove, rows: Sequence[CodedRow]) -> tuple[dict[str, pa.DataType], pa.DataType]:
    """Types of the other columns and of the ids, from the first rows where the source does not tell."""
    columns = {
        name: pa.array([row.columns.get(name) for row in rows]).type if kind is None else kind
        for name, kind in source.columns.items()
    }
    whole = all(isinstance(row.id, int) for row in rows)
    return columns, source.id_type or (pa.int64() if whole else pa.string())


def _chosen(columns: Mapping[str, pa.DataType], names: Sequence[str] | None, place: str) -> dict[str, pa.DataType]:
    if names is None:
        return dict(columns)
    for name in names:
        if name not in columns:
            raise InputError(f"{place} has no column {name!r}; its columns are {', '.join(columns) or 'none'}")
    return {name: columns[name] for name in names}


def _decoded(codec: ResidualCodec, centroid_ids: bytes, residuals: bytes) -> np.ndarray:
    ids = np.frombuffer(centroid_ids, codec.id_dtype)
    return codec.decode(ids, np.frombuffer(residuals, np.uint8).reshape(len(ids), -1))

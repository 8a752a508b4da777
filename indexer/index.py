"""`Index`: documents in, compressed token vectors in a LanceDB table."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from ..onnx_export import Encoder, InputError
from .build import BuildReport, Progress, chunks, encode_rows, scan, train_codec
from .codec import check_nbits
from .columns import check_fields, user_fields
from .documents import Document, DocumentReader, FieldNames
from .info import IndexInfo, describe
from .table import (
    Database,
    IndexHeader,
    IndexTable,
    append_rows,
    check_absent,
    check_name,
    connect,
    create_index_table,
    database_exists,
    open_index_table,
    open_with_model,
)


class Index:
    """A late-interaction index in a LanceDB table; make one with `Index.create`, open one with `Index.open`.

    Attributes:
        name: the table's name.
        encoder: the model that documents are encoded with.
        last_build: what the last `create` or `add` of this object wrote, or None.
    """

    def __init__(self, name: str, table: IndexTable, encoder: Encoder) -> None:
        self.name = name
        self.encoder = encoder
        self.last_build: BuildReport | None = None
        self._table = table

    @classmethod
    def create(
        cls,
        db: Database,
        table: str,
        documents: Iterable[Any],
        *,
        encoder: Encoder | None = None,
        nbits: int = 2,
        names: FieldNames | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Index:
        """Index ``documents`` into a new table.

        All documents are read and checked before the first is encoded, and the table appears in one
        transaction: after an error or an interruption the database is as it was.

        Args:
            db: a database folder (made if missing), a URI or a LanceDB connection.
            table: name of the table.
            documents: mappings with the fields ``id`` (or ``_id``), ``text`` and perhaps ``title``; other fields
                become columns. They are read twice: an iterator is therefore read into memory first, a
                `SourceFile` is not.
            encoder: the model; None takes the one that ships inside.
            nbits: bits per dimension of a residual: 1, 2 or 4.
            names: which fields are id, text and title, where they are named otherwise.
            overwrite: replace a table of that name.
            progress: called as the work goes on.

        Raises:
            InputError: no documents, or one that cannot be used (see `DocumentReader`).
            TableExistsError: the table exists and ``overwrite`` is false.
        """
        check_nbits(nbits)
        check_name(table)
        progress = progress or _no_progress
        if not overwrite and database_exists(db):
            check_absent(connect(db), table)
        encoder = encoder or Encoder.load()
        reader = DocumentReader(documents, names)

        found = scan(reader, progress)
        database = connect(db, create=True)
        codec, vectors = train_codec(found, encoder, nbits, progress)
        report = BuildReport()
        done = partial(_encode_progress, progress, found.count)
        rows = encode_rows(reader, encoder, codec, found.fields, report, done, vectors)
        header = IndexHeader(encoder.bundle.name, encoder.bundle.fingerprint, codec.codec_id)
        made = create_index_table(database, table, header, codec, found.fields, rows, overwrite=overwrite)
        index = cls(table, made, encoder)
        index.last_build = report
        return index

    @classmethod
    def open(cls, db: Database, table: str, *, encoder: Encoder | None = None) -> Index:
        """Open an index to add to it.

        Args:
            db: a database folder, a URI or a LanceDB connection.
            table: name of the table.
            encoder: the model the index was made with; None takes the one that ships inside.

        Raises:
            TableNotFoundError: no such database or table.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model.
        """
        return cls(table, *open_with_model(connect(db), table, encoder))

    def add(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Add ``documents`` in one transaction: all of them, or after an error none.

        Arguments as for `create`. Raises InputError as `create` does, and for an id that the index holds already
        or a field that it has no column for.
        """
        progress = progress or _no_progress
        # As it is now: it may have been added to, or made anew, since it was opened.
        self._table, _ = open_with_model(self._table.database, self.name, self.encoder)
        reader = DocumentReader(documents, names)
        fields = user_fields(self._table.table.schema)
        count = 0
        stored = self._ids()
        for chunk in chunks(reader):
            _check_new(chunk, stored)
            check_fields(chunk, fields)
            count += len(chunk)
            progress("read", count, 0)
        if count == 0:
            raise InputError("there are no documents to add")

        report = BuildReport()
        done = partial(_encode_progress, progress, count)
        append_rows(self._table, encode_rows(reader, self.encoder, self._table.codec, fields, report, done))
        self.last_build = report
        return report

    def info(self) -> IndexInfo:
        """Counts and sizes of the index."""
        return describe(self.name, open_index_table(self._table.database, self.name))

    def __len__(self) -> int:
        return self._table.database.open_table(self.name).count_rows()

    def _ids(self) -> set[str]:
        batches = self._table.table.search().select(["id"]).to_batches()
        return {doc_id for batch in batches for doc_id in batch.column("id").to_pylist()}


def _check_new(chunk: list[Document], stored: set[str]) -> None:
    for document in chunk:
        if document.id in stored:
            raise InputError(f"document {document.id!r} is in the index already; leave it out or give it another id")


def _encode_progress(progress: Progress, total: int, done: int) -> None:
    progress("encode", done, total)


def _no_progress(stage: str, done: int, total: int) -> None:
    pass

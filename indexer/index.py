"""`Index`: documents in, compressed token vectors in a LanceDB table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from ..onnx_export.encode.encoder import Encoder
from ..onnx_export.errors import InputError
from .codec.codec import check_nbits
from .info import IndexInfo, describe
from .read.documents import FieldNames
from .read.passages import check_room
from .read.rejects import Rejects
from .read.scan import Progress
from .table.changes import DeleteReport, OptimizeReport, delete_documents, optimize_table
from .table.database import Database, connect, database_exists, local_folder
from .table.table import IndexTable, check_absent, check_name, open_index_table, open_with_model
from .write.build import BuildReport
from .write.rebuild import rebuild_table
from .write.writing import WriteOptions, build_table, merge_documents, no_progress


class Index:
    """A late-interaction index in a LanceDB table; make one with `Index.create`, open one with `Index.open`.

    Every method works on the table as it is when it is called. Readers keep the version they have opened until they
    refresh; no write blocks them. Writers may be several: their commits are one after the other, and one that cannot
    be made to follow another raises WriteConflictError.

    Attributes:
        name: the table's name.
        encoder: the model that documents are encoded with.
        last_build: what the last `create`, `add` or `upsert` of this object wrote, or None.
    """

    def __init__(self, name: str, table: IndexTable, encoder: Encoder) -> None:
        self.name = name
        self.encoder = encoder
        self.last_build: BuildReport | None = None
        self._database = table.database

    @classmethod
    def create(
        cls,
        db: Database,
        table: str,
        documents: Iterable[Any],
        *,
        encoder: Encoder | None = None,
        nbits: int = 2,
        pool: int = 1,
        passage_tokens: int | None = None,
        fulltext: bool = False,
        names: FieldNames | None = None,
        overwrite: bool = False,
        rejects: Rejects | None = None,
        resume: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> Index:
        """Index ``documents`` into a new table.

        All documents are read and checked before the first is encoded, and the table appears in one
        transaction: after an error or an interruption the database is as it was.

        Memory: the vectors of the sample that the codec is trained on (at most a million: 512 MB at 128 dimensions),
        three chunks of 512 documents, and some 100 bytes for each id.

        Args:
            db: a database folder (made if missing), a URI or a LanceDB connection.
            table: name of the table.
            documents: mappings with the fields ``id`` (or ``_id``), ``text`` and perhaps ``title``; other fields
                become columns. They are read three times: an iterator is therefore read into memory first, a `Source`
                is not.
            encoder: the model; None takes the one that ships inside.
            nbits: bits per dimension of a residual: 1, 2 or 4.
            pool: 2 and more merge the token vectors of a document until one in ``pool`` is left (see `pool_tokens`).
            passage_tokens: divide documents at sentence ends into passages of at most so many tokens, each a row of
                its own with the document's id as ``parent_id``; None indexes every document as one row.
            fulltext: also keep the text for LanceDB's full text search, which searches can then take candidates from.
            names: which fields are id, text and title, where they are named otherwise.
            overwrite: replace a table of that name.
            rejects: takes documents that cannot be indexed; None stops at the first.
            resume: after an interruption keep what is done; and take up what an interrupted call has left, whose
                documents and options must have been the same.
            restart: give up what an interrupted call has left.
            progress: called as the work goes on.

        Raises:
            InputError: no documents, or one that cannot be used (see `DocumentReader`).
            TableExistsError: the table exists and ``overwrite`` is false.
            ResumeError: the documents or options are not those of the interrupted call.
            BusyError: another process is building the table, with ``resume`` too.
            StorageError: the disk or the object store refuses.
        """
        check_nbits(nbits)
        check_name(table)
        if pool < 1:
            raise InputError(f"pool is {pool}; it must be 1 or more")
        encoder = encoder or Encoder.load()
        if passage_tokens is not None:
            check_room(passage_tokens, encoder.bundle.document.max_length)
        if not overwrite and not resume and database_exists(db):
            check_absent(connect(db), table)
        existed = database_exists(db)
        database = connect(db, create=True)
        options = _options(names, rejects, progress, resume=resume, restart=restart)
        try:
            report = build_table(
                database,
                table,
                documents,
                encoder,
                nbits=nbits,
                pool=pool,
                passage_tokens=passage_tokens,
                fulltext=fulltext,
                overwrite=overwrite,
                options=options,
            )
        except BaseException:
            folder = local_folder(database)
            if folder is not None and not existed:
                with contextlib.suppress(OSError):  # it holds what is needed to go on
                    folder.rmdir()
            raise
        index = cls(table, open_index_table(database, table), encoder)
        index.last_build = report
        return index

    @classmethod
    def open(cls, db: Database, table: str, *, encoder: Encoder | None = None) -> Index:
        """Open an index to change it.

        Args:
            db: a database folder, a URI or a LanceDB connection.
            table: name of the table.
            encoder: the model the index was made with; None takes the one that ships inside.

        Raises:
            TableNotFoundError: no such database or table.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model.
            StorageError: the database cannot be read.
        """
        return cls(table, *open_with_model(connect(db), table, encoder))

    def add(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        resume: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Add ``documents``, all of them, or after an error none.

        One transaction for up to 256 MB of rows (some 40,000 passages); more are several, and an interruption between
        them leaves the first ones there, where ``resume`` goes on.

        Arguments as for `create`. Raises InputError as `create` does, and for an id that the index holds already
        or a field that it has no column for; WriteConflictError if another writer adds the same ids meanwhile.
        """
        options = _options(names, rejects, progress, resume=resume, restart=restart)
        self.last_build = merge_documents(self._now(), documents, self.encoder, update=False, options=options)
        return self.last_build

    def upsert(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        resume: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> BuildReport:
        """`add`, but a document whose id the index holds takes the place of the one that is there."""
        options = _options(names, rejects, progress, resume=resume, restart=restart)
        self.last_build = merge_documents(self._now(), documents, self.encoder, update=True, options=options)
        return self.last_build

    def delete(self, ids: Sequence[str] | None = None, *, where: str | None = None) -> DeleteReport:
        """Delete documents by id, or all rows that a condition describes.

        Args:
            ids: ids of documents; those that are not there are reported, not an error.
            where: an SQL condition over the table's columns, as LanceDB reads it: ``"year < 1950"``.

        Raises InputError unless just one of both is given, and for a condition that is not valid.
        """
        return delete_documents(self._now(), ids, where)

    def optimize(self, keep: timedelta = timedelta(hours=1)) -> OptimizeReport:
        """Merge small fragments and give up versions of the table that are older than ``keep``.

        A reader that has an older version open must refresh; searches of a `Searcher` do so by themselves.
        """
        return optimize_table(self._now(), keep)

    def rebuild(
        self,
        *,
        nbits: int | None = None,
        resume: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Train a new codec on the documents as they are now, encode them all again, and swap the result in.

        Readers and writers go on meanwhile; what is written in that time is taken over.

        Args:
            nbits: bits per dimension of the new codec; None keeps it.
            resume: as for `create`.
            restart: as for `create`.
            progress: called as the work goes on.
        """
        if nbits is not None:
            check_nbits(nbits)
        options = _options(None, None, progress, resume=resume, restart=restart)
        self.last_build = rebuild_table(self._now(), self.encoder, nbits, options)
        return self.last_build

    def info(self) -> IndexInfo:
        """Counts and sizes of the index."""
        return describe(self._now())

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return self._now().table.count_rows()

    def _now(self) -> IndexTable:
        """The table as it is now: it may have been changed, or made anew, since this object was made."""
        return open_with_model(self._database, self.name, self.encoder)[0]


def _options(
    names: FieldNames | None, rejects: Rejects | None, progress: Progress | None, *, resume: bool, restart: bool
) -> WriteOptions:
    return WriteOptions(names, rejects, resume, restart, progress or no_progress)

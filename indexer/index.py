"""`Index`: documents in, compressed token vectors in a LanceDB table."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from lancedb.db import DBConnection

from ..onnx_export.encode.encoder import Encoder
from ..onnx_export.errors import InputError
from ..onnx_export.progress import Progress, no_progress
from .codec.codec import check_nbits
from .info import IndexInfo, describe
from .read.documents import FieldNames, GivenVectors
from .read.passages import check_room
from .read.rejects import Rejects
from .table.changes import DeleteReport, OptimizeReport, delete_documents, optimize_table
from .table.conditions import Where
from .table.database import Database, connect, database_exists, local_folder
from .table.model import VectorsOnly, model_of
from .table.table import IndexTable, check_table_name, open_index_table
from .write.build import build_table
from .write.merge import merge_documents
from .write.options import WriteOptions
from .write.rebuild import rebuild_table
from .write.report import BuildReport


class Index:
    """A late-interaction index in a LanceDB table; make one with `Index.create`, open one with `Index.open`.

    Every method works on the table as it is when it is called. Readers keep the version they have opened until they
    refresh; no write blocks them. Several processes may write: their commits follow each other, and one that cannot
    follow another raises WriteConflictError.

    Attributes:
        name: the table's name.
        last_build: what the last `create`, `add`, `upsert` or `rebuild` of this object wrote, or None.

    Example:
        >>> from tansaku import Index
        >>> index = Index.create(folder, "temples", [{"id": "kinkaku", "text": "金閣寺は京都の北山にある寺院。"}])
        >>> report = index.add([{"id": "todai", "text": "東大寺は奈良の大仏で知られる。"}])
        >>> report.rows
        1
        >>> index.delete(["kinkaku"]).rows
        1
        >>> len(index)
        1
    """

    def __init__(self, name: str, table: IndexTable, encoder: Encoder | None = None) -> None:
        self.name = name
        self.last_build: BuildReport | None = None
        self._encoder = encoder
        self._database = table.database
        if encoder is not None:
            table.header.check_model(encoder.bundle, table.place())

    @property
    def encoder(self) -> Encoder:
        """The model that documents are encoded with, loaded when it is first needed.

        Raises:
            ModelMismatchError: the index was made with another model.
        """
        return self._model_of(self._now()) if self._encoder is None else self._encoder

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
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Index:
        """Index ``documents`` into a new table.

        All documents are read and checked before the first is encoded, and the table appears in one transaction: after
        an error or an interruption the database is as it was. What was encoded is kept beside the table, and the same
        call goes on from there.

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
            pool: keep about one token vector in ``pool`` of each document (see `pool_tokens`); 1 keeps all.
            passage_tokens: divide documents at sentence ends into passages of at most this many tokens, each a row of
                its own with the document's id as ``parent_id``; None indexes every document as one row.
            fulltext: also keep the text for LanceDB's full text search, which searches can then take candidates from.
            names: which fields are id, text and title, where they have other names.
            overwrite: replace a table of that name.
            rejects: takes documents that cannot be indexed; None stops at the first.
            resume: go on with what an interrupted call has left, if documents and options are the same; False gives it
                up and starts over, and does not wait for another process that is building the table.
            restart: deprecated; ``restart=True`` is ``resume=False``.
            progress: called as the work goes on.
            storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.

        Returns:
            The index; `last_build` says what was written.

        Raises:
            InputError: no documents, one that cannot be used, or an option out of range.
            TableExistsError: the table exists and ``overwrite`` is false.
            ResumeError: the documents or options are not those of the interrupted call; ``resume=False`` gives up what
                it has left.
            BusyError: another process is building the table, and ``resume`` is true.
            StorageError: the disk or the object store refuses.
        """
        _check_new(table, nbits, pool)
        encoder = encoder or Encoder.load()
        if passage_tokens is not None:
            check_room(passage_tokens, encoder.bundle.document.max_length)
        options = _options(names, rejects, progress, resume, restart)
        with _database(db, storage_options) as database:
            report = build_table(
                database,
                table,
                documents,
                encoder,
                model=encoder.bundle,
                nbits=nbits,
                pool=pool,
                passage_tokens=passage_tokens,
                fulltext=fulltext,
                overwrite=overwrite,
                options=options,
            )
        index = cls(table, open_index_table(database, table), encoder)
        index.last_build = report
        return index

    @classmethod
    def create_from_vectors(
        cls,
        db: Database,
        table: str,
        documents: Iterable[Any],
        vectors: Sequence[Any],
        *,
        encoder: Encoder | None = None,
        nbits: int = 2,
        pool: int = 1,
        fulltext: bool = False,
        names: FieldNames | None = None,
        overwrite: bool = False,
        rejects: Rejects | None = None,
        resume: bool = True,
        progress: Progress | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Index:
        """Index token vectors that were made elsewhere, by any late-interaction model.

        Args:
            db: as for `create`.
            table: name of the table.
            documents: mappings with the field ``id`` (or ``_id``), and perhaps ``text``, ``title`` and others, which
                become columns.
            vectors: the token vectors of each document, in the same order: float (tokens, dim) each, of unit length;
                arrays or nested lists.
            encoder: the model that the vectors come from, if tansaku can run it: the index can then be searched with
                texts. None: any other model; the index can then be searched with vectors only
                (`Searcher.search_vectors`).
            nbits: as for `create`, like the arguments after it.
            pool: see `create`.
            fulltext: see `create`.
            names: see `create`.
            overwrite: see `create`.
            rejects: see `create`.
            resume: see `create`.
            progress: see `create`.
            storage_options: see `create`.

        Returns:
            The index. `add` and `upsert` take later vectors.

        Raises:
            InputError: as for `create`; and vectors that have another shape, that are not finite or not of unit
                length, or that are not one matrix for each document.
            TableExistsError: see `create`, like ResumeError, BusyError and StorageError.

        Example:
            >>> import numpy as np
            >>> from tansaku import Index, Searcher
            >>> vectors = np.eye(16, dtype=np.float32)[:, None]  # two documents below, one token vector each
            >>> index = Index.create_from_vectors(folder, "given", [{"id": "a"}, {"id": "b"}], vectors[:2])
            >>> [hit.id for hit in Searcher.open(folder, "given").search_vectors(vectors[1], k=1)]
            ['b']
        """
        _check_new(table, nbits, pool)
        if not len(vectors):
            raise InputError("there are no vectors to index")
        shape = np.shape(vectors[0])
        dim = encoder.dim if encoder is not None else shape[-1] if len(shape) == 2 else 0
        model = encoder or VectorsOnly(dim)
        options = _options(names, rejects, progress, resume, None)
        with _database(db, storage_options) as database:
            report = build_table(
                database,
                table,
                documents,
                None,
                model=model.bundle,
                vectors=GivenVectors(vectors, dim),
                nbits=nbits,
                pool=pool,
                passage_tokens=None,
                fulltext=fulltext,
                overwrite=overwrite,
                options=options,
            )
        index = cls(table, open_index_table(database, table), model)
        index.last_build = report
        return index

    @classmethod
    def open(
        cls,
        db: Database,
        table: str,
        *,
        encoder: Encoder | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Index:
        """Open an index to change it.

        Args:
            db: a database folder, a URI or a LanceDB connection.
            table: name of the table.
            encoder: the model the index was made with; None takes the one that ships inside when it is first needed.
            storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.

        Raises:
            TableNotFoundError: no such database or table.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model than ``encoder``.
            StorageError: the database cannot be read.
        """
        return cls(table, open_index_table(connect(db, storage_options=storage_options), table), encoder)

    def add(
        self,
        documents: Iterable[Any],
        *,
        vectors: Sequence[Any] | None = None,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Add ``documents``: all of them, or after an error none.

        One transaction for up to 256 MB of rows (some 40,000 passages). More are several transactions: an interruption
        between them leaves the first ones in the table, and the same call goes on from there.

        While another process adds to the table, this call works beside it, and leaves nothing to resume if it is
        interrupted itself.

        Args:
            documents: as for `create`.
            vectors: token vectors of each document, as for `create_from_vectors`, made by the index's model; None
                encodes the texts.
            names: as for `create`, like the arguments after it.
            rejects: see `create`.
            resume: see `create`.
            restart: see `create`.
            progress: see `create`.

        Raises:
            InputError: as for `create`; and for an id that the index has already, for a field that it has no column
                for, and for vectors in an index of passages.
            ModelMismatchError: the index was made with another model.
            ResumeError: see `create`.
            WriteConflictError: another writer has added the same ids meanwhile, or has replaced the table.
            StorageError: the disk or the object store refuses.
        """
        return self._merge(documents, vectors, False, _options(names, rejects, progress, resume, restart))

    def upsert(
        self,
        documents: Iterable[Any],
        *,
        vectors: Sequence[Any] | None = None,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """`add`, but a document whose id the index has replaces the one that is there.

        Args:
            documents: see `add`, like the arguments after it.
            vectors: see `add`.
            names: see `add`.
            rejects: see `add`.
            resume: see `add`.
            restart: see `add`.
            progress: see `add`.

        Raises:
            InputError: see `add`, like the other errors.
        """
        return self._merge(documents, vectors, True, _options(names, rejects, progress, resume, restart))

    def delete(self, ids: Sequence[str] | None = None, *, where: Where | None = None) -> DeleteReport:
        """Delete documents by id, or all rows that a condition describes.

        Args:
            ids: ids of documents; those that are not in the index are reported, and are not an error.
            where: a condition over the table's columns: text such as ``"year < 1950"``, or a `Condition` with
                parameters.

        Raises:
            InputError: both or neither of ``ids`` and ``where`` are given, or the condition is not valid.
            WriteConflictError: another writer has replaced the table meanwhile.
            StorageError: the disk or the object store refuses.
        """
        return delete_documents(self._now(), ids, where)

    def optimize(self, keep: timedelta = timedelta(hours=1)) -> OptimizeReport:
        """Merge small fragments and give up versions of the table that are older than ``keep``.

        A reader that has an older version open must refresh; searches of a `Searcher` do so by themselves.

        Args:
            keep: the age up to which versions are kept.

        Raises:
            InputError: ``keep`` is negative.
            WriteConflictError: other writers got in the way several times.
            StorageError: the disk or the object store refuses.
        """
        return optimize_table(self._now(), keep)

    def rebuild(
        self,
        *,
        nbits: int | None = None,
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Train a new codec on the documents as they are now, encode them all again, and swap the result in.

        Readers and writers go on meanwhile; what is written in that time is taken over.

        Args:
            nbits: bits per dimension of the new codec; None keeps it.
            resume: as for `create`.
            restart: as for `create`.
            progress: called as the work goes on.

        Raises:
            InputError: the index is empty, or was made from vectors, which it does not keep.
            ModelMismatchError: the index was made with another model.
            ResumeError: an interrupted call with other options has left work, or an interrupted `add` or `upsert` that
                would be lost; ``resume=False`` gives it up.
            BusyError: another process is building the table, and ``resume`` is true.
            WriteConflictError: another writer has replaced the table meanwhile.
            StorageError: the disk or the object store refuses.
        """
        if nbits is not None:
            check_nbits(nbits)
        options = _options(None, None, progress, resume, restart)
        index = self._now()
        encoder = self._model_of(index)
        if isinstance(encoder, VectorsOnly):
            raise InputError(
                f"{index.place()} was made from vectors, which it does not keep; make it again with "
                "`Index.create_from_vectors(..., overwrite=True)`"
            )
        self.last_build = rebuild_table(index, encoder, nbits, options)
        return self.last_build

    def info(self) -> IndexInfo:
        """Counts and sizes of the index."""
        return describe(self._now())

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return self._now().table.count_rows()

    def _now(self) -> IndexTable:
        """The table as it is now: it may have been changed, or replaced, since this object was made."""
        return open_index_table(self._database, self.name)

    def _model_of(self, index: IndexTable) -> Encoder:
        self._encoder = model_of(index, self._encoder)
        return self._encoder

    def _merge(
        self, documents: Iterable[Any], vectors: Sequence[Any] | None, update: bool, options: WriteOptions
    ) -> BuildReport:
        index = self._now()
        given, encoder = None, None
        if vectors is None:
            encoder = self._model_of(index)
        elif index.header.passage_tokens:
            raise InputError(f"{index.place()} divides documents into passages; give texts, not vectors")
        else:
            if self._encoder is not None:
                index.header.check_model(self._encoder.bundle, index.place())
            given = GivenVectors(vectors, index.codec.dim)
        self.last_build = merge_documents(index, documents, encoder, vectors=given, update=update, options=options)
        return self.last_build


def _check_new(table: str, nbits: int, pool: int) -> None:
    check_nbits(nbits)
    check_table_name(table)
    if pool < 1:
        raise InputError(f"pool is {pool}; it must be 1 or more")


@contextlib.contextmanager
def _database(db: Database, storage_options: Mapping[str, str] | None) -> Iterator[DBConnection]:
    """The database, made if missing; after an error its folder is removed again, if it is empty."""
    existed = database_exists(db)
    database = connect(db, create=True, storage_options=storage_options)
    try:
        yield database
    except BaseException:
        folder = local_folder(database)
        if folder is not None and not existed:
            with contextlib.suppress(OSError):  # it holds what is needed to go on
                folder.rmdir()
        raise


def _options(
    names: FieldNames | None,
    rejects: Rejects | None,
    progress: Progress | None,
    resume: bool,
    restart: bool | None,
) -> WriteOptions:
    if restart is not None:
        # 3: the caller of the method of `Index`.
        warnings.warn("restart is deprecated; use resume=False to start over", DeprecationWarning, stacklevel=3)
        resume = resume and not restart
    return WriteOptions(names, rejects, resume, progress or no_progress)

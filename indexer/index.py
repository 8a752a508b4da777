"""`Index` stores documents as compressed token vectors in a LanceDB table."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from lancedb.db import DBConnection

from ..onnx_export.encode.encoder import Encoder
from ..onnx_export.errors import InputError
from ..onnx_export.kinds import check_kind, check_whole
from ..onnx_export.progress import Progress, no_progress
from .codec.codec import check_nbits
from .derived.check import CheckReport, check_index
from .info import IndexInfo, describe
from .read.documents import FieldNames
from .read.given import as_records
from .read.passages import check_room
from .read.rejects import Rejects
from .table.changes import DeleteReport, OptimizeReport, delete_documents, optimize_table
from .table.conditions import Where
from .table.contents import drop_index, index_names, joined_documents, stored_documents
from .table.database import Database, connect, database_exists, local_folder, location_of
from .table.given_vectors import Vectors, model_of_new, vectors_for
from .table.model import Models, VectorsOnly
from .table.table import IndexTable, check_table_name, open_index_table
from .table.versions import IndexVersion, kept_versions, restore_version
from .write.build import build_table
from .write.copying import copy_index, rename_index
from .write.merge import merge_documents
from .write.options import WriteOptions
from .write.rebuild import rebuild_table
from .write.report import BuildReport
from .write.workers.choice import On, workers_of


class Index:
    """A late-interaction index in a LanceDB table; make one with `Index.create`, open one with `Index.open`.

    A document is a text with an id. A row of the table is one document or, in an index of passages, one passage of a
    document.

    Each method works on the latest version of the table. Readers keep the version that they have opened until they
    refresh, and no write blocks them. Several processes may write. Their commits are made one after the other, and a
    commit that conflicts with an earlier one raises WriteConflictError.

    Attributes:
        name: name of the table.
        last_build: what the last `create`, `add`, `upsert` or `rebuild` of this object wrote; None before the first.

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

    def __init__(self, name: str, table: IndexTable, encoder: Encoder | Models | None = None) -> None:
        check_kind("table", table, IndexTable, "open the index with Index.open(db, table)")
        self.name = name
        self.last_build: BuildReport | None = None
        self._models = Models.of(encoder)
        self._encoder = self._models.given
        self._database = table.database
        if self._encoder is not None:
            table.header.check_model(self._encoder.bundle, table.place())

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, an index is its place and its encoder's: whoever unpickles it opens it there."""
        return _open_again, (*location_of(self._database), self.name, self._models, self.last_build)

    @property
    def encoder(self) -> Encoder:
        """The model that encodes documents; it is loaded when it is first needed.

        Raises:
            ModelMismatchError: the index was made with another model.
            TableNotFoundError: the table has been dropped.
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
        on: On = "local",
    ) -> Index:
        """Index documents into a new table.

        All documents are read and checked before the first is encoded. The table appears in one transaction: an error
        or an interruption leaves the database unchanged. After an interruption the encoded documents are kept next to
        the table, and the same call continues from there.

        Memory: the vectors of the sample that the codec is trained on (at most a million: 512 MB at 128 dimensions),
        three chunks of 512 rows, and about 100 bytes for each id.

        Args:
            db: a database folder (made if missing), a URI or a LanceDB connection.
            table: name of the table.
            documents: mappings with the fields ``id`` (or ``_id``), ``text`` and optionally ``title``; other fields
                become columns. They are read three times, so an iterator is first read into memory; a `Source` is not.
                Or the path of a file or folder, or a list of paths, see `Source`; a DataFrame of pandas or polars; an
                Arrow table, record batch or reader.
            encoder: the model; None takes the one that ships with tansaku.
            nbits: bits per dimension of a residual: 1, 2 or 4.
            pool: pooling factor: keep about 1 / ``pool`` of the token vectors (see `pool_tokens`); 1 keeps all.
            passage_tokens: divide documents at sentence ends into passages of at most this many tokens. Each passage
                becomes a row with the document's id as ``parent_id``. None indexes each document as one row.
            fulltext: also store the text for LanceDB's full text search, from which searches can take candidates.
            names: names of the fields with id, text and title, and which others become columns of which type; None
                takes the names above.
            overwrite: replace a table of that name.
            rejects: collects documents that cannot be indexed; None raises an error for the first of them.
            resume: continue an interrupted call, if documents and options are the same. False discards what it left
                and starts over, and does not wait for another process that is building the table.
            restart: deprecated; ``restart=True`` is ``resume=False``.
            progress: called while the work proceeds.
            storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.
            on: where documents are encoded: "local", "processes" or "ray", or `OnProcesses` or `OnRay` with options.
                The rows are the same. A document that ends its worker is rejected.

        Returns:
            The index; its `last_build` has the counts of what was written.

        Raises:
            InputError: no documents are given, one of them cannot be used, or an option is out of range.
            TableExistsError: the table exists and ``overwrite`` is false.
            ResumeError: the documents or options differ from those of the interrupted call; ``resume=False`` discards
                what it left.
            BusyError: another process is building the table, and ``resume`` is true.
            WriteConflictError: another process created the table at the same time.
            BundleError: the model that ships with tansaku is damaged.
            MissingExtraError: ``pool`` is more than 1 and the extra ``pooling`` is not installed; or ``on`` is "ray"
                and the extra ``ray`` is not.
            WorkerError: the workers of ``on`` cannot be reached or started, differ from this process, or end again and
                again.
            StorageError: the disk or the object store failed.
        """
        _check_new(table, nbits, pool)
        models = Models(encoder)
        encoder = models.default()
        if passage_tokens is not None:
            check_room(passage_tokens, encoder.bundle.document.max_length)
        options = _options(names, rejects, progress, resume, restart, on)
        with _database(db, storage_options) as database:
            report = build_table(
                database,
                table,
                documents,
                encoder,
                model=encoder,
                nbits=nbits,
                pool=pool,
                passage_tokens=passage_tokens,
                fulltext=fulltext,
                overwrite=overwrite,
                options=options,
            )
        index = cls(table, open_index_table(database, table), models)
        index._encoder, index.last_build = encoder, report
        return index

    @classmethod
    def create_from_vectors(
        cls,
        db: Database,
        table: str,
        documents: Iterable[Any],
        vectors: Vectors,
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
        on: On = "local",
    ) -> Index:
        """Index token vectors that were made elsewhere, by any late-interaction model.

        Args:
            db: see `create`.
            table: name of the table.
            documents: what `create` takes, with the field ``id`` (or ``_id``), and optionally ``text``, ``title`` and
                other fields, which become columns.
            vectors: the token vectors of each document: float16, float32 or float64 (tokens, dim), of unit length. One
                of:
                - the name of the field of the documents that has them, such as a column of a Parquet file: lists of
                  lists of floats, the inner ones also of a fixed size. A file is read in pieces;
                - a sequence in the order of the documents: arrays, tensors or nested lists;
                - `FlatVectors`: one array of all documents;
                - an Arrow column of lists of lists of floats, in the order of the documents.
            encoder: the model that made the vectors, if tansaku can run it: the index can then be searched with texts.
                None: the model that the file says, as those of `tansaku encode` do, if ``vectors`` is a name; or
                else another model, and the index can be searched with vectors only (`Searcher.search_vectors`).
            nbits: see `create`.
            pool: see `create`.
            fulltext: see `create`.
            names: see `create`.
            overwrite: see `create`.
            rejects: see `create`.
            resume: see `create`.
            progress: see `create`.
            storage_options: see `create`.
            on: see `create`; the vectors are compressed there.

        Returns:
            The index. Its methods `add` and `upsert` take further vectors.

        Raises:
            InputError: see `create`; also, vectors have another shape, are not finite or not of unit length, or are
                not one matrix for each document. The message names the document and its place.
            ModelMismatchError: the file says another model than ``encoder``, or one that is not known here.
            TableExistsError: see `create`; also ResumeError, BusyError, WriteConflictError, MissingExtraError and
                StorageError.

        Example:
            >>> import numpy as np
            >>> from tansaku import Index, Searcher
            >>> vectors = np.eye(16, dtype=np.float32)[:, None]  # two documents below, one token vector each
            >>> index = Index.create_from_vectors(folder, "given", [{"id": "a"}, {"id": "b"}], vectors[:2])
            >>> [hit.id for hit in Searcher.open(folder, "given").search_vectors(vectors[1], k=1)]
            ['b']
        """
        _check_new(table, nbits, pool)
        options = _options(names, rejects, progress, resume, None, on)
        records = as_records(documents)
        model, given = model_of_new(records, vectors, Models(encoder).given)
        with _database(db, storage_options) as database:
            report = build_table(
                database,
                table,
                records,
                None,
                model=model,
                vectors=given,
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
            encoder: the model that the index was made with; None finds it (the one that ships with tansaku, or one in a
                folder of ``TANSAKU_MODELS``) when it is first needed, and again after `rebuild` has changed it.
            storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.

        Returns:
            The index.

        Raises:
            TableNotFoundError: the database or the table does not exist.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model than ``encoder``.
            StorageError: the database cannot be read.
        """
        return cls(table, open_index_table(connect(db, storage_options=storage_options), table), encoder)

    def add(
        self,
        documents: Iterable[Any],
        *,
        vectors: Vectors | None = None,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
        on: On = "local",
    ) -> BuildReport:
        """Add documents: all of them or, after an error, none.

        Up to 256 MB of rows (about 40,000 passages) are one transaction. More rows are several transactions: an
        interruption between them leaves the first ones in the table, and the same call continues from there.

        Other processes can add to the table at the same time. A call that starts while another one runs cannot be
        resumed after an interruption.

        Args:
            documents: see `create`.
            vectors: token vectors of each document, as in `create_from_vectors`, made by the model of the index; None
                encodes the texts. A file that names its model must name that of the index.
            names: see `create`.
            rejects: see `create`.
            resume: see `create`.
            restart: see `create`.
            progress: see `create`.
            on: see `create`.

        Returns:
            The counts of what was written.

        Raises:
            InputError: see `create`; also, the index already has an id, does not have a column for a field, or has
                passages while vectors are given.
            TableNotFoundError: the table has been dropped.
            ModelMismatchError: the index was made with another model.
            ResumeError: see `create`.
            WriteConflictError: another writer added the same ids at the same time, or replaced the table.
            StorageError: the disk or the object store failed.
        """
        return self._merge(documents, vectors, False, _options(names, rejects, progress, resume, restart, on))

    def upsert(
        self,
        documents: Iterable[Any],
        *,
        vectors: Vectors | None = None,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
        on: On = "local",
    ) -> BuildReport:
        """Add documents, and replace those whose ids the index already has.

        Transactions, interruptions and other processes: see `add`.

        Args:
            documents: see `create`.
            vectors: see `add`.
            names: see `create`.
            rejects: see `create`.
            resume: see `create`.
            restart: see `create`.
            progress: see `create`.
            on: see `create`.

        Returns:
            The counts of what was written; ``updated`` counts the rows that replaced others.

        Raises:
            InputError: see `add`, but ids that the index already has are allowed.
            TableNotFoundError: see `add`; also ModelMismatchError, ResumeError, WriteConflictError and StorageError.
        """
        return self._merge(documents, vectors, True, _options(names, rejects, progress, resume, restart, on))

    def delete(
        self, ids: Sequence[str] | None = None, *, where: Where | None = None, dry_run: bool = False
    ) -> DeleteReport:
        """Delete documents by id, or all rows that meet a condition.

        Args:
            ids: ids of documents, which are deleted with all their passages, or of single passages. Ids that the index
                does not have are reported; they are not an error.
            where: a condition over the table's columns: text such as ``"year < 1950"``, or a `Condition` with
                parameters.
            dry_run: count the rows that would be deleted, and delete none.

        Returns:
            The numbers of rows and documents deleted, and the ids that the index does not have.

        Raises:
            InputError: both or neither of ``ids`` and ``where`` are given, or the condition is not valid.
            TableNotFoundError: the table has been dropped.
            WriteConflictError: another writer replaced the table at the same time.
            StorageError: the disk or the object store failed.
        """
        return delete_documents(self._now(), ids, where, dry_run=dry_run)

    def optimize(self, keep: timedelta = timedelta(hours=1)) -> OptimizeReport:
        """Merge small fragments and remove old versions of the table.

        A reader that has a removed version open must refresh; a `Searcher` refreshes by itself.

        Args:
            keep: age up to which versions are kept.

        Returns:
            What was merged and removed.

        Raises:
            InputError: ``keep`` is negative.
            TableNotFoundError: the table has been dropped.
            WriteConflictError: other writers got in the way several times.
            StorageError: the disk or the object store failed.
        """
        check_kind("keep", keep, timedelta, "give a timedelta, such as timedelta(hours=1)")
        return optimize_table(self._now(), keep)

    def rebuild(
        self,
        *,
        nbits: int | None = None,
        encoder: Encoder | None = None,
        resume: bool = True,
        restart: bool | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Train a new codec on the current rows, encode all rows again, and replace the table in one transaction.

        Readers and writers continue during the rebuild, and what is written in that time is kept. With another model
        they must be opened again with that model after the rebuild.

        Args:
            encoder: another model, which the index has from then on; None keeps the model of the index. Passages stay
                divided as they are.
            nbits: bits per dimension of a residual in the new codec; None keeps the current number.
            resume: see `create`.
            restart: see `create`.
            progress: see `create`.

        Returns:
            The counts of what was written.

        Raises:
            InputError: the index is empty, or was made from vectors, which it does not store.
            TableNotFoundError: the table has been dropped.
            ModelMismatchError: the index was made with another model, and ``encoder`` is None.
            ResumeError: an interrupted call had other options, or an interrupted `add` or `upsert` would be lost;
                ``resume=False`` discards its work.
            BusyError: another process is building the table, and ``resume`` is true.
            WriteConflictError: another writer replaced the table during the rebuild.
            StorageError: the disk or the object store failed.
        """
        if nbits is not None:
            check_nbits(nbits)
        options = _options(None, None, progress, resume, restart)
        index = self._now()
        model = encoder or self._models.find(index)
        if isinstance(model, VectorsOnly):
            raise InputError(
                f"{index.place()} was made from vectors, which it does not store; create it again with "
                "`Index.create_from_vectors(..., overwrite=True)`"
            )
        self.last_build = rebuild_table(index, model, nbits, options)
        self._encoder = model
        if encoder is not None:
            self._models = Models(encoder)  # it need not be one that is found
        return self.last_build

    def check(self, *, progress: Progress | None = None) -> CheckReport:
        """Compare all files of the index with their checksums, and all codes with the codec: the table is read whole.

        Opening an index checks its codec, and the files of an index of up to 64 MB. The checksums are taken when an
        index is searched, or made on the command line; files that have none yet get theirs. Derived arrays that are
        damaged are made again.

        Args:
            progress: called as the work proceeds.

        Returns:
            What was checked.

        Raises:
            StorageError: the table is damaged, or cannot be read; the message names the file or the column.
        """
        return check_index(self._now(), progress or no_progress)

    def info(self) -> IndexInfo:
        """Measure the index.

        Returns:
            Its counts, sizes and settings.

        Raises:
            TableNotFoundError: the table has been dropped.
            StorageError: the table cannot be read.
        """
        return describe(self._now())

    @staticmethod
    def names(db: Database, *, storage_options: Mapping[str, str] | None = None) -> list[str]:
        """The names of the indexes in a database, sorted. Tables that tansaku did not make are left out.

        Args:
            db: see `open`.
            storage_options: see `open`.

        Raises:
            TableNotFoundError: the database does not exist.
            StorageError: the database cannot be read.
        """
        return index_names(connect(db, storage_options=storage_options))

    @staticmethod
    def drop(db: Database, table: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        """Remove an index for good: its table, its codecs and the files next to them.

        Args:
            db: see `open`.
            table: name of the table.
            storage_options: see `open`.

        Raises:
            TableNotFoundError: the database or the table does not exist.
            NotAnIndexError: the table was not made by tansaku.
            StorageError: the disk or the object store failed.
        """
        drop_index(connect(db, storage_options=storage_options), table)

    def copy(
        self,
        to_db: Database | None = None,
        to_table: str | None = None,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Index:
        """Copy the index into another table or database. Nothing is encoded again.

        The copy appears in one transaction and has the latest version only. Its rows are counted, read
        back, and compared with those of this index by a checksum.

        Args:
            to_db: the database of the copy, as in `create`; None means that of this index.
            to_table: name of the copy; None means the name of this index.
            overwrite: replace a table of that name.
            progress: called while the work proceeds.
            storage_options: LanceDB's options for the object store of the copy.

        Returns:
            The copy.

        Raises:
            InputError: an index cannot have the name, or it would be copied onto itself.
            TableExistsError: the table exists and ``overwrite`` is false.
            TableNotFoundError: this index has been dropped.
            StorageError: the disk or the object store failed, or rows of the copy are missing or differ.

        Example:
            >>> from tansaku import Index
            >>> index = Index.create(folder, "first", [{"id": "kinkaku", "text": "京都の寺院。"}])
            >>> len(index.copy(to_table="second"))
            1
            >>> Index.rename(folder, "second", "third")
            >>> "second" in Index.names(folder), "third" in Index.names(folder)
            (False, True)
        """
        with _database(self._database if to_db is None else to_db, storage_options) as database:
            name = to_table or self.name
            copy_index(self._now(), database, name, overwrite=overwrite, progress=progress or no_progress)
        return Index(name, open_index_table(database, name), self._models)

    @staticmethod
    def rename(
        db: Database,
        table: str,
        to_table: str,
        *,
        progress: Progress | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        """Give an index another name: it is copied, and removed under the old name. Old versions are not kept.

        Args:
            db: see `open`.
            table: name of the table.
            to_table: the new name.
            progress: called while the work proceeds.
            storage_options: see `open`.

        Raises:
            InputError: an index cannot have the name.
            TableExistsError: the database has a table of that name.
            TableNotFoundError: the database or the table does not exist.
            ResumeError: an interrupted write of the table would be lost.
            WriteConflictError: another writer has changed the table meanwhile, which is now there under both names.
            StorageError: the disk or the object store failed.
        """
        index = open_index_table(connect(db, storage_options=storage_options), table)
        rename_index(index, to_table, progress or no_progress)

    def versions(self) -> list[IndexVersion]:
        """The versions that are kept, the oldest first: each write leaves one, and `optimize` removes old ones.

        Raises:
            TableNotFoundError: the table has been dropped.
            StorageError: the table cannot be read.
        """
        return kept_versions(self._now())

    def restore(self, version: int) -> None:
        """Make an earlier version the latest one. The later versions are kept.

        Args:
            version: number of the version, see `versions`.

        Raises:
            InputError: the version is not kept.
            TableNotFoundError: the table has been dropped.
            WriteConflictError: other writers got in the way several times.
            StorageError: the disk or the object store failed.

        Example:
            >>> from tansaku import Index
            >>> index = Index.create(folder, "changed", [{"id": "kinkaku", "text": "京都の寺院。"}])
            >>> before = index.versions()[-1].version
            >>> index.delete(["kinkaku"]).documents
            1
            >>> index.restore(before)
            >>> len(index)
            1
        """
        restore_version(self._now(), version)

    def documents(self, *, where: Where | None = None, whole: bool = False) -> Iterator[dict[str, Any]]:
        """Read what was given for each row, in no particular order. `create` makes the same index from it again.

        Args:
            where: a condition over the columns, see `delete`; None means all rows.
            whole: give documents in place of their passages, for `create`. Where a passage ends, the text has a line
                end in place of the whitespace that was there. A document is given if one of its passages meets
                ``where``.

        Yields:
            A mapping with ``id``, ``title``, ``text`` and the other columns; of a passage also ``parent_id``, the id of
            its document, and ``passage``, its number from 0.

        Raises:
            InputError: the condition is not valid.
            TableNotFoundError: the table has been dropped.
            StorageError: the table cannot be read.

        Example:
            >>> from tansaku import Index
            >>> index = Index.create(folder, "kept", [{"id": "kinkaku", "text": "京都の寺院。", "year": 1397}])
            >>> list(index.documents(where="year < 1500"))
            [{'id': 'kinkaku', 'title': '', 'text': '京都の寺院。', 'year': 1397}]
        """
        yield from (joined_documents if whole else stored_documents)(self._now(), where)

    def __len__(self) -> int:
        """Number of rows of the table; `info` counts documents too."""
        return self._now().table.count_rows()

    def _now(self) -> IndexTable:
        """The latest version of the table, which others may have changed or replaced since this object was made."""
        return open_index_table(self._database, self.name)

    def _model_of(self, index: IndexTable) -> Encoder:
        self._encoder = self._models.find(index)
        return self._encoder

    def _merge(
        self, documents: Iterable[Any], vectors: Vectors | None, update: bool, options: WriteOptions
    ) -> BuildReport:
        index = self._now()
        given, encoder = None, None
        if vectors is None:
            encoder = self._model_of(index)
        elif index.header.passage_tokens:
            raise InputError(f"{index.place()} divides documents into passages; give texts, not vectors")
        else:
            if self._models.given is not None:
                self._models.find(index)
            documents = as_records(documents)
            given = vectors_for(documents, vectors, index)
        self.last_build = merge_documents(index, documents, encoder, vectors=given, update=update, options=options)
        return self.last_build


def _open_again(
    db: str, storage_options: Mapping[str, str] | None, table: str, models: Models, last: BuildReport | None
) -> Index:
    index = Index(table, open_index_table(connect(db, storage_options=storage_options), table), models)
    index.last_build = last
    return index


def _check_new(table: str, nbits: int, pool: int) -> None:
    check_nbits(nbits)
    check_table_name(table)
    check_whole("pool", pool)


@contextlib.contextmanager
def _database(db: Database, storage_options: Mapping[str, str] | None) -> Iterator[DBConnection]:
    """The database, made if missing. After an error, a folder that was made is removed if it is empty."""
    existed = database_exists(db)
    database = connect(db, create=True, storage_options=storage_options)
    try:
        yield database
    except BaseException:
        folder = local_folder(database)
        if folder is not None and not existed:
            with contextlib.suppress(OSError):  # not empty: it has the work that a repeated call continues
                folder.rmdir()
        raise


def _options(
    names: FieldNames | None,
    rejects: Rejects | None,
    progress: Progress | None,
    resume: bool,
    restart: bool | None,
    on: On = "local",
) -> WriteOptions:
    if restart is not None:
        # 3: the caller of the method of `Index`.
        warnings.warn("restart is deprecated; use resume=False to start over", DeprecationWarning, stacklevel=3)
        resume = resume and not restart
    if names is not None:
        given = names if isinstance(names, Mapping) and all(isinstance(name, str) for name in names) else {}
        example = ", ".join(f"{name}={value!r}" for name, value in given.items()) or 'id="url", text="body"'
        check_kind("names", names, FieldNames, f"give FieldNames({example})")
    if rejects is not None:
        check_kind("rejects", rejects, Rejects, "give Rejects(PATH)")
    return WriteOptions(names, rejects, resume, progress or no_progress, workers_of(on))

"""The LanceDB database that an index lies in, and the folder beside it for what can be made again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import lancedb
from lancedb.db import DBConnection
from lancedb.table import Table

from ...onnx_export.cache_folder import CACHE_VARIABLE, cache_folder
from ...onnx_export.errors import InputError
from ..errors import StorageError, TableNotFoundError, WriteConflictError
from .lance_errors import first_line, is_conflict, is_missing_table, is_panic, remedy_for

Database = str | Path | DBConnection


def connect(db: Database, *, create: bool = False, storage_options: Mapping[str, str] | None = None) -> DBConnection:
    """Connect to a database: a folder, a URI, or a connection, which is returned as it is.

    Args:
        db: a folder, or a URI that LanceDB knows: ``s3://…``, ``gs://…``, ``az://…``.
        create: make a local folder that is not there.
        storage_options: LanceDB's own options for object stores (credentials, endpoint, region).

    Raises:
        InputError: ``db`` is a file, or a connection beside ``storage_options``.
        TableNotFoundError: a local folder does not exist and ``create`` is false.
        StorageError: the store cannot be reached, or refuses the credentials.
    """
    if isinstance(db, DBConnection):
        if storage_options:
            raise InputError("a connection has storage options of its own; give them where the connection is made")
        return db
    if not create and not database_exists(db):
        raise TableNotFoundError(f"database {db}: no such folder; `tansaku index` makes one")
    if database_exists(db) and "://" not in str(db) and not Path(db).is_dir():
        raise InputError(f"database {db}: this is a file; a LanceDB database is a folder")
    with storage_errors(f"database {db}"):
        database = lancedb.connect(str(db), storage_options=dict(storage_options or {}) or None)
        if "://" in str(db):
            database.list_tables()  # an object store is not asked for anything before this
    return database


def database_exists(db: Database) -> bool:
    """Whether there is something at ``db``; connections and remote URIs count as there."""
    return isinstance(db, DBConnection) or "://" in str(db) or Path(db).exists()


def table_names(database: DBConnection) -> list[str]:
    """Names of all tables in the database."""
    names: list[str] = []
    token: str | None = None
    with storage_errors(f"database {database.uri}"):
        while True:
            page = database.list_tables(page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names


def find_table(database: DBConnection, name: str, version: int | None = None) -> Table | None:
    """The table at its latest version, or at ``version``; None if there is none that can be opened.

    A table whose first write was cut off is listed, but cannot be opened; it counts as none.
    """
    try:
        table = database.open_table(name)
    except (ValueError, RuntimeError) as error:
        if is_missing_table(error):
            return None
        raise StorageError(
            f"table {name!r}: LanceDB cannot read it ({first_line(error)}){remedy_for(error)}"
        ) from error
    if version is not None:
        table.checkout(version)
    return table


def drop_table(database: DBConnection, name: str) -> None:
    """Remove a table, if it is there."""
    with contextlib.suppress(ValueError, RuntimeError):
        database.drop_table(name)


def side_folder(database: DBConnection, table: str) -> Path:
    """Where unfinished builds and derived arrays of ``table`` lie: beside a local table, else in the cache folder.

    Raises:
        StorageError: there is no home folder to have a cache folder in.
    """
    folder = local_folder(database)
    if folder is None:
        cached = cache_folder()
        if cached is None:
            raise StorageError(
                f"table {table!r}: there is no home folder for what is kept beside an object store; set "
                f"{CACHE_VARIABLE} to a folder"
            )
        folder = cached / hashlib.sha256(database.uri.encode()).hexdigest()[:16]
    return folder / f"{table}.tansaku"


def local_folder(database: DBConnection) -> Path | None:
    """The database's folder, or None if it lies in an object store."""
    uri = database.uri.removeprefix("file://")
    return None if "://" in uri else Path(uri)


@contextlib.contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Turn what LanceDB and the file system raise into StorageError or WriteConflictError, naming ``place``."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, (RuntimeError, OSError, ValueError)) or is_panic(error)
        if not known or isinstance(error, InputError):
            raise
        if is_conflict(error):
            raise WriteConflictError(
                f"{place}: another writer changed the table at the same time, and nothing was written "
                f"({first_line(error)}); open the index again and repeat"
            ) from error
        raise StorageError(f"{place}: {first_line(error)}{remedy_for(error)}") from error

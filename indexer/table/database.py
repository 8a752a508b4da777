"""The LanceDB database of an index, and the side folder for files that can be made again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import lancedb
from lancedb.db import DBConnection, LanceDBConnection
from lancedb.table import Table

from ...onnx_export.cache_folder import CACHE_VARIABLE, cache_folder
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind
from ..errors import StorageError, TableNotFoundError, WriteConflictError
from ..forks import check_process
from ..plain_files import check_plain
from .lance_errors import first_line, is_conflict, is_missing_table, is_panic, remedy_for

Database = str | Path | DBConnection

_URI_AS_PATH = re.compile(r"[a-z][a-z0-9+.-]+:/")


def connect(db: Database, *, create: bool = False, storage_options: Mapping[str, str] | None = None) -> DBConnection:
    """Connect to a database.

    Args:
        db: a folder, in which ``~`` at the start is the home folder; a URI that LanceDB knows: ``s3://…``, ``gs://…``,
            ``az://…``; or a connection.
        create: make a local folder that does not exist.
        storage_options: LanceDB's options for object stores (credentials, endpoint, region).

    Returns:
        The connection; ``db`` itself if it is one.

    Raises:
        InputError: ``db`` is a file, a URI made into a `Path`, a ``~`` for which no home folder is known, or a
            connection together with ``storage_options``.
        TableNotFoundError: a local folder does not exist and ``create`` is false.
        StorageError: the store cannot be reached, or refuses the credentials.
        ForkedProcessError: this process was forked from one that had opened an index.
    """
    check_process(f"database {db.uri if isinstance(db, DBConnection) else db}")
    if isinstance(db, DBConnection):
        if storage_options:
            raise InputError("storage options were given with a connection; pass them to `lancedb.connect` instead")
        return db
    check_kind("db", db, (str, os.PathLike), "give a folder, a URI or a LanceDB connection")
    place = _location(db)
    if not create and not database_exists(place):
        raise TableNotFoundError(f"database {place}: no such folder; `tansaku index` makes one")
    if database_exists(place) and "://" not in place and not Path(place).is_dir():
        raise InputError(f"database {place}: this is a file; a LanceDB database is a folder")
    with storage_errors(f"database {place}"):
        database = lancedb.connect(place, storage_options=dict(storage_options or {}) or None)
        if "://" in place:
            database.list_tables()  # the first request to an object store: errors are raised here
    return database


def database_exists(db: Database) -> bool:
    """Whether ``db`` exists; connections and remote URIs are assumed to exist."""
    check_kind("db", db, (str, os.PathLike, DBConnection), "give a folder, a URI or a LanceDB connection")
    return isinstance(db, DBConnection) or "://" in (place := _location(db)) or Path(place).exists()


def _location(db: str | Path) -> str:
    """``db`` as all readers and writers understand it: with the home folder in place of ``~``."""
    place = os.path.expanduser(db)
    if isinstance(db, Path) and _URI_AS_PATH.match(str(db)):
        raise InputError(f"database {db}: a URI made into a path has lost a slash; give it as a string")
    if str(place) == "~" or str(place).startswith("~/"):
        raise InputError(f"database {db}: no home folder is known; set HOME, or write the folder in full")
    return str(place)


def table_names(database: DBConnection) -> list[str]:
    """The names of all tables in a database.

    Raises:
        StorageError: the database cannot be read.
    """
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
    """Open a LanceDB table.

    Args:
        database: the database.
        name: name of the table.
        version: version of the table; None opens the latest.

    Returns:
        The table; None if it does not exist. A table whose first write was interrupted counts as missing, although
        LanceDB lists it.

    Raises:
        StorageError: the table cannot be read; or it is a link, or has one to a folder, or a pipe or a device.
    """
    check_process(f"table {name!r}")
    _check_table_folder(database, name)
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
    """Remove a table, if it exists.

    Raises:
        StorageError: it is a link, or has one to a folder, or a pipe or a device.
    """
    _check_table_folder(database, name)
    with contextlib.suppress(ValueError, RuntimeError):
        database.drop_table(name)


def _check_table_folder(database: DBConnection, name: str) -> None:
    folder = local_folder(database)
    if folder is not None:
        check_plain(folder / f"{name}.lance", linked_files=True)  # LanceDB writes new files only, and waits at a pipe


def side_folder(database: DBConnection, table: str) -> Path:
    """The folder for unfinished builds and derived arrays of a table.

    Args:
        database: the database.
        table: name of the table.

    Returns:
        A folder next to a local table, otherwise a folder in the user's cache folder. It may not exist.

    Raises:
        StorageError: the user has no home folder, and so no cache folder; or the folder is a link, or has a link, a
            pipe, a socket or a device in it.
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
        check_plain(folder)
    check_plain(folder / f"{table}.tansaku")
    return folder / f"{table}.tansaku"


def location_of(database: DBConnection) -> tuple[str, Mapping[str, str] | None]:
    """Where `connect` finds the database again in another process: its full path or URI, and its storage options.

    Raises:
        InputError: it is no folder and no object store: in memory, or LanceDB's cloud.
    """
    folder = local_folder(database)
    if folder is not None:
        return str(folder.absolute()), None
    if not isinstance(database, LanceDBConnection) or database.uri.startswith("memory:"):
        raise InputError(
            f"database {database.uri}: another process cannot open it, so it cannot be pickled; use a folder or an "
            "object store"
        )
    return database.uri, database.storage_options


def local_folder(database: DBConnection) -> Path | None:
    """The database's folder; None if the database is in an object store."""
    uri = database.uri.removeprefix("file://")
    return None if "://" in uri else Path(uri)


@contextlib.contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """A context in which errors of LanceDB and the file system become errors of tansaku.

    Args:
        place: what the message calls the table, database or folder.

    Raises:
        StorageError: the disk or the object store failed.
        WriteConflictError: another writer changed the table at the same time.
        ForkedProcessError: this process was forked from one that had opened an index.
    """
    check_process(place)
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

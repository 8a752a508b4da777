"""The table of an index: open it, and create it in one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.table import Table

from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind
from ...onnx_export.retry import retrying
from ..codec.codec import ResidualCodec
from ..errors import NotAnIndexError, StorageError, TableExistsError, TableNotFoundError, WriteConflictError
from .aligned import aligned
from .codec_table import Fit, MissingCodecError, codec_table, load_codec, remove_codec, store_codec, stored_codecs
from .counted import check_made
from .database import drop_table, find_table, storage_errors, table_names
from .lance_errors import is_existing_table, is_vanished
from .schema import IndexHeader, check_columns, is_made_by_tansaku, read_header
from .shard import WHOLE, Shard


@dataclass(frozen=True)
class IndexTable:
    """An open index.

    Attributes:
        database: the database of the table.
        name: name of the table.
        table: the LanceDB table at one version; later changes are not visible in it.
        header: the settings of the index.
        codec: decodes the residuals.
        fit: how well the codec fits the rows that it was trained on.
        shard: the rows that are searched.
    """

    database: DBConnection
    name: str
    table: Table
    header: IndexHeader
    codec: ResidualCodec
    fit: Fit
    shard: Shard = WHOLE

    def place(self) -> str:
        """What error messages call this table."""
        return f"table {self.name!r}"


def open_index_table(database: DBConnection, name: str, *, version: int | None = None) -> IndexTable:
    """Open the table of an index.

    Args:
        database: the database of the table.
        name: name of the table.
        version: version of the table; None opens the latest.

    Returns:
        The open table.

    Raises:
        TableNotFoundError: the table does not exist; the message lists those that do.
        NotAnIndexError: the table was not made by tansaku, has another format version, or lacks its codec.
        StorageError: the table cannot be read.
    """

    def may_succeed(error: BaseException) -> bool:
        # Of two processes that make the table of codecs at the same moment, one has to store its codec once more. The
        # latest version may be given up while it is being opened, by an `optimize` that follows another write.
        vanished = version is None and isinstance(error, StorageError) and is_vanished(error)
        return isinstance(error, MissingCodecError) or vanished

    return retrying(may_succeed, tries=4)(_opened, database, name, version)


def _opened(database: DBConnection, name: str, version: int | None) -> IndexTable:
    place = f"table {name!r}"
    with storage_errors(place):
        table = find_table(database, name, version)
        if table is None:
            names = [n for n in table_names(database) if not n.endswith(codec_table("")) and n != name]
            raise TableNotFoundError(
                f"{place}: not in this database (tables: {', '.join(names) or 'none'}); `tansaku index` makes one"
            )
        table.checkout(table.version)
        header = read_header(table.schema, place)
        check_columns(table.schema, header, place)
        codec, fit = load_codec(database, name, header.codec_id)
    return IndexTable(database, name, table, header, codec, fit)


def create_index_table(
    database: DBConnection,
    name: str,
    schema: pa.Schema,
    codec: ResidualCodec,
    fit: Fit,
    batches: Iterable[pa.RecordBatch],
    *,
    overwrite: bool,
    note_rows: Callable[[int], None],
) -> None:
    """Create the table of an index in one transaction. After an error, an existing table is unchanged.

    Args:
        database: the database.
        name: name of the table.
        schema: schema of the table, with the header.
        codec: the codec, which is stored too.
        fit: how well the codec fits the rows that it was trained on.
        batches: the rows.
        overwrite: replace all rows of an existing table by a new version of it.
        note_rows: called with the number of rows, just before they are committed.

    Raises:
        TableExistsError: the table exists and ``overwrite`` is false.
        WriteConflictError: another process created the table at the same time.
        StorageError: the disk or the object store failed, or rows are missing after the commit.
    """
    existed = find_table(database, name) is not None
    rows = 0
    version = 0

    def still_absent() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            rows += batch.num_rows
            yield aligned(batch)
        note_rows(rows)
        # LanceDB checks for the table before it takes the rows, which may be minutes before it commits them.
        if not overwrite:
            check_absent(database, name)

    def write(reader: pa.RecordBatchReader) -> None:
        nonlocal version
        table = database.create_table(
            name,
            reader,
            schema=schema,
            mode="overwrite" if existed and overwrite else "create",
            # Stable row ids, which survive compaction and updates, can only be chosen when a table is created.
            storage_options={"new_table_enable_stable_row_ids": "true"},
        )
        if not overwrite:
            check_first(table, name)
        version = table.version

    def make() -> tuple[int, int]:
        with storage_errors(f"table {name!r}"):
            write_stream(write, schema, still_absent())
        return version, rows

    make_index_table(database, name, codec, fit, make, overwrite=overwrite)


def check_first(table: Table, name: str) -> None:
    """Check that a table that was just created was not there before; if it was, put back what it held.

    LanceDB lets a second process create a table if the first commits at the same moment.

    Raises:
        TableExistsError: it was there.
    """
    if table.version > 1:
        table.checkout(1)
        table.restore()
        raise TableExistsError(
            f"table {name!r} was created by another process at the same time, and its rows were kept; add to it, "
            "or choose another name"
        )


def make_index_table(
    database: DBConnection,
    name: str,
    codec: ResidualCodec,
    fit: Fit,
    make: Callable[[], tuple[int, int]],
    *,
    overwrite: bool,
) -> None:
    """Store a codec and make the table that needs it. After an error, an existing table is unchanged.

    Args:
        database: the database.
        name: name of the table.
        codec: the codec.
        fit: how well it fits the rows that it was trained on.
        make: makes the table; returns its version and its number of rows.
        overwrite: whether an existing table is replaced.

    Raises:
        TableExistsError: the table exists and ``overwrite`` is false.
        WriteConflictError: another process created the table at the same time.
        StorageError: the disk or the object store failed, or rows are missing after the commit.
    """
    existed = find_table(database, name) is not None
    had_codec = codec.codec_id in stored_codecs(database, name)
    if not overwrite:
        check_absent(database, name)
    try:
        store_codec(database, name, codec, fit)
        version, rows = make()
        check_made(database, name, version, rows)
    except BaseException as error:
        # Remove only what this call made: another process may have created the table with the same codec.
        if not existed and find_table(database, name) is None:
            drop_table(database, name)
        if not had_codec:
            remove_codec(database, name, codec.codec_id)
            header = find_header(database, name)
            if header is not None and header.codec_id == codec.codec_id:
                store_codec(database, name, codec, fit)
        if not existed and isinstance(error, StorageError) and is_existing_table(error):
            if not overwrite:
                check_absent(database, name)
            raise WriteConflictError(
                f"table {name!r} was created by another process at the same time; repeat the call"
            ) from None
        raise
    store_codec(database, name, codec, fit)  # another process may have removed it before the table existed


def find_header(database: DBConnection, name: str) -> IndexHeader | None:
    """Read the settings of an index.

    Args:
        database: the database.
        name: name of the table.

    Returns:
        The settings; None if the table does not exist or is not an index.

    Raises:
        StorageError: the table cannot be read.
    """
    table = find_table(database, name)
    try:
        return None if table is None else read_header(table.schema, name)
    except NotAnIndexError:
        return None


def write_stream(
    write: Callable[[pa.RecordBatchReader], object], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> None:
    """Write batches to LanceDB. An error raised by ``batches`` is raised unchanged, not wrapped in LanceDB's.

    Args:
        write: gets a reader of the batches and writes them.
        schema: schema of the batches.
        batches: the rows.
    """
    failures: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            failures.append(error)
            raise

    try:
        write(pa.RecordBatchReader.from_batches(schema, guarded()))
    except Exception:
        if failures:
            raise failures[0] from None
        raise


def check_table_name(name: str) -> None:
    """Check a name for a new table.

    Args:
        name: the name.

    Raises:
        InputError: an index cannot have this name.
    """
    check_kind("table", name, str, "give the name of a table")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(
            f"table name {name!r}: use 1 to 100 letters (a to z), digits, underscores, hyphens and periods, "
            "and begin with a letter, digit or underscore"
        )
    if name.endswith(codec_table("")):
        raise InputError(
            f"table name {name!r}: names that end in {codec_table('')!r} are reserved for codecs; choose another"
        )


def check_replaceable(database: DBConnection, name: str) -> None:
    """Check that a table may be replaced.

    Args:
        database: the database.
        name: name of the table.

    Raises:
        NotAnIndexError: the table exists, and tansaku did not make it.
    """
    table = find_table(database, name)
    if table is not None and not is_made_by_tansaku(table.schema):
        raise NotAnIndexError(
            f"table {name!r} was not made by tansaku and is not replaced; choose another name, or drop the table first"
        )


_WRITE_TO_IT = (
    "write to it: Index.open(...) with add or upsert, or overwrite=True (command line: --mode append, upsert or "
    "overwrite)"
)


def check_absent(database: DBConnection, name: str, remedy: str = _WRITE_TO_IT) -> None:
    """Check that a table does not exist.

    Args:
        database: the database.
        name: name of the table.
        remedy: what to do if it exists, other than to choose another name.

    Raises:
        TableExistsError: the database has a readable table of that name.
    """
    if find_table(database, name) is not None:
        raise TableExistsError(f"table {name!r} exists already; choose another name, or {remedy}")

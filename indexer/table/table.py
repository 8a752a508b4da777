"""An index's table: opened, made in one transaction, and checked for what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.table import Table

from ...onnx_export.errors import InputError
from ...onnx_export.retry import retrying
from ..codec.codec import ResidualCodec
from ..errors import NotAnIndexError, StorageError, TableExistsError, TableNotFoundError, WriteConflictError
from .aligned import aligned
from .codec_table import Fit, MissingCodecError, codec_table, load_codec, remove_codec, store_codec, stored_codecs
from .counted import check_made
from .database import drop_table, find_table, storage_errors, table_names
from .lance_errors import is_existing_table, is_vanished
from .schema import IndexHeader, read_header


@dataclass(frozen=True)
class IndexTable:
    """An open index.

    Attributes:
        database: the database it lies in.
        name: the table's name.
        table: the table, at one version: what others write later is not seen.
        header: what its schema metadata says.
        codec: decodes its residuals.
        fit: how near the codec's centroids lay to the documents it was trained on.
    """

    database: DBConnection
    name: str
    table: Table
    header: IndexHeader
    codec: ResidualCodec
    fit: Fit

    def place(self) -> str:
        """What errors call it."""
        return f"table {self.name!r}"


def open_index_table(database: DBConnection, name: str, *, version: int | None = None) -> IndexTable:
    """Open an index at its latest version, or at another.

    Raises:
        TableNotFoundError: no such table; the message lists those that are there.
        NotAnIndexError: not made by tansaku, of another format version, or without its codec.
        StorageError: it cannot be read.
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
    """Write a new table, or a new version in place of all rows of an old one, in one transaction.

    ``note_rows`` is told how many rows there are, just before they are committed.

    Raises TableExistsError if the table is there and ``overwrite`` is false, and StorageError if rows are missing after
    the commit; after any error an old table is as it was.
    """
    existed = find_table(database, name) is not None
    had_codec = codec.codec_id in stored_codecs(database, name)

    rows = 0
    version = 0

    def still_absent() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            rows += batch.num_rows
            yield aligned(batch)
        note_rows(rows)
        # LanceDB looks for the table before it takes the rows, which may be minutes before it commits them.
        if not overwrite:
            check_absent(database, name)

    def write(reader: pa.RecordBatchReader) -> None:
        nonlocal version
        table = database.create_table(
            name,
            reader,
            schema=schema,
            mode="overwrite" if existed and overwrite else "create",
            # Row ids that survive compaction and updates can only be had from the start.
            storage_options={"new_table_enable_stable_row_ids": "true"},
        )
        if table.version > 1 and not overwrite:
            # LanceDB lets a second creator through if the first commits at the same moment.
            table.checkout(1)
            table.restore()
            raise TableExistsError(f"table {name!r} has just been made by another process; its rows were kept")
        version = table.version

    if not overwrite:
        check_absent(database, name)
    try:
        store_codec(database, name, codec, fit)
        with storage_errors(f"table {name!r}"):
            write_stream(write, schema, still_absent())
        check_made(database, name, version, rows)
    except BaseException as error:
        # Only what this call left: another process may have made the table meanwhile, with the same codec.
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
            raise WriteConflictError(f"table {name!r}: another process has just made it; repeat the call") from None
        raise
    store_codec(database, name, codec, fit)  # another process may have removed it before the table was there


def find_header(database: DBConnection, name: str) -> IndexHeader | None:
    """What the table says of itself; None if there is no table, or one that is no index."""
    table = find_table(database, name)
    try:
        return None if table is None else read_header(table.schema, name)
    except NotAnIndexError:
        return None


def write_stream(
    write: Callable[[pa.RecordBatchReader], object], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> None:
    """Let LanceDB pull ``batches``; an error raised by them comes out as itself, not as LanceDB's."""
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
    """Raise InputError if no index may be named ``name``."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(
            f"table name {name!r}: use 1 to 100 letters (a to z), digits, underscores, hyphens and periods, "
            "and begin with none of the last two"
        )
    if name.endswith(codec_table("")):
        raise InputError(
            f"table name {name!r}: names ending in {codec_table('')!r} are kept for codecs; choose another"
        )


def check_absent(database: DBConnection, name: str) -> None:
    """Raise TableExistsError if the database has a readable table ``name``."""
    if find_table(database, name) is not None:
        raise TableExistsError(f"table {name!r} exists already; choose another name, or overwrite it on purpose")

"""How an index lies in a LanceDB database.

Table NAME, one row per document:

    id             string, unique
    title, text    string; the title may be empty
    (the caller's columns)
    token_count    int32, token vectors of the document
    centroid_ids   binary: token_count little-endian uint16, or uint32 beyond 65,536 centroids
    residuals      binary: token_count · dim · nbits / 8 bytes, packed as `codec.pack` says

Its schema metadata names the format version, the model and the codec. Table NAME.codec holds the codec, one row per
`codec_id`; it is written first and rows are never changed, so a row that documents point to is always there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.db import DBConnection
from lancedb.table import Table

from ..onnx_export import Bundle, Encoder, InputError
from .codec import ResidualCodec
from .errors import ModelMismatchError, NotAnIndexError, TableExistsError, TableNotFoundError

Database = str | Path | DBConnection

FORMAT_VERSION = 1
_PREFIX = "tansaku."

_CODEC_SCHEMA = pa.schema(
    [
        pa.field("codec_id", pa.string(), nullable=False),
        pa.field("dim", pa.int32(), nullable=False),
        pa.field("nbits", pa.int32(), nullable=False),
        pa.field("centroids", pa.large_binary(), nullable=False),  # float16 (n_centroids, dim)
        pa.field("cutoffs", pa.large_binary(), nullable=False),  # float32 (dim, 2**nbits − 1)
        pa.field("levels", pa.large_binary(), nullable=False),  # float32 (dim, 2**nbits)
    ]
)


@dataclass(frozen=True)
class IndexHeader:
    """What the table's schema metadata says.

    Attributes:
        model: name of the model the vectors come from.
        fingerprint: `Bundle.fingerprint` of that model.
        codec_id: which row of the codec table decodes the residuals.
    """

    model: str
    fingerprint: str
    codec_id: str

    def check_model(self, bundle: Bundle, place: str) -> None:
        """Raise ModelMismatchError unless ``bundle`` is the model that the index was made with."""
        if bundle.fingerprint != self.fingerprint:
            raise ModelMismatchError(
                f"{place} was made with the model {self.model!r} ({self.fingerprint}), but the model given is "
                f"{bundle.name!r} ({bundle.fingerprint}); give the index's own model, or index the documents again"
            )


@dataclass(frozen=True)
class IndexTable:
    """An open index: the database it lies in, its table, header and codec."""

    database: DBConnection
    table: Table
    header: IndexHeader
    codec: ResidualCodec


def connect(db: Database, *, create: bool = False) -> DBConnection:
    """Connect to a database: a folder, a URI, or a connection, which is returned as it is.

    Raises TableNotFoundError if a local folder does not exist and ``create`` is false.
    """
    if isinstance(db, DBConnection):
        return db
    if not create and not database_exists(db):
        raise TableNotFoundError(f"database {db}: no such folder; `tansaku index` makes one")
    if database_exists(db) and "://" not in str(db) and not Path(db).is_dir():
        raise InputError(f"database {db}: this is a file; a LanceDB database is a folder")
    return lancedb.connect(str(db))


def database_exists(db: Database) -> bool:
    """Whether there is something at ``db``; connections and remote URIs count as there."""
    return isinstance(db, DBConnection) or "://" in str(db) or Path(db).exists()


def create_index_table(
    database: DBConnection,
    name: str,
    header: IndexHeader,
    codec: ResidualCodec,
    fields: list[pa.Field],
    batches: Iterable[pa.RecordBatch],
    *,
    overwrite: bool,
) -> IndexTable:
    """Write a new index in one transaction; after an error the tables are as they were.

    Raises TableExistsError if the table is there and ``overwrite`` is false.
    """
    check_name(name)
    existed = _is_readable(database, name)
    had_codec = _is_readable(database, codec_table(name))
    schema = document_schema(fields).with_metadata(
        {
            f"{_PREFIX}format": str(FORMAT_VERSION),
            f"{_PREFIX}model": header.model,
            f"{_PREFIX}fingerprint": header.fingerprint,
            f"{_PREFIX}codec": header.codec_id,
        }
    )

    def still_absent() -> Iterator[pa.RecordBatch]:
        yield from batches
        # LanceDB looks for the table before it takes the rows, which may be hours before it commits them.
        if not overwrite:
            check_absent(database, name)

    def write(reader: pa.RecordBatchReader) -> None:
        database.create_table(
            name,
            reader,
            schema=schema,
            mode="overwrite" if existed and overwrite else "create",
            # Row ids that survive compaction and updates can only be had from the start.
            storage_options={"new_table_enable_stable_row_ids": "true"},
        )

    if not overwrite:
        check_absent(database, name)
    _store_codec(database, name, codec)
    try:
        _write_stream(write, schema, still_absent())
    except BaseException:
        # Only what this call left: another process may have made the table meanwhile.
        if not _is_readable(database, name):
            _drop(database, name)
            if not had_codec:
                _drop(database, codec_table(name))
        elif existed and not had_codec:
            _drop(database, codec_table(name))
        raise
    return open_index_table(database, name)


def append_rows(index: IndexTable, batches: Iterable[pa.RecordBatch]) -> None:
    """Add rows in one transaction; after an error the table is as it was."""
    _write_stream(index.table.add, index.table.schema, batches)


def open_index_table(database: DBConnection, name: str) -> IndexTable:
    """Open an index.

    Raises:
        TableNotFoundError: no such table; the message lists those that are there.
        NotAnIndexError: not made by tansaku, of another format version, or without its codec.
    """
    place = f"table {name!r}"
    try:
        table = database.open_table(name)
    except RuntimeError as error:
        raise NotAnIndexError(f"{place}: LanceDB cannot read it ({error}); restore it from a copy") from error
    except ValueError:
        names = [n for n in table_names(database) if not n.endswith(codec_table(""))]
        raise TableNotFoundError(
            f"{place}: not in this database (tables: {', '.join(names) or 'none'}); `tansaku index` makes one"
        ) from None
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items() if k.startswith(b"tansaku.")}
    version = metadata.get(f"{_PREFIX}format")
    if version is None:
        raise NotAnIndexError(f"{place} was not made by tansaku; index its documents into a table of their own")
    if version != str(FORMAT_VERSION):
        raise NotAnIndexError(
            f"{place} has index format {version}, but this tansaku reads format {FORMAT_VERSION}; "
            "index the documents again or use the release that made it"
        )
    try:
        header = IndexHeader(*(metadata[_PREFIX + key] for key in ("model", "fingerprint", "codec")))
    except KeyError as error:
        raise NotAnIndexError(f"{place}: its schema metadata lacks {error}; index the documents again") from None
    return IndexTable(database, table, header, _load_codec(database, name, header.codec_id))


def open_with_model(database: DBConnection, name: str, encoder: Encoder | None) -> tuple[IndexTable, Encoder]:
    """Open an index together with its model: ``encoder``, or if that is None the one that ships inside.

    Raises what `open_index_table` raises, and ModelMismatchError if the index was made with another model.
    """
    opened = open_index_table(database, name)
    encoder = encoder or Encoder.load()
    opened.header.check_model(encoder.bundle, f"table {name!r}")
    return opened, encoder


def check_name(name: str) -> None:
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
    if _is_readable(database, name):
        raise TableExistsError(f"table {name!r} exists already; choose another name, or overwrite it on purpose")


def document_schema(fields: list[pa.Field]) -> pa.Schema:
    """Schema of a document table with the caller's ``fields``."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            *fields,
            pa.field("token_count", pa.int32(), nullable=False),
            pa.field("centroid_ids", pa.large_binary(), nullable=False),
            pa.field("residuals", pa.large_binary(), nullable=False),
        ]
    )


def codec_table(name: str) -> str:
    """Name of the table that holds the codec of index ``name``."""
    return f"{name}.codec"


def table_names(database: DBConnection) -> list[str]:
    """Names of all tables in the database."""
    names: list[str] = []
    token: str | None = None
    while True:
        page = database.list_tables(page_token=token)
        names += page.tables
        token = page.page_token
        if not token:
            return names


def _is_readable(database: DBConnection, name: str) -> bool:
    # A table whose first write was cut off is listed, but cannot be opened; a new one may take its place.
    try:
        database.open_table(name)
    except ValueError:
        return False
    return True


def _drop(database: DBConnection, name: str) -> None:
    with contextlib.suppress(ValueError):  # it was not made yet
        database.drop_table(name)


def _store_codec(database: DBConnection, name: str, codec: ResidualCodec) -> None:
    row = pa.table(
        {
            "codec_id": [codec.codec_id],
            "dim": [codec.dim],
            "nbits": [codec.nbits],
            "centroids": [codec.centroids.astype("<f2").tobytes()],
            "cutoffs": [codec.cutoffs.astype("<f4").tobytes()],
            "levels": [codec.levels.astype("<f4").tobytes()],
        },
        schema=_CODEC_SCHEMA,
    )
    try:
        table = database.open_table(codec_table(name))
    except ValueError:
        database.create_table(codec_table(name), row, schema=_CODEC_SCHEMA)
        return
    if codec.codec_id not in table.search().select(["codec_id"]).to_arrow()["codec_id"].to_pylist():
        table.add(row)


def _load_codec(database: DBConnection, name: str, codec_id: str) -> ResidualCodec:
    lost = NotAnIndexError(
        f"table {name!r}: its codec {codec_id} is not in table {codec_table(name)!r}; copy both tables together"
    )
    try:
        rows = database.open_table(codec_table(name)).search().to_arrow().to_pylist()
    except ValueError:
        raise lost from None
    for row in rows:
        if row["codec_id"] == codec_id:
            dim, n_levels = row["dim"], 1 << row["nbits"]
            return ResidualCodec(
                np.frombuffer(row["centroids"], "<f2").astype(np.float32).reshape(-1, dim),
                np.frombuffer(row["cutoffs"], "<f4").reshape(dim, n_levels - 1),
                np.frombuffer(row["levels"], "<f4").reshape(dim, n_levels),
            )
    raise lost


def _write_stream(
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

"""Where rows with codes are, as text: `postgresql://localhost/shop#articles`, `lance:./db#docs`, `docs.parquet`.

A database is one line of `_KINDS`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from ....onnx_export.errors import InputError, MissingExtraError
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.row_store import RowStore

INDEX = "index"
FILE = "file"


class Place(NamedTuple):
    """A place of rows.

    Attributes:
        kind: "index" for an index, "file" for a Parquet file, or the name of a database.
        address: the database's folder, file or URL, or the path of the Parquet file. It may have a password.
        table: name of the table; empty for a file.
    """

    kind: str
    address: str
    table: str

    def __str__(self) -> str:
        """The place without user and password."""
        scheme, found, rest = self.address.partition("://")
        address = f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if found else self.address
        if self.kind == FILE:
            return address
        if self.kind == "postgresql" and not found:
            address = "..."  # names and values, among which may be a password
        begins = address.startswith(self.kind) and found
        return f"{'' if begins else f'{self.kind}:'}{address}#{self.table}"


class _Kind(NamedTuple):
    """A database.

    Attributes:
        module: module of its store.
        store: the store's class.
        found: arguments that open or adopt a table, from address and name.
        new: arguments that make one.
        types: the database's types by kinds of Arrow types; None: the store takes Arrow's own. Empty: it takes none.
        columns: whether a new table is given its columns.
        adopts: whether the store can add the columns of codes to a table that is there.
    """

    module: str
    store: str
    found: Callable[[str, str], tuple[Any, ...]]
    new: Callable[[str, str], tuple[Any, ...]]
    types: Mapping[str, str] | None = None
    columns: bool = True
    adopts: bool = True


def _same(address: str, table: str) -> tuple[Any, ...]:
    return address, table


def _lance(address: str, table: str) -> tuple[Any, ...]:
    import lancedb

    return lancedb.connect(address), table


@contextlib.contextmanager
def _extra(package: str, extra: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(package, extra) from error


def _lance_table(address: str, table: str) -> tuple[Any, ...]:
    database, name = _lance(address, table)
    try:
        return (database.open_table(name),)
    except (OSError, RuntimeError, ValueError) as error:
        raise HostError(f"LanceDB has no table {name!r} ({str(error).splitlines()[0]})") from error


def _chroma(address: str, table: str) -> tuple[Any, ...]:
    with _extra("chromadb", "chroma"):
        import chromadb

    scheme, found, rest = address.partition("://")
    if not found:
        return chromadb.PersistentClient(address), table
    host, _, port = rest.partition("/")[0].partition(":")
    return chromadb.HttpClient(host, int(port) if port.isdecimal() else 8000, ssl=scheme == "https"), table


def _milvus(address: str, table: str) -> tuple[Any, ...]:
    with _extra("pymilvus", "milvus"):
        from pymilvus import MilvusClient

    return MilvusClient(uri=address, token=os.environ.get("MILVUS_TOKEN", "")), table


def _qdrant(address: str, table: str) -> tuple[Any, ...]:
    with _extra("qdrant-client", "qdrant"):
        from qdrant_client import QdrantClient

    if "://" in address:
        return QdrantClient(url=address, api_key=os.environ.get("QDRANT_API_KEY")), table
    return QdrantClient(path=address), table


_SQLITE = {"integer": "INTEGER", "number": "REAL", "boolean": "INTEGER", "text": "TEXT"}
_SQL = {
    "integer": "BIGINT",
    "number": "DOUBLE PRECISION",
    "boolean": "BOOLEAN",
    "text": "TEXT",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
_MILVUS = {"integer": "INT64", "text": "VARCHAR"}
_KINDS = {
    "postgresql": _Kind("postgres", "PostgresRows", _same, _same, _SQL),
    "sqlite": _Kind("sqlite", "SqliteRows", _same, _same, _SQLITE),
    "duckdb": _Kind("duckdb", "DuckdbRows", _same, _same, _SQL),
    "lance": _Kind("lancedb", "LanceRows", _lance_table, _lance),
    "qdrant": _Kind("qdrant", "QdrantRows", _qdrant, _qdrant, {}, columns=False, adopts=False),
    "chroma": _Kind("chroma", "ChromaRows", _chroma, _chroma, {}, columns=False, adopts=False),
    "milvus": _Kind("milvus", "MilvusRows", _milvus, _milvus, _MILVUS, columns=False, adopts=False),
}


def parse_place(text: str) -> Place:
    """Read a place.

    Args:
        text: ``index:DB#TABLE``, the path of a Parquet file, or one of a database.

    Raises:
        InputError: it is of another form. The message leaves out what may be a password.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in (INDEX, *_KINDS):
        if text.endswith((".parquet", ".pq")) and "://" not in text:
            return Place(FILE, text, "")
        shown = f"{kind}:..." if colon else repr(text)
        raise InputError(
            f"{shown}: not known as a place of rows; give FILE.parquet, index:DB#TABLE, "
            f"{', '.join(f'{name}:...#TABLE' for name in _KINDS)}"
        )
    address, mark, table = (text if rest.startswith("//") else rest).rpartition("#")
    if not mark or not table or not address:
        raise InputError(f"{kind}:...: the table is missing; write its name behind #, as in {kind}:ADDRESS#TABLE")
    return Place(kind, address, table)


@contextlib.contextmanager
def opened_rows(place: Place, coder: Coder, **options: Any) -> Iterator[RowStore[Any]]:
    """The table of a database, which must have row vectors and codes.

    Args:
        place: the database and the table.
        coder: the coder of the rows.
        options: options of `RowStore`.

    Raises:
        HostError: the database cannot be reached, or has no such table.
        MissingExtraError: the database's client is not installed.
        CodesError: the table has codes of another codec or model.
    """
    kind = _KINDS[place.kind]
    store = _class(kind)
    yield from _closing(store(coder, *kind.found(place.address, place.table), **options))


@contextlib.contextmanager
def made_rows(
    place: Place, coder: Coder, columns: Mapping[str, pa.DataType], id_type: pa.DataType, **options: Any
) -> Iterator[RowStore[Any]]:
    """The table of a database. It is made if it is not there; one that is there gets the columns that it lacks.

    Args:
        place: the database and the table.
        coder: the coder of the rows.
        columns: types of the columns besides id, text, row vector and codes, if the table is made.
        id_type: type of the ids, if the table is made.
        options: options of `RowStore`.

    Raises:
        InputError: a column's type has no counterpart in the database.
        HostError: see `opened_rows`.
    """
    kind = _KINDS[place.kind]
    store = _class(kind)
    # One client for both: most folders can be opened once.
    shared = kind.found(place.address, place.table) if kind.found is kind.new else None
    find = store.adopt if kind.adopts else store
    try:
        made = find(coder, *(shared or kind.found(place.address, place.table)), **options)
    except HostError as not_there:
        new = shared or kind.new(place.address, place.table)
        try:
            made = store.create(coder, *new, **_types(kind, columns, id_type), **options)
        except HostError:  # it is there after all, and cannot be used as it is
            raise not_there from None
    yield from _closing(made)


def _class(kind: _Kind) -> Any:
    return getattr(importlib.import_module(f".{kind.module}", __package__), kind.store)


def _types(kind: _Kind, columns: Mapping[str, pa.DataType], id_type: pa.DataType) -> dict[str, Any]:
    """What a new table is made with."""
    if kind.types is None:
        return {"columns": dict(columns), "id_type": id_type}
    types = {"id_type": _type_word("id", id_type, kind.types)} if kind.types else {}
    if not kind.columns:
        return types
    return {**types, "columns": {name: _type_word(name, column, kind.types) for name, column in columns.items()}}


def _type_word(name: str, kind: pa.DataType, types: Mapping[str, str]) -> str:
    known = {
        "integer": pa.types.is_integer,
        "number": pa.types.is_floating,
        "boolean": pa.types.is_boolean,
        "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind),
        "date": pa.types.is_date,
        "timestamp": lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
    }
    for word, fits in known.items():
        if fits(kind) and word in types:
            return types[word]
    raise InputError(
        f"the column {name!r} has the type {kind}, for which no column can be made here; make the table yourself, or "
        "leave the column out (--field names those that move)"
    )


def _closing(store: Any) -> Iterator[RowStore[Any]]:
    try:
        yield store
    finally:
        for one in (store, getattr(store, "client", None)):
            close = getattr(one, "close", None)
            if close is not None:
                close()

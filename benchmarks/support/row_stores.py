"""Databases for benchmarks of rows, each a real one in a folder of its own: a name, and how its store is opened.

Tables have the columns `text`, `year` (whole numbers) and `note` (text).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tansaku import Coder, RowStore
from tansaku.plugin.hosts.rows.numpy import NumpyRows
from tests.support import engines

COLUMNS = {"year": "INTEGER", "note": "TEXT"}


@contextlib.contextmanager
def memory(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    yield NumpyRows(coder, **options)


@contextlib.contextmanager
def postgres(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    import psycopg
    from psycopg_pool import ConnectionPool

    from tansaku.plugin.hosts.rows.postgres import PostgresRows

    with engines.postgres(folder, programs=engines.pgvector_programs()) as place:
        with psycopg.connect(place) as connection:
            connection.execute("CREATE EXTENSION vector")
        with ConnectionPool(place, min_size=1, open=True) as pool:
            yield PostgresRows.create(coder, pool.connection, "docs", columns=COLUMNS, index=False, **options)


@contextlib.contextmanager
def sqlite(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    from tansaku.plugin.hosts.rows.sqlite import SqliteRows

    yield SqliteRows.create(coder, folder / "docs.db", "docs", columns=COLUMNS, **options)


@contextlib.contextmanager
def duckdb(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    from tansaku.plugin.hosts.rows.duckdb import DuckdbRows

    path = folder / "docs.duckdb"
    with contextlib.closing(DuckdbRows.create(coder, path, "docs", columns=COLUMNS, **options)) as store:
        yield store


@contextlib.contextmanager
def lancedb(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    from lancedb import connect

    from tansaku.plugin.hosts.rows.lancedb import LanceRows

    columns = {"year": pa.int64(), "note": pa.string()}
    yield LanceRows.create(coder, connect(folder / "db"), "docs", columns=columns, **options)


@contextlib.contextmanager
def qdrant(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    from tansaku.plugin.hosts.rows.qdrant import QdrantRows
    from tests.support.edge_client import EdgeClient

    with contextlib.closing(EdgeClient(folder / "qdrant")) as client:
        yield QdrantRows.create(coder, client, "docs", **options)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def qdrant_multivector(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    """Qdrant ranks, without phrases, and does not say how the row vectors ranked."""
    from tansaku.plugin.hosts.rows.qdrant_multivector import QdrantMultivectorRows
    from tests.support.edge_client import EdgeClient

    plain = Coder(coder.encoder, row_dim=coder.row_dim, phrase_weight=0)
    with contextlib.closing(EdgeClient(folder / "qdrant")) as client:
        yield QdrantMultivectorRows.create(plain, client, "docs", **options)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def milvus(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    from pymilvus import MilvusClient

    from tansaku.plugin.hosts.rows.milvus import MilvusRows

    with contextlib.closing(MilvusClient(str(folder / "milvus.db"))) as client:
        yield MilvusRows.create(coder, client, "docs", **options)


@contextlib.contextmanager
def chroma(coder: Coder, folder: Path, **options: Any) -> Iterator[RowStore[Any]]:
    import chromadb
    from chromadb.config import Settings

    from tansaku.plugin.hosts.rows.chroma import ChromaRows

    settings = Settings(anonymized_telemetry=False)
    client: Any = chromadb.PersistentClient(str(folder / "chroma"), settings=settings)
    with contextlib.closing(client):
        yield ChromaRows.create(coder, client, "docs", **options)


STORES: dict[str, Callable[..., contextlib.AbstractContextManager[RowStore[Any]]]] = {
    made.__name__: made
    for made in (memory, postgres, sqlite, duckdb, lancedb, qdrant, qdrant_multivector, milvus, chroma)
}

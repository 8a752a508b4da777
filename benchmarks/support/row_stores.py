"""Databases for benchmarks of rows, each a real one in a folder of its own: a name, and how its store is opened.

Tables have the columns `text`, `year` (whole numbers) and `note` (text).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


STORES: dict[str, Callable[..., contextlib.AbstractContextManager[RowStore[Any]]]] = {
    made.__name__: made for made in (memory, postgres)
}

"""LanceDB tables in a pickle: whoever unpickles one opens it where it lies."""

from __future__ import annotations

from typing import Any

import lancedb
from lancedb.table import LanceTable, Table

from ...indexer.forks import check_process
from ...onnx_export.errors import InputError


def packed(table: Table) -> Any:
    """What a pickle holds in place of a table: where it lies, with its storage options.

    Raises:
        InputError: the table is in memory.
    """
    if not isinstance(table, LanceTable):  # of LanceDB's cloud, which can be pickled
        return table
    check_process("LanceDB's table")
    place, options = table.uri, table.initial_storage_options()
    database = place.removesuffix(f"/{table.name}.lance")
    if place == database or place.startswith("memory:"):
        raise InputError(f"table {table.name!r} at {place}: another process cannot open it; use a folder")
    return database, table.name, options


def unpacked(state: Any) -> Table:
    """The table of what `packed` gave."""
    if not isinstance(state, tuple):
        return state
    database, name, options = state
    return lancedb.connect(database, storage_options=options).open_table(name)

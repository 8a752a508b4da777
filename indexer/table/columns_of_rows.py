"""Columns of many rows of a table at once."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from lancedb.table import Table

# LanceDB hands each batch over through its event loop, which takes longer than the 2,048 rows that a batch has unless a
# size is given. Much larger ones leave cores without work where a condition is slow.
_ROWS_PER_BATCH = 16_384


def read_columns(table: Table, columns: Sequence[str], condition: str | None = None) -> pa.Table:
    """Read columns of all rows, or of those that meet a condition.

    Args:
        table: the table, at the version that it has open.
        columns: names of the columns; none are needed.
        condition: the condition, as SQL for LanceDB; None reads all rows.

    Returns:
        These columns and ``_rowid``, uint64, in any order of the rows.
    """
    query = table.search().select([*columns, "_rowid"]).with_row_id(True)
    if condition is not None:
        query = query.where(condition)
    return query.to_batches(_ROWS_PER_BATCH).read_all()

"""Which rows a search may return: those that a condition and a list of ids leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...indexer.table.columns_of_rows import read_columns
from ...indexer.table.conditions import UncheckedSQL, Where, condition_errors, condition_sql
from ...indexer.table.database import storage_errors
from ...indexer.table.ids import checked_ids
from .row_sets import RowSet
from .stored_codes import StoredCodes


@dataclass(frozen=True)
class Allowed:
    """The rows that a search may return.

    Attributes:
        mask: bool (rows,).
        count: Number of allowed rows.
        missing: Ids asked for that are not in the index, in the order given.
        condition: The condition that they meet, as SQL for LanceDB; None if there was none.
    """

    mask: np.ndarray
    count: int
    missing: tuple[str, ...] = ()
    condition: str | None = None


def allowed_rows(codes: StoredCodes, where: Where | None, ids: Sequence[str] | None) -> Allowed:
    """The rows that meet ``where`` and belong to ``ids``; each of the two may be None.

    Args:
        codes: The index's codes.
        where: Condition over the table's columns, such as "year >= 2000 AND genre = '寺'".
        ids: Ids of documents, or of passages.

    Raises:
        InputError: A condition that does not parse, names an unknown column or is not true or false.
    """
    if where is None and ids is None:
        return Allowed(codes.alive, len(codes))
    rows, missing, condition = RowSet(codes.alive, len(codes)), (), None
    if where is not None:
        remedy = "leave it out to search all documents"
        condition = condition_sql(where, codes.schema, codes.index.header, if_empty=remedy)
        rows = _meeting(codes, where, condition)
    if ids is not None:
        among, missing = _among(codes, ids)
        rows = RowSet.of(rows.mask & among)
    return Allowed(rows.mask, rows.count, missing, condition)


def _meeting(codes: StoredCodes, where: Where, condition: str) -> RowSet:
    if isinstance(where, UncheckedSQL):  # which may ask for the time, or for random numbers
        return _read(codes, where, condition)
    return codes.row_sets.find(condition, lambda: _read(codes, where, condition))


def _read(codes: StoredCodes, where: Where, condition: str) -> RowSet:
    index = codes.index
    with storage_errors(index.place()), condition_errors(index.place(), where):
        found = read_columns(index.table, [], condition)
    rows = codes.rows_of(found["_rowid"].to_numpy())
    mask = np.zeros(len(codes.row_ids), bool)
    mask[rows[rows >= 0]] = True
    return RowSet.of(mask)


def _among(codes: StoredCodes, ids: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    wanted = list(dict.fromkeys(checked_ids(ids)))
    positions, rows = codes.find_ids(wanted)
    mask = np.zeros(len(codes.row_ids), bool)
    mask[rows] = True
    stored = set(positions.tolist())
    return mask, tuple(doc_id for position, doc_id in enumerate(wanted) if position not in stored)

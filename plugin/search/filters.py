"""Which documents a search may return: those that a condition and a list of ids leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...indexer.table.conditions import checked_condition, condition_errors
from ...indexer.table.database import storage_errors
from ...onnx_export.errors import InputError
from .stored_codes import Codes


@dataclass(frozen=True)
class Allowed:
    """The documents that may be returned.

    Attributes:
        mask: bool (documents,).
        count: how many.
        missing: ids asked for that the index has not, in the order given.
    """

    mask: np.ndarray
    count: int
    missing: tuple[str, ...] = ()


def allowed(codes: Codes, where: str | None, ids: Sequence[str] | None) -> Allowed:
    """The documents for which ``where`` holds and that are among ``ids``; each of the two may be None.

    Args:
        codes: of the index.
        where: a condition over the table's columns in LanceDB's SQL, "year >= 2000 AND genre = '寺'".
        ids: of documents; in an index of passages those of whole documents.

    Raises InputError for a condition that does not parse, names an unknown column or is no condition.
    """
    if where is None and ids is None:
        return Allowed(codes.alive, len(codes))
    mask, missing = codes.alive, ()
    if where is not None:
        mask = mask & _that_meet(codes, checked_condition(where, if_empty="leave it out to search all documents"))
    if ids is not None:
        among, missing = _among(codes, ids)
        mask = mask & among
    return Allowed(mask, int(np.count_nonzero(mask)), missing)


def _among(codes: Codes, ids: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    wanted = list(dict.fromkeys(checked_ids(ids)))
    positions, numbers = codes.by_id.find(wanted)
    mask = np.zeros(len(codes.row_ids), bool)
    mask[numbers] = True
    stored = set(positions.tolist())
    return mask, tuple(doc_id for position, doc_id in enumerate(wanted) if position not in stored)


def checked_ids(ids: Sequence[str]) -> list[str]:
    """``ids`` as strings; raises InputError if they are one string."""
    if isinstance(ids, str):
        raise InputError("ids is one string; give a list of ids")
    return [str(doc_id) for doc_id in ids]


def _that_meet(codes: Codes, condition: str) -> np.ndarray:
    index = codes.index
    with storage_errors(index.place()), condition_errors(index.place(), condition):
        rows = index.table.search().where(condition).select(["token_count"]).with_row_id(True).to_arrow()
    numbers = codes.numbers(rows["_rowid"].to_numpy())
    mask = np.zeros(len(codes.row_ids), bool)
    mask[numbers[numbers >= 0]] = True
    return mask

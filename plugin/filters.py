"""Which documents a search may return: those that a condition and a list of ids leave."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..indexer.database import condition_errors, storage_errors
from ..onnx_export import InputError
from .codes import Codes

# LanceDB overflows its stack, which ends the process, at some 700 operators one within the other.
_CLAUSE = 800
_WORD = re.compile(r"\b(?:and|or)\b|\S", re.IGNORECASE)


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
        mask = mask & _that_meet(codes, _checked(where))
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


def _checked(where: str) -> str:
    if not isinstance(where, str) or not where.strip():
        raise InputError("the condition is empty; leave it out to search all documents")
    bare = "".join(where.replace('"', "'").replace("`", "'").split("'")[::2])
    # LanceDB would leave out what follows a semicolon without a word.
    if ";" in bare:
        raise InputError(f"the condition {where!r} has a semicolon; give one condition")
    if _longest_clause(bare) > _CLAUSE:
        raise InputError(
            f"the condition {where[:40]!r}… has a part of more than {_CLAUSE} characters without AND, OR or a comma; "
            "make it shorter"
        )
    return where


def _longest_clause(bare: str) -> int:
    """Characters, spaces left out, of the longest part of a condition without AND, OR or comma at its own level."""
    lengths, longest = [0], 0
    for word in _WORD.findall(bare):
        if word == ")" and len(lengths) > 1:
            lengths.pop()
            continue
        lengths[-1] = 0 if word == "," or len(word) > 1 else lengths[-1] + 1
        longest = max(longest, lengths[-1])
        if word == "(":
            lengths.append(0)
    return longest

"""Conditions in LanceDB's SQL: what it would take without a word, or die of, is refused before it sees them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ...onnx_export.errors import InputError
from .lance_errors import condition_problem

# LanceDB overflows its stack, which ends the process, at some 700 operators one within the other.
_CLAUSE_CHARACTERS = 800
_WORD = re.compile(r"\b(?:and|or)\b|\S", re.IGNORECASE)


def checked_condition(where: str, *, if_empty: str) -> str:
    """``where``, if it can be one condition.

    Raises InputError for one that is empty (the message ends with ``if_empty``), has more than one statement or has a
    part that is too long; whether it parses, LanceDB tells.
    """
    if not isinstance(where, str) or not where.strip():
        raise InputError(f"the condition is empty; {if_empty}")
    bare = "".join(where.replace('"', "'").replace("`", "'").split("'")[::2])
    # LanceDB would leave out what follows a semicolon without a word.
    if ";" in bare:
        raise InputError(f"the condition {where!r} has a semicolon; give one condition")
    if _longest_clause(bare) > _CLAUSE_CHARACTERS:
        raise InputError(
            f"the condition {where[:40]!r}… has a part of more than {_CLAUSE_CHARACTERS} characters without "
            "AND, OR or a comma; make it shorter"
        )
    return where


@contextlib.contextmanager
def condition_errors(place: str, condition: object) -> Iterator[None]:
    """Turn what LanceDB raises for a condition that it cannot use into InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{place}: the condition {condition!r} cannot be used ({condition_problem(error)})") from error


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

"""Counts as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

_NAMED = 5  # items in one message


def counted(number: int, noun: str) -> str:
    """A number and what is counted.

    Args:
        number: the number.
        noun: its noun in the singular, with a regular plural.

    Returns:
        ``"1 row"``, ``"2,000 rows"``, ``"0 queries"``.

    Example:
        >>> counted(1, "row"), counted(2000, "row"), counted(2, "query")
        ('1 row', '2,000 rows', '2 queries')
    """
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun}"


def named(items: Iterable[object], total: int) -> str:
    """The first five of ``total`` ids or positions: ``a, b, c, d, e, …``."""
    first = [str(item) for item in islice(items, _NAMED)]
    return ", ".join([*first, *(["…"] if total > len(first) else [])])

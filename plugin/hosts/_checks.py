"""What every engine's adapter checks before it asks."""

from __future__ import annotations

from collections.abc import Sequence

from ...onnx_export.errors import InputError
from ..search.query_encoder import check_query


def check_request(query: str, k: int) -> str:
    """``query``, if it and ``k`` can be asked for; raises InputError if not."""
    if k < 1:
        raise InputError(f"k is {k}; it must be 1 or more")
    return check_query(query)


def check_columns(names: Sequence[str]) -> list[str]:
    """``names`` as a list; raises InputError for one string, for none and for a name that is empty or has a NUL."""
    if isinstance(names, str):
        raise InputError("text_columns is one string; give a list")
    if not names:
        raise InputError("text_columns is empty; name at least one")
    return [check_name(name) for name in names]


def check_name(name: str) -> str:
    """``name``, if a table or column can have it."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{name!r} cannot be the name of a table or column")
    return name


def joined(values: Sequence[object]) -> str:
    """The texts of several columns as one, as our index has title and text; empty columns are left out."""
    return " ".join(str(value) for value in values if value)

"""Names and texts of columns: what candidate sources and stores of rows have in common."""

from __future__ import annotations

from collections.abc import Iterable

from ...onnx_export.errors import InputError


def check_name(name: str) -> str:
    """``name``, if a table or column can have it; raises InputError for an empty one and one with a NUL."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"{name!r} cannot be the name of a table or column")
    return name


def joined(texts: Iterable[object]) -> str:
    """The texts of several columns as one, as an index has title and text; empty columns are left out."""
    return " ".join(str(text) for text in texts if text)

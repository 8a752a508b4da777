"""Ids of documents as a caller names them, to find or to delete them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from ...onnx_export.errors import InputError


def checked_ids(ids: Sequence[str]) -> list[str]:
    """``ids`` as strings: those of integers are their decimal digits, as in documents.

    Raises:
        InputError: they are one string, or one of them is neither a string nor an integer.
    """
    if isinstance(ids, str):
        raise InputError("ids is one string; give a list of ids")
    for doc_id in ids:
        if not isinstance(doc_id, (str, Integral)) or isinstance(doc_id, bool):
            raise InputError(f"ids has {str(doc_id)[:40]!r} of type {type(doc_id).__name__}; an id is a string")
    return [str(doc_id) for doc_id in ids]

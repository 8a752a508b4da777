"""Codes as text, for databases whose rows have no bytes: base64, as RFC 4648 section 4 has it; and whose they are."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ...rows.code_bytes import CodesError
from ...rows.row_search import RowId
from ...rows.row_store import RowStore


def codes_to_text(codes: bytes) -> str:
    """Codes as base64: a third longer."""
    return base64.b64encode(codes).decode("ascii")


def codes_from_text(value: Any, row: RowId) -> bytes | None:
    """Codes from base64; None for none.

    Args:
        value: what the database has.
        row: id of the row, for the error.

    Raises:
        CodesError: the value is no base64.
    """
    if value is None or value == "":
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise CodesError(
            f"row {row!r}: the codes are no base64 of bytes ({value!r:.40}); encode the document again", row
        ) from error


def check_codec(store: RowStore[Any]) -> None:
    """Look at the codes of one row.

    Args:
        store: a store that was just opened.

    Raises:
        CodesError: they are of another codec, model or row vectors. Of damaged ones nothing is said: a search names
            their row, and the others can be read.
    """
    try:
        rows = store._scan(1, None)
    except CodesError:
        return
    for row in rows:
        store._check_origin(row.id, row.codes)

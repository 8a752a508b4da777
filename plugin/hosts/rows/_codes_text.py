"""Codes as text, for databases whose rows have no bytes: base64, as RFC 4648 section 4 has it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ...rows.code_bytes import CodesError
from ...rows.row_search import RowId


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

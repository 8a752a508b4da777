"""Metadata of LangChain's documents in a column of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any
from uuid import UUID

import numpy as np

from ....onnx_export.errors import InputError

METADATA = "metadata"  # the column with a document's metadata, JSON


def plain_metadata(doc_id: str, metadata: Any) -> dict[str, Any]:
    """Metadata as JSON keeps them: dates and times in ISO form, UUIDs as text, NumPy's numbers as numbers, lists.

    Args:
        doc_id: id of the document, for the error.
        metadata: of the document.

    Raises:
        InputError: a key that is not a string, or a value that JSON cannot keep; names document and key.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"document {doc_id!r}: its metadata is {type(metadata).__name__}, not a dict")
    plain = {}
    for key, value in metadata.items():
        try:
            plain.update(_plain({key: value}))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"document {doc_id!r}: metadata key {key!r} has a {type(value).__name__} that JSON cannot keep "
                f"({error}); keys must be strings, values strings, numbers, booleans, None, dates, UUIDs, or lists or "
                "dicts of these"
            ) from error
    return plain


def stored_metadata(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metadata that a store has kept in a row's columns; None in a row that no store has written."""
    content = fields.get(METADATA)
    if not isinstance(content, str):
        return None
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} has no form in JSON")

"""Documents as lines of JSON, in parts of about a megabyte."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic_core import PydanticSerializationError, to_json

from ...indexer.read.documents import Document
from ...indexer.read.given import as_records
from ...indexer.read.rejects import Rejects
from ...indexer.read.sources import BadRecord
from ...onnx_export.errors import InputError

PART_BYTES = 1 << 20


class Lines:
    """Documents, read once, as lines of JSON.

    Args:
        documents: what `Index.add` takes.
        rejects: collects records that cannot be read; None raises an error for the first of them.
    """

    def __init__(self, documents: Iterable[Any], rejects: Rejects | None) -> None:
        is_stream = isinstance(documents, Iterator) and not isinstance(documents, pa.RecordBatchReader)
        self._records = documents if is_stream else as_records(documents)
        self._rejects = rejects
        self._places: list[str] = []

    def place(self, line: int | None) -> str:
        """Where the document of a line, counted from 1, was read."""
        return self._places[line - 1] if line is not None and 0 < line <= len(self._places) else f"document {line}"

    def parts(self) -> Iterator[list[bytes]]:
        """Lines without their ends, in lists of about `PART_BYTES`.

        Raises:
            InputError: a record cannot be read or sent.
        """
        part: list[bytes] = []
        size = 0
        for number, given in enumerate(self._records, start=1):
            place, record = given if isinstance(given, tuple) else (f"document {number}", given)
            if isinstance(record, BadRecord):
                if self._rejects is None:
                    raise InputError(f"{place}: {record.reason}")
                self._rejects.note(place, record.reason, record.raw)
                continue
            part.append(_line(place, record))
            self._places.append(place)
            size += len(part[-1]) + 1
            if size >= PART_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part


def _line(place: str, record: Any) -> bytes:
    if isinstance(record, Document):
        record = {"id": record.id, "title": record.title, "text": record.text, **record.fields}
    elif dataclasses.is_dataclass(record) and not isinstance(record, type):
        record = dataclasses.asdict(record)
    if not isinstance(record, Mapping):
        raise InputError(f"{place} is of type {type(record).__name__}; give a mapping with the fields id and text")
    try:
        return to_json(dict(record), inf_nan_mode="constants", bytes_mode="base64", fallback=_plain)
    except (PydanticSerializationError, UnicodeError, ValueError) as error:
        raise InputError(f"{place} cannot be sent as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """A value of NumPy or Arrow as one of Python."""
    for name in ("tolist", "as_py"):
        if hasattr(value, name):
            return getattr(value, name)()
    raise ValueError(f"a value of type {type(value).__name__} has no form in JSON")

"""Rows of spreadsheets. Each cell has a type of its own; a column that has numbers and texts becomes text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from ...onnx_export.counts import counted

_KINDS = {str: "text", bool: "truth value", int: "number", float: "number", time: "time", timedelta: "duration"}
DIGITS = 15  # that a float keeps for sure, and that Excel shows of a number
MAX_EXACT = 2**53  # integers up to this are floats too


class CellRecord(dict[str, Any]):
    """A record of a spreadsheet."""


class MixedColumns:
    """Finds columns with cells of several kinds. Dates and times of a day are one kind."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        self._first: dict[tuple[str, str], tuple[str, Any]] = {}  # of a column and a kind: place and value

    def see(self, fields: Mapping[str, Any], place: str) -> None:
        """Take the cells of a record into account.

        Args:
            fields: the cells by their columns.
            place: where the record was read.
        """
        for name, value in fields.items():
            if value is not None:
                kind = _KINDS.get(type(value), "date")
                counts = self._counts.setdefault(name, {})
                counts[kind] = counts.get(kind, 0) + 1
                self._first.setdefault((name, kind), (place, value))

    def found(self) -> Iterator[tuple[str, str]]:
        """The name of each such column, and a sentence on what is in it."""
        for name, counts in self._counts.items():
            if len(counts) > 1:
                has = " and ".join(counted(n, kind) for kind, n in counts.items())
                rarest = min((kind for kind in counts if kind != "text"), key=lambda kind: counts[kind])
                place, value = self._first[name, rarest]
                yield (
                    name,
                    f"the field {name!r} has {has} ({place}: {cell_text(value)}); its column becomes text, and "
                    "--column-type, in Python FieldNames(types=...), sets another type",
                )


def as_text(value: Any) -> Any:
    """The text that stands for a number, a truth value, a date or a time (as ISO 8601 writes them); others stay.

    A number has no exponent, and no point if it is whole. A duration is in hours, minutes and seconds.

    Args:
        value: the value.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) <= MAX_EXACT else f"{Decimal(repr(value)):f}"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, timedelta):
        return _clock(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, int) else value


def cell_text(value: Any) -> Any:
    """A cell as text: numbers as Excel shows them without a format, with 15 digits."""
    return as_text(float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value)


def _clock(value: timedelta) -> str:
    sign, value = ("-", -value) if value < timedelta() else ("", value)
    minutes, seconds = divmod(value.days * 86_400 + value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}" if value.microseconds else ""
    return f"{sign}{hours:02}:{minutes:02}:{seconds:02}{fraction}"

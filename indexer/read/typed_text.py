"""The values of CSV and TSV are all text: find the type of each column, and read the text as such values.

The rules are narrow on purpose, so that nothing is lost: "0123", a postal code, and "1E5", a product, stay text, and so
does "1,234". CSV readers of other libraries make numbers of the first two. Where the caller gives a column the type of
a number, "1,234" and "1,234円" are ones.
"""

from __future__ import annotations

import re
import unicodedata
import zoneinfo
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from ...onnx_export.errors import InputError
from .cells import DIGITS, MAX_EXACT, as_text, cell_text

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
_DATE = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})[-/]([0-9]{1,2})")
_TIME = re.compile(_DATE.pattern + r"(?:[ T]([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_JAPANESE_DATE = re.compile(r"([0-9]{4})年([0-9]{1,2})月([0-9]{1,2})日")
_OFFSET = re.compile(r"(Z|[+-][0-9]{2}:?[0-9]{2})$")
_ZONED = re.compile(r"timestamp\(\s*([^\s()]+)\s*\)")
_DECIMAL = re.compile(r"decimal\(\s*([0-9]{1,2})\s*,\s*([0-9]{1,2})\s*\)")
# A backslash is the yen sign of Shift_JIS, a triangle a minus of accountants; Excel puts spaces around amounts.
_AMOUNT = re.compile(r"\s*([-▲△]?)[¥\\]?([-▲△]?)([1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]+)?円?\s*")
_MINUS = str.maketrans("▲△", "--")
_MAX_DIGITS = 38


class TextRecord(dict[str, Any]):
    """A record whose values are text only because its file has no other values."""


def _integer(text: str) -> int:
    return int(_whole(_INTEGER, text)[0])


def _number(text: str) -> float:
    return float(_whole(_NUMBER, text)[0])


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("not true or false")
    return text.lower() == "true"


def _date(text: str) -> date:
    year, month, day = _whole(_DATE, _plain_date(text)).groups()
    return date(int(year), int(month), int(day))


def _timestamp(text: str) -> datetime:
    *parts, fraction = _whole(_TIME, _plain_date(text)).groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in parts)
    return datetime(year, month, day, hour, minute, second, int((fraction or "0").ljust(6, "0")))


def _timestamp_in(zone: tzinfo | None, text: str) -> datetime:
    """A time in a column of times: in one with a time zone, a text without one is a time there."""
    offset = _OFFSET.search(text)
    if zone is None and offset is not None and _TIME.fullmatch(text[: offset.start()]):
        raise ValueError("with a time zone, for which a column has the type timestamp(UTC) or timestamp(Asia/Tokyo)")
    if zone is None or offset is None or " " not in text.replace("T", " "):
        read = _timestamp(text)
        return read if zone is None else read.replace(tzinfo=zone).astimezone(timezone.utc)
    read = _timestamp(text[: offset.start()])
    return read.replace(tzinfo=_zone(offset[0].replace("Z", "+00:00"))).astimezone(timezone.utc)


def _plain_date(text: str) -> str:
    """The text with a date such as 2024年1月3日 as 2024-1-3."""
    return _JAPANESE_DATE.sub(r"\1-\2-\3", text, count=1) if "年" in text else text


def _zone(name: str) -> tzinfo:
    """The time zone of a name, such as Asia/Tokyo or +09:00."""
    if _OFFSET.fullmatch(name):
        return datetime.strptime(name, "%z").tzinfo or timezone.utc
    return zoneinfo.ZoneInfo(name)


def _whole(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError("written in another way")
    return match


# In the order in which they are tried. A value that fits none is text.
_READERS: dict[str, Callable[[str], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}
_NUMBERS = ("integer", "number", "decimal")
_ARROW = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}


def column_type(name: str) -> pa.DataType:
    """The Arrow type of a column.

    Args:
        name: "string", "integer", "number", "boolean", "date", "timestamp", "timestamp(ZONE)" with the name of a time
            zone, or "decimal(P,S)" with P digits, S of them after the point.

    Raises:
        InputError: there is no such type or time zone.
    """
    if name in _ARROW:
        return _ARROW[name]
    if match := _ZONED.fullmatch(name):
        try:
            _zone(match[1])
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InputError(
                f"unknown time zone {match[1]!r} in {name!r}; use one such as UTC, Asia/Tokyo or +09:00"
            ) from error
        return pa.timestamp("us", match[1])
    if match := _DECIMAL.fullmatch(name):
        digits, scale = map(int, match.groups())
        if 1 <= digits <= _MAX_DIGITS and scale <= digits:
            return pa.decimal128(digits, scale)
    raise InputError(
        f"unknown column type {name!r}; use {', '.join(_ARROW)}, timestamp(ZONE), such as timestamp(UTC), or "
        "decimal(P,S), such as decimal(10,2)"
    )


class TextTypes:
    """The types of the columns of `TextRecord`, found by all their values; and values read as the types that are given.

    Args:
        given: types of columns that the caller gave; they are not looked for.
        known: those of columns that are there already, which come first.
    """

    def __init__(
        self, given: Mapping[str, pa.DataType] | None = None, known: Mapping[str, pa.DataType] | None = None
    ) -> None:
        self._made_text = {name for name, kind in (given or {}).items() if _is_text(kind)}
        self._given = {**(given or {}), **(known or {})}
        self._possible: dict[str, list[str]] = {}  # of each column; "string" is always the last
        self._large: set[str] = set()  # columns with integers that no float is equal to

    def see(self, fields: Mapping[str, Any]) -> None:
        """Take the values of a record into account."""
        for name, text in fields.items():
            if name in self._given or not isinstance(text, str):
                continue
            if not text:
                self._possible.setdefault(name, [])
                continue
            possible = self._possible.get(name) or [*_READERS, "string"]
            self._possible[name] = [kind for kind in possible if kind == "string" or _reads(kind, text)]
            if possible[0] == "integer" and _INTEGER.fullmatch(text) and abs(int(text)) > MAX_EXACT:
                self._large.add(name)

    def found(self) -> dict[str, str]:
        """The types of the columns that were looked for, by their names in `column_type`."""
        return {name: self._kind(name) for name in self._possible}

    def read(self, fields: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The values that texts stand for: an empty text is null, except in a column that has texts.

        Args:
            fields: the texts of a record; other values stay as they are.
            place: where it was read.

        Raises:
            InputError: a text is no value of a type that was given.
        """
        return {name: self._value(name, value, place) for name, value in fields.items()}

    def is_given(self, name: str) -> bool:
        """Whether the type of a column is given or known."""
        return name in self._given

    def read_json(self, fields: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The values of a record that has types, where the type that is given for their column differs.

        JSON lacks dates, times and decimals. What the caller makes text may be numbers, dates and times.

        Args:
            fields: the values; text is read for such columns, and numbers for decimals. Others stay as they are.
            place: where the record was read.

        Raises:
            InputError: a text is no value of the type, or a number has more digits than JSON readers keep.
        """
        kinds = {name: _kind_of(self._given[name]) for name in fields if name in self._given}
        read = dict(fields)
        for name, kind in kinds.items():
            value = fields[name]
            if name in self._made_text:
                read[name] = as_text(value)
            elif kind == "decimal" and isinstance(value, float):
                read[name] = _decimal_of(value, name, place)
            elif kind in ("decimal", "date", "timestamp") and isinstance(value, str):
                read[name] = self._value(name, value, place)
        return read

    def read_cells(self, fields: Mapping[str, Any], mixed: Collection[str], place: str) -> dict[str, Any]:
        """The cells of a row of a spreadsheet, as the values of their columns.

        Args:
            fields: the cells.
            mixed: columns that become text, since they have cells of several kinds.
            place: where the row was read.

        Raises:
            InputError: a cell is text, but no value of a type that is given.
        """
        read = dict(fields)
        for name, value in fields.items():
            if name in mixed or _is_text(self._given.get(name)):
                read[name] = cell_text(value)
            elif name in self._given and isinstance(value, str):
                read[name] = self._value(name, value, place)
        return self.read_json(read, place)

    def _kind(self, name: str) -> str:
        kind = (self._possible.get(name) or ["string"])[0]
        return "string" if kind == "number" and name in self._large else kind

    def _value(self, name: str, text: Any, place: str) -> Any:
        given = self._given.get(name)
        kind = self._kind(name) if given is None else _kind_of(given)
        if not isinstance(text, str):
            return text
        never_filled = given is None and self._possible.get(name) == []
        if not text and (never_filled or kind not in ("string", "other")):
            return None
        if kind in ("string", "other"):
            return text
        try:
            if kind == "timestamp" and given is not None:
                return _timestamp_in(None if given.tz is None else _zone(given.tz), text)
            return _given_number(kind, text) if kind in _NUMBERS else _READERS[kind](text)
        except (ValueError, InvalidOperation) as error:
            reason = "not a number" if isinstance(error, InvalidOperation) else error
            raise InputError(
                f"{place}: field {name!r} is {text!r}, but its column has the type {kind} ({reason}); correct the "
                "value, or give the column the type string"
            ) from error


def _given_number(kind: str, text: str) -> Any:
    """The number that a text stands for in a column of numbers, which may be an amount such as 1,980円 or ￥1,980."""
    if amount := _AMOUNT.fullmatch(unicodedata.normalize("NFKC", text)):
        text = "".join(part or "" for part in amount.groups()).replace(",", "").translate(_MINUS)
    return Decimal(text) if kind == "decimal" else _READERS[kind](text)


def _decimal_of(value: float, name: str, place: str) -> Decimal:
    """The decimal that was written as a number; floats keep 15 digits of one for sure."""
    decimal = Decimal(repr(value))
    if not decimal.is_finite() or len(decimal.as_tuple().digits) > DIGITS:
        raise InputError(
            f"{place}: field {name!r} is {value!r}, but its column has the type decimal, and a number in JSON keeps "
            f"{DIGITS} digits; write it in quotes"
        )
    return decimal


def _reads(kind: str, text: str) -> bool:
    try:
        _READERS[kind](text)
    except ValueError:
        return False
    return True


def _is_text(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def type_word(kind: pa.DataType) -> str:
    """What a type of Arrow is called in messages: as `column_type` names it, or otherwise as Arrow does."""
    word = "string" if _is_text(kind) else _kind_of(kind)
    return str(kind) if word == "other" else word


def _kind_of(given: pa.DataType) -> str:
    """How texts are read for a column of a table."""
    types = pa.types
    tests: dict[str, Callable[[pa.DataType], bool]] = {
        "integer": types.is_integer,
        "number": types.is_floating,
        "boolean": types.is_boolean,
        "date": types.is_date,
        "timestamp": types.is_timestamp,
        "decimal": types.is_decimal,
    }
    return next((kind for kind, test in tests.items() if test(given)), "other")

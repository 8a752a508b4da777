"""Values of conditions, written as SQL of the type of the column that they are compared with.

LanceDB refuses a number that the column's type cannot hold (``year < 1950.5``, or 300 in an 8-bit column). Here such
comparisons get the answer that the numbers have.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ...onnx_export.errors import InputError
from .condition_times import DATE_FORMS, as_date, as_time, as_timestamp

_UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}
_UTC = datetime.timezone.utc
_YEAR = re.compile(r" *\d{4} *年? *")


@functools.cache  # asked for each of many values
def kind_of(data_type: pa.DataType) -> str:
    """What may be compared with a column: string, number, boolean, date, timestamp, time, list, or other."""
    kinds: tuple[tuple[str, Callable[[pa.DataType], bool]], ...] = (
        ("string", lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t)),
        ("boolean", pa.types.is_boolean),
        ("number", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)),
        ("date", pa.types.is_date),
        ("timestamp", pa.types.is_timestamp),
        ("time", pa.types.is_time),
        ("list", lambda t: pa.types.is_list(t) or pa.types.is_large_list(t) or pa.types.is_fixed_size_list(t)),
    )
    return next((kind for kind, is_kind in kinds if is_kind(data_type)), "other")


def compared(sql: str, data_type: pa.DataType, operator: str, value: Any, name: str) -> str:
    """SQL of a comparison of a column with a value, or for ``operator`` "IN" with a list of values.

    Args:
        sql: The column.
        data_type: Its type.
        operator: One of < <= = <> >= > IN.
        value: As the language gives it.
        name: The column's name, for errors.

    Raises:
        InputError: The type does not go with the value.
    """
    kind = kind_of(data_type)
    if kind in ("list", "other"):
        remedy = "use array_has(column, value)" if kind == "list" else "only IS NULL works there"
        raise InputError(f"the column {name} has the type {data_type}, which cannot be compared; {remedy}")
    values = value if operator == "IN" else [value]
    if kind in ("date", "timestamp") and values and all(_YEAR.fullmatch(str(item)) for item in values):
        years = ", ".join(str(item).strip(" 年") for item in values)
        given = f"({years})" if operator == "IN" else years
        raise InputError(
            f"the column {name} holds a {kind}, and {values[0]!r} is a year; compare the year: year({name}) {operator} "
            f"{given}"
        )
    if operator == "IN":
        written = [text for text in (_exact(data_type, item, name) for item in value) if text is not None]
        return f"{sql} IN ({', '.join(written)})" if written else f"{sql} <> {sql}"
    if kind == "string" and operator in ("<", "<=", ">", ">=") and isinstance(value, (int, Decimal)):
        raise InputError(
            f"the column {name} holds strings, which are compared character by character ('10' < '9'); index it with "
            f"numbers (--column-type {name}=integer), or write the value in single quotes: '{value}'"
        )
    if kind == "number" and not pa.types.is_floating(data_type):
        return _on_grid(sql, data_type, operator, _number(data_type, value, name))
    return f"{sql} {operator} {_exact(data_type, value, name)}"


def list_value(data_type: pa.DataType, value: Any, name: str) -> str:
    """SQL of a value that may be in a list; raises InputError for one that its elements' type cannot hold."""
    if kind_of(data_type) in ("list", "other"):
        raise InputError(f"the elements of the column {name} have the type {data_type}, which cannot be compared")
    written = _exact(data_type, value, name)
    if written is None:
        raise InputError(f"{value} cannot be in the column {name}, whose elements have the type {data_type}")
    return written


def string_value(text: str) -> str:
    """SQL of a string."""
    return "'" + text.replace("'", "''") + "'"


def _exact(data_type: pa.DataType, value: Any, name: str) -> str | None:
    """SQL of a value; None for a number that a column of integers or decimals cannot hold."""
    kind = kind_of(data_type)
    if kind == "number":
        number = _number(data_type, value, name)
        if pa.types.is_floating(data_type):
            written = float(number)
            if not math.isfinite(written):
                raise InputError(f"the number {str(number)[:20]}… is too large")
            return repr(written)
        scale, smallest, largest = _grid(data_type)
        steps = number.scaleb(scale)
        if steps != steps.to_integral_value() or not smallest <= steps <= largest:
            return None
        return _step(data_type, int(steps))
    if kind == "string":
        if not isinstance(value, str):
            raise InputError(f"the column {name} holds strings; write the value in single quotes: '{str(value)[:40]}'")
        return string_value(value)
    if kind == "boolean":
        if not isinstance(value, bool):
            raise InputError(f"the column {name} holds true or false; compare it with TRUE or FALSE")
        return "TRUE" if value else "FALSE"
    return _moment(kind, data_type, value, name)


def _number(data_type: pa.DataType, value: Any, name: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise InputError(f"the column {name} holds numbers ({data_type}); write the value as a number without quotes")
    return Decimal(value)


def _grid(data_type: pa.DataType) -> tuple[int, int, int]:
    """Digits behind the point, and the smallest and largest number of steps, that a type has."""
    if pa.types.is_decimal(data_type):
        largest = 10**data_type.precision - 1
        return data_type.scale, -largest, largest
    bits = data_type.bit_width
    signed = pa.types.is_signed_integer(data_type)
    return 0, -(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1


def _step(data_type: pa.DataType, steps: int) -> str:
    if not pa.types.is_decimal(data_type):
        return str(steps)
    digits = str(Decimal(steps).scaleb(-data_type.scale))
    return f"CAST('{digits}' AS DECIMAL({data_type.precision},{data_type.scale}))"


def _on_grid(sql: str, data_type: pa.DataType, operator: str, number: Decimal) -> str:
    """A comparison with any number: one between two steps, or beyond the last one, is moved to a step."""
    scale, smallest, largest = _grid(data_type)
    always, never = f"{sql} = {sql}", f"{sql} <> {sql}"  # NULL stays NULL
    steps = number.scaleb(scale)
    if steps > largest:
        return always if operator in ("<", "<=", "<>") else never
    if steps < smallest:
        return always if operator in (">", ">=", "<>") else never
    floor = math.floor(steps)
    if floor != steps:
        if operator in ("=", "<>"):
            return never if operator == "=" else always
        operator = {"<": "<=", ">=": ">"}.get(operator, operator)
    return f"{sql} {operator} {_step(data_type, floor)}"


def _moment(kind: str, data_type: pa.DataType, value: Any, name: str) -> str:
    readers = {"date": as_date, "timestamp": as_timestamp, "time": as_time}
    read = readers[kind](value) if isinstance(value, str) else value
    is_datetime = isinstance(read, datetime.datetime)
    if kind == "timestamp" and isinstance(read, datetime.date) and not is_datetime:
        read = datetime.datetime.combine(read, datetime.time())
    wanted = {"date": datetime.date, "timestamp": datetime.datetime, "time": datetime.time}[kind]
    if not isinstance(read, wanted) or (kind == "date" and is_datetime):
        raise InputError(
            f"the column {name} holds a {kind}, and {str(value)[:40]!r} cannot be read as one; {DATE_FORMS[kind]}"
        )
    if kind == "date":
        return f"CAST('{read.isoformat()}' AS DATE)"
    zone = getattr(data_type, "tz", None)
    if read.tzinfo is not None:
        if zone is None:
            raise InputError(f"the column {name} has no time zone; leave out that of {str(value)[:40]!r}")
        read = read.astimezone(_UTC) if isinstance(read, datetime.datetime) else read
    unit = _UNITS[data_type.unit]
    if isinstance(read, datetime.time):
        bits = data_type.bit_width
        return f"arrow_cast('{read.isoformat()}', 'Time{bits}({unit})')"
    in_zone = "None" if zone is None else f'Some("{zone}")'
    return f"arrow_cast('{read.isoformat()}', 'Timestamp({unit}, {in_zone})')"

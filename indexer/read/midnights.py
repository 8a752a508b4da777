"""Dates among dates with a time: one is midnight there. Excel and pandas write a date where the time is 0:00."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa


def with_times(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type ``a``, with timestamps for its dates where ``b`` has timestamps.

    Timestamps with a time zone do not count: it is unknown in which zone the midnight would be.

    Args:
        a: the type, which may be nested.
        b: the type of other values of the column.
    """
    if pa.types.is_date(a) and is_local_time(b):
        return b
    if pa.types.is_list(a) and pa.types.is_list(b):
        return pa.list_(a.value_field.with_type(with_times(a.value_type, b.value_type)))
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        others = {field.name: field.type for field in b}
        return pa.struct([field.with_type(with_times(field.type, others.get(field.name, field.type))) for field in a])
    return a


def as_midnights(value: Any, kind: pa.DataType) -> Any:
    """The value, with its dates as midnights where the type has timestamps.

    Args:
        value: the value.
        kind: the type of its column.
    """
    if is_local_time(kind):
        return datetime.combine(value, time()) if is_plain_date(value) else value
    if pa.types.is_list(kind) and isinstance(value, (list, tuple)):
        return [as_midnights(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        types = {field.name: field.type for field in kind}
        return {key: as_midnights(item, types[key]) if key in types else item for key, item in value.items()}
    return value


def has_local_times(kind: pa.DataType) -> bool:
    """Whether a type has timestamps without a time zone."""
    return is_local_time(kind) or any(has_local_times(kind.field(i).type) for i in range(kind.num_fields))


def has_dates(kind: pa.DataType) -> bool:
    """Whether a type has dates."""
    return pa.types.is_date(kind) or any(has_dates(kind.field(i).type) for i in range(kind.num_fields))


def is_local_time(kind: pa.DataType) -> bool:
    """Whether a type is a timestamp without a time zone."""
    return pa.types.is_timestamp(kind) and kind.tz is None


def is_plain_date(value: Any) -> bool:
    """Whether a value is a date without a time."""
    return isinstance(value, date) and not isinstance(value, datetime)

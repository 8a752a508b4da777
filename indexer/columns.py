"""The caller's own columns: their Arrow types, found while documents are read, and their values as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..onnx_export import InputError
from .documents import Document

_MAX_EXACT = 2**53
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


class ColumnTypes:
    """Finds one type for every field over many documents.

    Integers widen to floats and null to anything; other mixtures raise InputError.
    """

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._large: set[str] = set()  # fields with integers that no float64 holds exactly

    def update(self, documents: Sequence[Document]) -> None:
        """Take in the fields of ``documents``."""
        names = dict.fromkeys(name for document in documents for name in document.fields)
        for name in names:
            values = [document.fields.get(name) for document in documents]
            try:
                found = pa.array(values).type
                if pa.types.is_integer(found) and any(abs(value or 0) > _MAX_EXACT for value in values):
                    self._large.add(name)
                merged = _common_type(self._types.get(name, found), found)
                if name in self._large and pa.types.is_floating(merged):
                    raise TypeError("integers beyond 2**53 beside floats")
            except _MISFITS as error:
                first, last = documents[0].id, documents[-1].id
                raise InputError(
                    f"field {name!r} has values that make no column, the last of them in a document between {first!r} "
                    f"and {last!r} ({error}); give the field one type in all documents, or leave it out"
                ) from error
            field_array(documents, pa.field(name, merged))
            self._types[name] = merged

    def fields(self) -> list[pa.Field]:
        """The columns found; a field that was always null becomes a string column."""
        return [pa.field(n, pa.string() if pa.types.is_null(t) else t) for n, t in self._types.items()]


def check_fields(documents: Sequence[Document], fields: Sequence[pa.Field]) -> None:
    """Raise InputError, naming document and field, unless ``documents`` fit the columns of an existing table."""
    known = {field.name for field in fields}
    for document in documents:
        for name in document.fields:
            if name not in known:
                raise InputError(
                    f"document {document.id!r} has a field {name!r}, which the index does not have "
                    f"(its fields: {', '.join(sorted(known)) or 'none'}); drop the field or make a new index"
                )
    for field in fields:
        field_array(documents, field)


def field_array(documents: Sequence[Document], field: pa.Field) -> pa.Array:
    """The values of one column, null where a document lacks the field.

    Raises InputError, naming document and field, for a value that the column's type would change or refuse.
    """
    values = [document.fields.get(field.name) for document in documents]
    try:
        array = pa.array(values, field.type)
        stored = array.to_pylist()
    except _MISFITS as error:
        misfit = next(i for i in range(len(values)) if not _fits(values[i], field.type))
        raise _misfit_error(documents[misfit], field, str(error)) from error
    # Arrow cuts quietly: 2.7 to 2, a time to its date, unknown keys off a struct.
    for document, value, kept in zip(documents, values, stored, strict=True):
        if not _same(value, kept):
            raise _misfit_error(document, field, f"it would be stored as {kept!r}")
    return array


def _misfit_error(document: Document, field: pa.Field, reason: str) -> InputError:
    value = document.fields.get(field.name)
    return InputError(
        f"document {document.id!r}: field {field.name!r} is {value!r}, which does not fit its column of type "
        f"{field.type} ({reason})"
    )


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except _MISFITS:
        return False
    return True


def _same(value: Any, stored: Any) -> bool:
    """Whether ``stored`` is ``value`` as Arrow gives it back: a struct may gain nulls, an integer become a float."""
    if isinstance(value, Mapping) and isinstance(stored, dict):
        known = all(key in stored and _same(item, stored[key]) for key, item in value.items())
        return known and all(item is None for key, item in stored.items() if key not in value)
    if isinstance(stored, list):
        is_list = hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping))
        return is_list and len(value) == len(stored) and all(map(_same, value, stored))
    if isinstance(value, bool) or isinstance(stored, bool):
        return value is stored
    return bool(value == stored) or (value != value and stored != stored)


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if (pa.types.is_string(a) and pa.types.is_binary(b)) or (pa.types.is_binary(a) and pa.types.is_string(b)):
        raise TypeError("strings beside bytes")
    merged = pa.unify_schemas(
        [pa.schema([pa.field("x", a)]), pa.schema([pa.field("x", b)])], promote_options="permissive"
    ).field("x")
    return merged.type

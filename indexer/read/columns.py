"""The caller's columns: find their Arrow types while documents are read, and make arrays of their values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ...onnx_export.errors import InputError
from .cells import MAX_EXACT
from .documents import Document
from .midnights import as_midnights, has_dates, has_local_times, with_times
from .typed_text import type_word

_SHOWN = 80  # characters of a value in a message
_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


class ColumnTypes:
    """Finds one Arrow type for each field of many documents.

    Integers widen to floats, dates to timestamps without a time zone, and null to any type. Other mixtures raise
    InputError.

    Args:
        given: types of columns that are known.
    """

    def __init__(self, given: Mapping[str, pa.DataType] | None = None) -> None:
        self._given = dict(given or {})
        self._types: dict[str, pa.DataType] = dict(self._given)
        self._large: set[str] = set()  # fields with integers that no float64 holds exactly

    def update(self, documents: Sequence[Document]) -> None:
        """Widen the types to fit more documents.

        Args:
            documents: the documents.

        Raises:
            InputError: a field has values of types that do not fit one column; the types found so far are unchanged.
        """
        types, large = dict(self._types), set(self._large)
        names = dict.fromkeys(name for document in documents for name in document.fields)
        for name in names:
            if name in self._given:
                field_array(documents, pa.field(name, self._given[name]))
                continue
            values = [document.fields.get(name) for document in documents]
            try:
                array = _inferred(values)
                found, before = array.type, types.get(name, array.type)
                if _has_large_integer(array):
                    large.add(name)
                merged = _common_type(before, found)
                if name in large and (_widens(before, merged) or _widens(found, merged)):
                    raise TypeError("integers beyond 2**53 beside floats")
                _check_storable(merged)
            except _MISFITS as error:
                raise _mixture_error(documents, name, types.get(name, pa.null()), str(error)) from error
            field_array(documents, pa.field(name, merged))
            types[name] = merged
        self._types, self._large = types, large

    def fields(self) -> list[pa.Field]:
        """The columns found, with room for later values.

        One that was always null gets type string: LanceDB cannot store null types in structs. Decimals get all digits
        before the point that their width has: those of the values seen would refuse 10.5 after 1.5.
        """
        return [pa.field(name, kind if name in self._given else _with_room(kind)) for name, kind in self._types.items()]


def field_array(documents: Sequence[Document], field: pa.Field) -> pa.Array:
    """Make the values of one column.

    Args:
        documents: the documents.
        field: the column.

    Returns:
        One value for each document; null if the document does not have the field. A date in a column of timestamps
        is midnight.

    Raises:
        InputError: the column's type would change or refuse a value; the message names the document and the field.
    """
    values = [document.fields.get(field.name) for document in documents]
    if has_local_times(field.type):
        values = [as_midnights(value, field.type) for value in values]
    try:
        array = pa.array(values, field.type)
        stored = array.to_pylist()
    except _MISFITS as error:
        misfit = next((i for i in range(len(values)) if not _fits(values[i], field.type)), 0)
        raise _misfit_error(documents[misfit], field, str(error)) from error
    # Arrow silently cuts values: 2.7 to 2, a time to its date, unknown keys from a struct.
    for document, value, kept in zip(documents, values, stored, strict=True):
        if not _same(value, kept):
            raise _misfit_error(document, field, f"it would be stored as {kept!r}")
    return array


def _misfit_error(document: Document, field: pa.Field, reason: str) -> InputError:
    value = document.fields.get(field.name)
    remedy = "correct the value"
    if isinstance(value, str) and not pa.types.is_nested(field.type):  # the commonest cause
        remedy += "; text in quotes is no number, date or truth value"
    if pa.types.is_string(field.type) and not isinstance(value, (str, bytes)) and not _is_nested(value):
        reason = f"it is of type {_word_of(value)}"
        remedy += f", or make it text: {_made_text(field.name)}"
    if isinstance(value, Decimal):
        remedy += "; give the column more digits when an index is made: FieldNames(types={...: 'decimal(38,9)'})"
    return InputError(
        f"{_named(document)}: field {field.name!r} is {value!r}, which does not fit its column of type {field.type} "
        f"({reason}); {remedy}"
    )


def _mixture_error(documents: Sequence[Document], name: str, before: pa.DataType, reason: str) -> InputError:
    """The error that names the first document with a value that does not fit, and both types.

    Args:
        documents: the documents, one of which does not fit.
        name: the field.
        before: the type of its values in earlier documents.
        reason: what Arrow said.
    """
    kind = before
    for document in documents:
        value = document.fields.get(name)
        where = f"{_named(document)}: field {name!r} is {_shown(value)}"
        try:
            own = _type_of(value)
            _check_storable(own)
        except _MISFITS as error:
            return InputError(
                f"{where}, which no column can hold ({error}); give the field another type in all documents, or leave "
                f"it out ({_dropped(name)})"
            )
        try:
            kind = _common_type(kind, own)
        except _MISFITS:
            words = type_word(own), type_word(kind)
            mine, others = (str(own), str(kind)) if words[0] == words[1] else words
            nested = pa.types.is_nested(own) or pa.types.is_nested(kind)
            remedy = "" if nested else f", make the column text ({_made_text(name)})"
            return InputError(
                f"{where}, of type {mine}, but in the documents before it is of type {others}; give the field one type "
                f"in all documents{remedy}, or leave it out ({_dropped(name)})"
            )
    return InputError(
        f"{_named(documents[-1])}: field {name!r} has values that do not fit one column ({reason}); make the column "
        f"text ({_made_text(name)}), or leave it out ({_dropped(name)})"
    )


def _word_of(value: Any) -> str:
    """What the type of a value is called; Python's name for it, if no column can hold the value."""
    try:
        return type_word(_type_of(value))
    except _MISFITS:
        return type(value).__name__


def _made_text(name: str) -> str:
    return f"--column-type {name}=string, in Python FieldNames(types={{{name!r}: 'string'}})"


def _dropped(name: str) -> str:
    return f"--drop-field {name}, in Python FieldNames(drop=[{name!r}])"


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "__len__")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _named(document: Document) -> str:
    """A document for an error message: its id, and where it was read."""
    return f"{document.place} (id {document.id!r})" if document.place else f"document {document.id!r}"


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except _MISFITS:
        return False
    return True


def _same(value: Any, stored: Any) -> bool:
    """Whether ``stored`` equals ``value``, except that a struct may gain nulls and an integer may become a float."""
    if isinstance(value, Mapping) and isinstance(stored, dict):
        known = all(key in stored and _same(item, stored[key]) for key, item in value.items())
        return known and all(item is None for key, item in stored.items() if key not in value)
    if isinstance(stored, list):
        is_list = hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping))
        return is_list and len(value) == len(stored) and all(map(_same, value, stored))
    if isinstance(value, bool) or isinstance(stored, bool):
        return value is stored
    return bool(value == stored) or (value != value and stored != stored)


def _has_large_integer(array: pa.Array) -> bool:
    """Whether the values, or parts of them, include an integer that a float64 cannot hold exactly."""
    if pa.types.is_integer(array.type):
        values = array.drop_null().to_numpy(zero_copy_only=False)
        return len(values) > 0 and max(int(values.max()), -int(values.min())) > MAX_EXACT
    if pa.types.is_struct(array.type):
        return any(map(_has_large_integer, array.flatten()))
    return pa.types.is_list(array.type) and _has_large_integer(array.flatten())


def _widens(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether integers of ``a`` are floats in ``b``."""
    return any(pa.types.is_integer(x) and pa.types.is_floating(y) for x, y in _leaves(a, b))


def _leaves(a: pa.DataType, b: pa.DataType) -> Iterator[tuple[pa.DataType, pa.DataType]]:
    """Pairs of the types at the same position within two types."""
    if pa.types.is_list(a) and pa.types.is_list(b):
        yield from _leaves(a.value_type, b.value_type)
    elif pa.types.is_struct(a) and pa.types.is_struct(b):
        for field in a:
            if b.get_field_index(field.name) >= 0:
                yield from _leaves(field.type, b.field(field.name).type)
    else:
        yield a, b


def _check_storable(kind: pa.DataType) -> None:
    """Raise TypeError for what LanceDB cannot store: intervals, structs without fields, and names that it would cut."""
    if pa.types.is_interval(kind):
        raise TypeError("intervals of months, days and nanoseconds, which LanceDB cannot store")
    if pa.types.is_struct(kind) and not kind.num_fields:
        raise TypeError("objects without any key")
    for field in (kind.field(i) for i in range(kind.num_fields)):
        if "\0" in field.name:
            raise TypeError(f"a key with a null character, {field.name!r}")
        _check_storable(field.type)


def _with_room(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_decimal128(kind):
        return pa.decimal128(38, kind.scale)
    if pa.types.is_decimal256(kind):
        return pa.decimal256(76, kind.scale)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_room(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_room(kind.value_type)))
    return kind


def _inferred(values: list[Any]) -> pa.Array:
    """The values as Arrow finds their type, which fails for dates among timestamps, or cuts the times off."""
    try:
        array = pa.array(values)
        if not has_dates(array.type) or all(map(_same, values, array.to_pylist())):
            return array
        kind = _type_of_items(values)
    except _MISFITS:
        kind = _type_of_items(values)
        if not has_local_times(kind):
            raise
    return pa.array([as_midnights(value, kind) for value in values], kind)


def _type_of_items(values: Iterable[Any]) -> pa.DataType:
    kind = pa.null()
    for value in values:
        kind = _common_type(kind, _type_of(value))
    return kind


def _type_of(value: Any) -> pa.DataType:
    if isinstance(value, (list, tuple)) and not isinstance(value, pa.MonthDayNano):
        return pa.list_(_type_of_items(value))
    if isinstance(value, Mapping):
        return pa.struct([pa.field(str(key), _type_of(item)) for key, item in value.items()])
    return pa.array([value]).type


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    a, b = with_times(a, b), with_times(b, a)
    if any({str(x), str(y)} == {"string", "binary"} for x, y in _leaves(a, b)):
        raise TypeError("strings beside bytes")
    merged = pa.unify_schemas(
        [pa.schema([pa.field("x", a)]), pa.schema([pa.field("x", b)])], promote_options="permissive"
    ).field("x")
    return merged.type

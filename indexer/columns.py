"""The caller's own columns: their Arrow types, found while documents are read, and their values as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..onnx_export import InputError
from .documents import RESERVED_FIELDS, Document


class ColumnTypes:
    """Finds one type for every field over many documents.

    Integers widen to floats and null to anything; other mixtures raise InputError.
    """

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}

    def update(self, documents: Sequence[Document]) -> None:
        """Take in the fields of ``documents``."""
        names = dict.fromkeys(name for document in documents for name in document.fields)
        for name in names:
            values = [document.fields.get(name) for document in documents]
            try:
                found = pa.infer_type(values)
                self._types[name] = _common_type(self._types.get(name, found), found)
            except (pa.ArrowException, TypeError, ValueError) as error:
                first, last = documents[0].id, documents[-1].id
                raise InputError(
                    f"field {name!r} has values of different types, the last of them in a document between "
                    f"{first!r} and {last!r} ({error}); give the field one type, or rename or drop it"
                ) from error

    def fields(self) -> list[pa.Field]:
        """The columns found; a field that was always null becomes a string column."""
        return [pa.field(n, pa.string() if pa.types.is_null(t) else t) for n, t in self._types.items()]


def user_fields(schema: pa.Schema) -> list[pa.Field]:
    """The caller's columns of an index table."""
    return [field for field in schema if field.name not in RESERVED_FIELDS]


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
    """The values of one column, null where a document lacks the field."""
    try:
        return pa.array([document.fields.get(field.name) for document in documents], field.type)
    except (pa.ArrowException, TypeError, ValueError) as error:
        offender = _first_misfit(documents, field)
        raise InputError(
            f"document {offender.id!r}: field {field.name!r} does not fit its column, which is {field.type} ({error})"
        ) from error


def _first_misfit(documents: Sequence[Document], field: pa.Field) -> Document:
    for document in documents:
        value: Any = document.fields.get(field.name)
        try:
            pa.array([value], field.type)
        except (pa.ArrowException, TypeError, ValueError):
            return document
    return documents[0]


def _common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    merged = pa.unify_schemas(
        [pa.schema([pa.field("x", a)]), pa.schema([pa.field("x", b)])], promote_options="permissive"
    ).field("x")
    return merged.type

"""Spreadsheets as people make them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tansaku import FieldNames, Source
from tansaku.indexer.read.columns import ColumnTypes
from tansaku.indexer.read.documents import Document, DocumentReader

openpyxl = pytest.importorskip("openpyxl")
pytest.importorskip("python_calamine")


def spreadsheet(path, *rows, merged=()):
    """A file of these rows, with some cells merged ("A2:A3")."""
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for cells in merged:
        book.active.merge_cells(cells)
    book.save(path / "docs.xlsx")
    return path / "docs.xlsx"


def read(path, names=None, **options) -> tuple[list[Document], dict[str, str]]:
    """The documents of a file, and the types of their columns."""
    reader = DocumentReader(Source(path, **options), names)
    reader.infer_types()
    documents = list(reader)
    types = ColumnTypes((names or FieldNames()).arrow_types())
    types.update(documents)
    return documents, {field.name: str(field.type) for field in types.fields()}


def values(documents: list[Document], name: str) -> list[Any]:
    return [document.fields[name] for document in documents]


def test_a_time_at_midnight_is_a_time(tmp_path):
    """The library gives a date for it."""
    rows = [[1, "寺", dt.datetime(2024, 1, 3)], [2, "城", dt.datetime(2024, 1, 3, 10)]]
    _, types = read(spreadsheet(tmp_path, ["id", "text", "受付"], *rows))
    assert types == {"受付": "timestamp[us]"}

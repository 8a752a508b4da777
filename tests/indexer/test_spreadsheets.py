"""Spreadsheets as people make them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from tansaku import FieldNames, InputError, Source, SourceError
from tansaku.indexer.read.columns import ColumnTypes
from tansaku.indexer.read.documents import Document, DocumentReader
from tansaku.onnx_export.progress import no_progress

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
    reader.infer_types(no_progress)
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


class TestMixedColumns:
    ROWS = (
        ["id", "text", "郵便", "率", "時間", "年"],
        [1, "寺", "0600001", 0.05, dt.time(10, 30), 1397],
        [2.5, 2024, 600002, "不明", dt.timedelta(hours=30), 1583.5],
        [dt.date(2024, 1, 3), "城", None, 1e-7, "未定", None],
    )

    def test_become_text_and_that_is_said(self, tmp_path, caplog):
        documents, types = read(spreadsheet(tmp_path, *self.ROWS))
        assert types == {"郵便": "string", "率": "string", "時間": "string", "年": "double"}
        assert values(documents, "郵便") == ["0600001", "600002", None]
        assert values(documents, "率") == ["0.05", "不明", "0.0000001"]
        assert values(documents, "時間") == ["10:30:00", "30:00:00", "未定"]
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 3
        assert "'郵便' has 1 text and 1 number (" in said[0]
        assert "docs.xlsx [Sheet] row 3: 600002); its column becomes text, and --column-type" in said[0]

    def test_ids_and_texts_are_text(self, tmp_path):
        documents, _ = read(spreadsheet(tmp_path, *self.ROWS))
        assert [(d.id, d.text) for d in documents] == [("1", "寺"), ("2.5", "2024"), ("2024-01-03", "城")]

    def test_a_type_that_is_given_or_there_already_holds(self, tmp_path, caplog):
        path = spreadsheet(tmp_path, ["id", "text", "郵便", "年"], [1, "寺", "600001", 1397], [2, "城", 5, "不明"])
        names = FieldNames(types={"郵便": "integer", "年": "string"})
        documents, _ = read(path, names)
        assert (values(documents, "郵便"), values(documents, "年")) == ([600001, 5], ["1397", "不明"])
        there = list(DocumentReader(Source(path), types={"郵便": pa.int64(), "年": pa.string()}))
        assert there == documents
        assert not caplog.records


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (600002, "600002"),
        (0.05, "0.05"),
        (1e22, "10000000000000000000000"),
        (0.30000000000000004, "0.30000000000000004"),
        (np.float64(0.5), "0.5"),
        (True, "true"),
        (Decimal("1E+2"), "100"),
        (dt.date(2024, 1, 3), "2024-01-03"),
        (dt.datetime(2024, 1, 3, 10), "2024-01-03T10:00:00"),
        (dt.time(10), "10:00:00"),
        (dt.timedelta(hours=-30, seconds=1), "-29:59:59"),
        (None, None),
    ],
)
def test_a_column_that_is_given_as_string_takes_what_has_a_text_from_every_source(value, text):
    reader = DocumentReader([{"id": "1", "text": "寺", "f": value}], FieldNames(types={"f": "string"}))
    (document,) = reader
    ColumnTypes({"f": pa.string()}).update([document])
    assert document.fields["f"] == text


class TestRows:
    def test_empty_ones_are_left_out_and_counted(self, tmp_path, caplog):
        path = spreadsheet(tmp_path, ["id", "text"], [1, "寺"], [None, None], [2, "城"], [None, " "])
        assert [document.id for document in read(path)[0]] == ["1", "2"]
        (said,) = [record.getMessage() for record in caplog.records]
        assert "without any value, the first of them" in said
        assert said.endswith("docs.xlsx [Sheet] row 3")

    @pytest.mark.parametrize("suffix", [".csv", ".tsv"])
    def test_of_commas_alone_are_left_out_and_counted(self, tmp_path, caplog, suffix):
        path = tmp_path / f"docs{suffix}"
        path.write_text("id,text,年\n1,寺,1397\n,,\n2,城,\n,,,,\n,,\n".replace(",", "," if suffix == ".csv" else "\t"))
        assert [cast("Any", record)["id"] for _, record in Source(path)] == ["1", "2"]
        assert f"left out 3 rows without any value, the first of them {path}:3" in caplog.text

    TITLED = (["売上一覧"], ["番号", "本文"], [1, "寺"], [2, "城"])

    def test_a_title_above_the_names_is_an_error_with_the_remedy(self, tmp_path):
        with pytest.raises(
            InputError, match=r"row 2: column 2 has the value '本文' but no name.*--header-row, in Python"
        ):
            read(spreadsheet(tmp_path, *self.TITLED, merged=["A1:B1"]), FieldNames("番号", "本文"))
        (tmp_path / "docs.csv").write_text("売上一覧\n番号,本文\n1,寺\n", encoding="utf-8")
        with pytest.raises(InputError, match=r":2: 2 fields, but the header has 1.*--header-row"):
            read(tmp_path / "docs.csv", FieldNames("番号", "本文"))

    @pytest.mark.parametrize("suffix", [".xlsx", ".csv", ".tsv"])
    def test_the_names_may_be_in_a_later_row(self, tmp_path, suffix):
        path = tmp_path / f"docs{suffix}"
        if suffix == ".xlsx":
            spreadsheet(tmp_path, *self.TITLED, merged=["A1:B1"])
        else:
            lines = ["売上一覧", "番号,本文", "1,寺", "2,城"]
            path.write_text("\n".join(lines).replace(",", "," if suffix == ".csv" else "\t"), encoding="utf-8")
        documents, _ = read(path, FieldNames("番号", "本文"), header_row=2)
        assert [(document.id, document.text) for document in documents] == [("1", "寺"), ("2", "城")]
        with pytest.raises(SourceError, match="expected a header"):
            list(Source(path, header_row=9))

    def test_the_row_of_the_names_is_refused_where_there_is_none(self, tmp_path):
        (tmp_path / "docs.jsonl").touch()
        with pytest.raises(InputError, match=r"header_row is 2; .* for CSV, TSV and spreadsheets only"):
            Source(tmp_path / "docs.jsonl", header_row=2)


class TestMergedCells:
    def test_have_their_value_in_each_row(self, tmp_path, caplog):
        rows = [["id", "text", "館", "注"], [1, "寺", "本館", "x"], [2, "城"], [], [3, "塔"], [4, "門"], ["終わり"]]
        path = spreadsheet(tmp_path, *rows, merged=["C2:C5", "D2:D3", "A7:D7"])
        *documents, last = [dict(cast("Any", record)) for _, record in Source(path)]
        assert [(record["館"], record["注"]) for record in documents] == [
            ("本館", "x"),
            ("本館", "x"),
            ("本館", None),
            (None, None),
        ]
        assert last == {"id": "終わり", "text": None, "館": None, "注": None}
        assert "3 cells filled, from cells that are merged over several rows" in caplog.text

    def test_of_two_rows_of_names_are_names(self, tmp_path):
        rows = [["id", "内容", None], [None, "text", "年"], [1, "寺", 1397]]
        path = spreadsheet(tmp_path, *rows, merged=["A1:A2", "B1:C1"])
        assert [record for _, record in Source(path, header_row=2)] == [{"id": 1, "text": "寺", "年": 1397}]

"""The checksum of rows: the same however they are divided and ordered, another one after any change."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from tansaku.indexer.table.checksum import rows_checksum

ROWS = [
    {"id": "a", "codes": b"12", "n": 1, "x": 0.5, "ok": True, "day": datetime.date(2026, 12, 1), "tags": ["寺", ""]},
    {"id": "b", "codes": b"", "n": None, "x": float("nan"), "ok": None, "day": None, "tags": []},
    {"id": "", "codes": b"\x00", "n": -7, "x": -0.0, "ok": False, "day": None, "tags": None},
]
PARTS = [
    {"s": {"a": 1, "b": ["x"]}, "v": [1.0, 2.0], "c": [1, 2, 3]},
    {"s": None, "v": None, "c": []},
    {"s": {"a": 2, "b": None}, "v": [2.0, 1.0], "c": [None, 5]},
]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("codes", pa.large_binary()),
        ("n", pa.int64()),
        ("x", pa.float32()),
        ("ok", pa.bool_()),
        ("day", pa.date32()),
        ("tags", pa.list_(pa.string())),
        ("s", pa.struct([("a", pa.int8()), ("b", pa.list_(pa.string()))])),
        ("v", pa.list_(pa.float32(), 2)),
        ("c", pa.list_(pa.uint16())),
    ]
)


def batch(rows) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


WHOLE = [{**row, **part} for row, part in zip(ROWS, PARTS, strict=True)]
EXPECTED = rows_checksum([batch(WHOLE)])


def test_division_order_and_slices_do_not_matter():
    assert rows_checksum([batch([row]) for row in reversed(WHOLE)]) == EXPECTED
    assert rows_checksum([batch(WHOLE).slice(1), batch(WHOLE).slice(0, 1)]) == EXPECTED
    assert rows_checksum([batch(WHOLE).select(SCHEMA.names[::-1])]) == EXPECTED


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (0, {"id": "A"}),
        (0, {"codes": b"21"}),
        (0, {"n": 2}),
        (0, {"x": 0.25}),
        (0, {"ok": False}),
        (1, {"ok": False}),
        (0, {"day": datetime.date(2026, 12, 2)}),
        (0, {"tags": ["", "寺"]}),
        (1, {"tags": None}),
        (1, {"n": 0}),
        (0, {"s": {"a": 1, "b": []}}),
        (0, {"v": [2.0, 1.0]}),
        (0, {"c": [1, 3, 2]}),
        (2, {"c": [0, 5]}),
        (2, {"c": [5, None]}),
        (0, {"id": "b", "codes": b""}),
    ],
)
def test_every_change_shows(row, change):
    changed = [{**each, **change} if number == row else each for number, each in enumerate(WHOLE)]
    assert rows_checksum([batch(changed)]) != EXPECTED


def test_a_row_that_is_lost_or_doubled_shows():
    assert rows_checksum([batch(WHOLE[:2])]) != EXPECTED
    assert rows_checksum([batch([*WHOLE, WHOLE[2]])]) != EXPECTED

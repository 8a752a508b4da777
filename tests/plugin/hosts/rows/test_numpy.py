"""Rows in memory, which all databases are compared with."""

from __future__ import annotations

import numpy as np

from tansaku.plugin.hosts.rows.conformance import RowStoreTests, shared_coder
from tansaku.plugin.hosts.rows.numpy import NumpyRows


class TestNumpyRows(RowStoreTests[NumpyRows]):
    def make_store(self, coder, folder, **options):
        return NumpyRows(coder, **options)

    def year_is(self, year):
        return lambda row: row.get("year") == year

    def write_uncoded(self, store, records):
        store.write_uncoded(records)

    def write_codes(self, store, row_id, codes):
        store._rows[row_id] = store._rows[row_id]._replace(codes=codes)
        store._compared = None


def test_writes_of_every_kind_are_seen_by_the_next_search():
    """The matrix that searches share is made again."""
    store = NumpyRows(shared_coder())

    def found():
        return sorted(hit.id for hit in store.search("犬") if not np.isnan(hit.score))

    assert found() == []
    store.add([{"id": "dog", "text": "犬"}, {"id": "cat", "text": "猫"}])
    assert found() == ["cat", "dog"]
    store.upsert([{"id": "owl", "text": "梟"}])
    assert found() == ["cat", "dog", "owl"]
    store.delete(["cat"])
    store.delete(where=lambda row: row["id"] == "owl")
    assert found() == ["dog"]
    store.write_uncoded([{"id": "dog", "text": "鯨"}])
    assert found() == []
    store.fill()
    assert store.search("鯨")[0].text == "鯨"


def test_equal_rows_are_in_the_order_of_ids():
    store = NumpyRows(shared_coder(), candidates=2)
    store.add([{"id": row_id, "text": "犬"} for row_id in "cdab"])
    assert {hit.id for hit in store.search("犬", 2)} == {"a", "b"}

"""Rows in memory, which all databases are compared with."""

from __future__ import annotations

from tansaku.plugin.hosts.rows.conformance import RowStoreTests
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

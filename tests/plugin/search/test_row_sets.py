"""Rows that a condition left are kept for the version of the table that they were read from, and for no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import lancedb
import numpy as np
import pytest
from lancedb.index import Bitmap, BTree

from tansaku import Condition, Index, Searcher, UncheckedSQL
from tansaku.indexer.table import columns_of_rows
from tansaku.plugin.search.row_sets import RowSet, RowSets

from ...support.fakes import FakeEncoder, corpus

QUERY = "02468ace"


def rows(n=8, count=0):
    return RowSet(np.zeros(n, bool), count)


class TestRowSets:
    def test_a_kept_set_is_not_read_again(self):
        sets, first = RowSets(), rows()
        assert sets.find("a", lambda: first) is first
        assert sets.find("a", lambda: pytest.fail("read again")) is first
        assert sets.find("b", rows) is not first

    def test_the_one_used_longest_ago_goes_first(self):
        sets = RowSets(max_sets=2)
        a, _ = sets.find("a", rows), sets.find("b", rows)
        sets.find("a", rows)
        sets.find("c", rows)
        assert len(sets) == 2
        assert sets.find("a", rows) is a
        read = []
        sets.find("b", lambda: read.append(1) or rows())
        assert read == [1]

    def test_bytes_are_bounded(self):
        sets = RowSets(max_bytes=4_000)
        for i in range(20):
            sets.find(f"year = {i}", lambda: rows(1_000))
            assert sets.nbytes <= 4_000
        assert len(sets) == 3
        sets.find("too large", lambda: rows(5_000))
        sets.find("x" * 5_000, rows)
        assert len(sets) == 3

    def test_threads_leave_it_within_its_bounds(self):
        sets = RowSets(max_sets=3, max_bytes=10_000)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: sets.find(str(i % 7), lambda: rows(count=i % 7)).count, range(2_000)))
        assert found == [i % 7 for i in range(2_000)]
        assert len(sets) == 3


@pytest.fixture
def reads(monkeypatch):
    """The conditions that the table is asked for."""
    asked: list[str | None] = []

    def read_columns(table, columns, condition=None):
        asked.append(condition)
        return columns_of_rows.read_columns(table, columns, condition)

    monkeypatch.setattr("tansaku.plugin.search.filters.read_columns", read_columns)
    return asked


@pytest.fixture
def index(tmp_path):
    return Index.create(
        tmp_path, "t", corpus(40, year=lambda i: None if i % 4 == 0 else 1000 + i), encoder=FakeEncoder()
    )


def searcher_of(tmp_path):
    return Searcher.open(tmp_path, "t", encoder=FakeEncoder())


def found(searcher, where, **options):
    return {hit.id for hit in searcher.search(QUERY, 100, where=where, **options)}


def test_a_condition_is_read_once(tmp_path, index, reads):
    searcher = searcher_of(tmp_path)
    first = found(searcher, "year < 1010")
    assert first == {"d1", "d2", "d3", "d5", "d6", "d7", "d9"}
    assert found(searcher, "year   < 1010") == first  # the same condition, written otherwise
    assert found(searcher, Condition("year < $y", y=1010), ids=["d3", "d4", "d30"]) == {"d3"}
    many = searcher.search_many(["a", "b"], 100, where="year < 1010")
    assert [{hit.id for hit in hits} for hits in many] == [first, first]
    assert len(reads) == 1


def test_values_of_parameters_belong_to_the_condition(tmp_path, index, reads):
    searcher = searcher_of(tmp_path)
    for year in (1001, 1002, 1001):
        assert found(searcher, Condition("year = ?", year)) == {f"d{year - 1000}"}
    assert len(reads) == 2


def test_null_meets_neither_a_condition_nor_its_opposite(tmp_path, index):
    searcher = searcher_of(tmp_path)
    for _ in range(2):
        both = found(searcher, "year < 1020") | found(searcher, "NOT year < 1020")
        empty = found(searcher, "year IS NULL")
        assert empty == {f"d{i}" for i in range(0, 40, 4)}
        assert both | empty == {f"d{i}" for i in range(40)}
        assert not both & empty


def test_sql_that_nothing_checks_is_read_each_time(tmp_path, index, reads):
    searcher = searcher_of(tmp_path)
    for _ in range(2):
        assert found(searcher, UncheckedSQL("year % 10 = 1")) == {"d1", "d11", "d21", "d31"}
    assert len(reads) == 2


def test_each_version_has_its_own(tmp_path, index):
    stays, follows = searcher_of(tmp_path), searcher_of(tmp_path)
    before = found(stays, "year < 1010")
    assert found(follows, "year < 1010") == before
    version = index.info().version
    index.delete(["d1"])
    index.upsert([{"id": "d2", "text": "0123", "year": 2000}, {"id": "new", "text": "4567", "year": 1}])
    follows.refresh()
    assert found(follows, "year < 1010") == before - {"d1", "d2"} | {"new"}
    assert found(stays, "year < 1010") == before
    index.restore(version)
    follows.refresh()
    assert found(follows, "year < 1010") == before


@pytest.mark.parametrize("fields", [None, []])
def test_where_the_version_was_given_up_the_latest_is_read(tmp_path, index, fields):
    searcher = searcher_of(tmp_path)
    index.upsert(corpus(40, salt="new", year=lambda i: 1000 + i))
    index.optimize(timedelta(0))
    assert found(searcher, "year < 1002", fields=fields) == {"d0", "d1"}


def test_after_a_rebuild_columns_of_that_name_are_read_again(tmp_path, index):
    searcher = searcher_of(tmp_path)
    assert found(searcher, "year = 1001") == {"d1"}
    Index.create(tmp_path, "t", corpus(5, year=lambda i: 1001), encoder=FakeEncoder(), overwrite=True)
    searcher.refresh()
    assert found(searcher, "year = 1001") == {f"d{i}" for i in range(5)}


def test_indexes_of_columns_change_no_hits(tmp_path, index):
    table = lancedb.connect(tmp_path).open_table("t")
    table.create_index("year", config=BTree())
    table.create_index("title", config=Bitmap())
    index = Index.open(tmp_path, "t", encoder=FakeEncoder())
    index.delete(["d1"])
    index.upsert([{"id": "d2", "text": "0123", "year": 2000}, {"id": "new", "text": "4567", "year": 1}])
    for _ in range(2):
        searcher = searcher_of(tmp_path)
        assert found(searcher, "year < 1010") == {"d3", "d5", "d6", "d7", "d9", "new"}
        assert found(searcher, "title = '' AND year >= 1039") == {"d2", "d39"}
        assert found(searcher, "year IS NULL") == {f"d{i}" for i in range(0, 40, 4)}
        index.optimize()

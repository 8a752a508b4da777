"""Columns that a table gets from later documents."""

from __future__ import annotations

import lancedb
import pyarrow as pa
import pytest

from tansaku import FieldNames, Index, InputError, Searcher, WriteConflictError
from tansaku.indexer.table import new_columns
from tansaku.indexer.table.changes import merge_rows
from tansaku.indexer.table.new_columns import add_columns
from tansaku.indexer.table.table import create_index_table, open_index_table
from tansaku.indexer.write import merge, rebuild

from ..support.fakes import FakeEncoder, KilledError, after, corpus, rows_by_id, small_chunks, small_slices, stored

pytestmark = pytest.mark.integration


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


def make(db, documents=None, **options) -> Index:
    return Index.create(db, "t", documents or corpus(6), encoder=FakeEncoder(), **options)


def values(db, name):
    return {doc_id: row[name] for doc_id, row in rows_by_id(db).items()}


@pytest.mark.parametrize("write", ["add", "upsert"])
def test_a_field_that_the_table_lacks_becomes_a_column_and_that_is_said(db, caplog, write):
    index = make(db)
    searcher = Searcher.open(db, "t", encoder=FakeEncoder())
    getattr(index, write)([*corpus(1, "n", year=lambda i: 794), *corpus(1, "m", tags=lambda i: ["寺"])])
    assert values(db, "year") == {**{f"d{i}": None for i in range(6)}, "n0": 794, "m0": None}
    assert values(db, "tags")["m0"] == ["寺"]
    assert (
        "table 't': new columns 'year' (int64), 'tags' (list<item: string>); the rows before have no value"
        in caplog.text
    )
    searcher.refresh()
    (hit,) = searcher.search("abc", k=9, where="year < 800")
    assert (hit.id, hit.fields["year"]) == ("n0", 794)
    caplog.clear()
    index.add(corpus(1, "l", year=lambda i: 795))
    assert not caplog.records


def test_they_stay_through_a_rebuild_and_take_no_other_type(db):
    index = make(db)
    index.add(corpus(1, "n", year=lambda i: 794))
    index.rebuild()
    assert values(db, "year")["n0"] == 794
    with pytest.raises(InputError, match="field 'year' is 'x', which does not fit its column of type int64"):
        index.add(corpus(1, "o", year=lambda i: "x"))


def test_columns_of_csv_get_types_there_too(db, tmp_path):
    index = make(db, [{"id": "a", "text": "寺", "place": "京都"}])
    path = tmp_path / "later.csv"
    path.write_text("id,text,place,年\nb,城,0123,1583\nc,滝,4567,\n", encoding="utf-8")
    report = index.add(path)
    assert report.column_types == {"年": "integer"}
    assert values(db, "年") == {"a": None, "b": 1583, "c": None}
    assert values(db, "place")["b"] == "0123"


def test_a_column_that_was_always_null_takes_the_type_of_its_first_values(db, tmp_path):
    index = make(db, corpus(3, year=lambda i: None, note=lambda i: None))
    index.add(corpus(1, "n", year=lambda i: 794, note=lambda i: None))
    assert stored(db).schema.field("year").type == pa.int64()
    assert stored(db).schema.field("note").type == pa.string()
    path = tmp_path / "later.csv"
    path.write_text("id,text,note\nb,城,1.5\n", encoding="utf-8")
    index.upsert(path)
    assert values(db, "note") == {"d0": None, "d1": None, "d2": None, "n0": None, "b": 1.5}


def test_a_column_of_csv_without_values_is_null_and_takes_a_type_later(db, tmp_path):
    path = tmp_path / "docs.csv"
    path.write_text("id,text,年,メモ\na,寺,,x\nb,城,,\n", encoding="utf-8")
    index = make(db, path)
    assert (values(db, "年"), values(db, "メモ")) == ({"a": None, "b": None}, {"a": "x", "b": ""})
    path.write_text("id,text,年,メモ\nc,滝,1583,\n", encoding="utf-8")
    index.add(path)
    assert values(db, "年") == {"a": None, "b": None, "c": 1583}


def test_a_type_that_is_given_holds_for_new_columns_and_is_refused_for_others(db):
    index = make(db, corpus(3, price=lambda i: 1))
    names = FieldNames(types={"weight": "number"})
    index.add(corpus(1, "n", weight=lambda i: 3), names=names)
    assert stored(db).schema.field("weight").type == pa.float64()
    with pytest.raises(InputError, match="the column 'price' has the type int64, and values; a write cannot make it"):
        index.add(corpus(1, "m"), names=FieldNames(types={"price": "string"}))


def test_a_call_that_fails_adds_none(db):
    index = make(db)
    with pytest.raises(InputError):
        index.add([*corpus(1, "n", year=lambda i: 794), {"id": "x", "text": ""}])
    assert "year" not in stored(db).schema.names


@pytest.mark.parametrize("calls", [0, 1])
def test_an_interrupted_call_is_continued(db, monkeypatch, calls):
    """Before or after its columns were added; the table then has its columns in another order than the staged rows."""
    index = make(db, corpus(4, empty=lambda i: None, last=lambda i: i))
    small_chunks(monkeypatch)
    small_slices(monkeypatch)
    later = corpus(9, "n", empty=lambda i: 2 * i, last=lambda i: i, new=lambda i: 3 * i)
    with monkeypatch.context() as patch:
        patch.setattr(merge, "merge_rows", after(calls, merge_rows))
        with pytest.raises(KilledError):
            index.add(later)
    assert index.add(later).resumed == 9
    found = rows_by_id(db)
    assert all(
        (found[f"n{i}"]["empty"], found[f"n{i}"]["last"], found[f"n{i}"]["new"]) == (2 * i, i, 3 * i) for i in range(9)
    )


@pytest.mark.parametrize("when", ["while rows are encoded", "before the swap"])
def test_those_that_others_add_during_a_rebuild_are_kept(db, monkeypatch, when):
    make(db, corpus(6, empty=lambda i: None))
    encoder = FakeEncoder()
    written = []

    def write():
        if not written:
            written.append(Index.open(db, "t", encoder=FakeEncoder()))
            written[0].upsert(corpus(2, year=lambda i: 794, empty=lambda i: 1.5))

    def create(*args, **kwargs):
        write()
        return create_index_table(*args, **kwargs)

    if when == "before the swap":
        monkeypatch.setattr(rebuild, "create_index_table", create)
    else:
        encoder.before_encoding = lambda texts: write()
    Index.open(db, "t", encoder=encoder).rebuild()
    assert values(db, "year") == {"d0": 794, "d1": 794, **{f"d{i}": None for i in range(2, 6)}}
    assert values(db, "empty") == {"d0": 1.5, "d1": 1.5, **{f"d{i}": None for i in range(2, 6)}}


class TestOtherWriters:
    def test_who_added_the_same_column_are_no_conflict(self, db):
        make(db)
        table = open_index_table(lancedb.connect(str(db)), "t")
        for _ in range(2):
            add_columns(table, [pa.field("year", pa.int64())])
        assert stored(db).schema.field("year").type == pa.int64()

    def test_who_gave_it_another_type_and_values_are_one(self, db, monkeypatch):
        index = make(db)
        table = open_index_table(lancedb.connect(str(db)), "t")
        index.add(corpus(1, "n", year=lambda i: "794"))
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(WriteConflictError, match="another writer gave the columns 'year' values of another type"):
            add_columns(table, [pa.field("year", pa.int64())])

    def test_who_fill_it_in_the_last_moment_lose_nothing(self, db, monkeypatch):
        index = make(db, corpus(3, note=lambda i: None))
        table = open_index_table(lancedb.connect(str(db)), "t")
        original = new_columns._drop_empty

        def drop(*args):
            index.add(corpus(1, "n", note=lambda i: "x"))
            original(*args)

        monkeypatch.setattr(new_columns, "_drop_empty", drop)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(WriteConflictError):
            add_columns(table, [pa.field("note", pa.int64())])
        assert values(db, "note")["n0"] == "x"

"""Columns of every Arrow type, alone and within lists and structs, through every write; and commits that lose rows."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from typing import Any

import lancedb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tansaku import BadRecord, Index, InputError, Rejects, Source, StorageError
from tansaku.indexer.read.arrow_formats import batch_records
from tansaku.indexer.table import changes, table
from tansaku.indexer.table.aligned import aligned
from tansaku.indexer.table.counted import check_made
from tansaku.indexer.table.table import create_index_table
from tansaku.indexer.write import build

from ..support.fakes import (
    FakeEncoder,
    KilledError,
    after,
    built,
    corpus,
    rows_by_id,
    small_chunks,
    stored,
    texts_by_id,
)

NOW = dt.datetime(2024, 2, 29, 12, 30, 1)
UTC = NOW.replace(tzinfo=dt.timezone.utc)
TIME = pa.time64("ns")
PRICE = decimal.Decimal("1.50")

PLAIN: list[tuple[pa.DataType, Any]] = [
    *((kind, 5) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    *((kind, 5) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    *((kind, 1.5) for kind in (pa.float16(), pa.float32(), pa.float64())),
    (pa.bool_(), True),
    (pa.decimal128(10, 2), PRICE),
    (pa.decimal256(60, 2), decimal.Decimal(f"{'1' * 40}.50")),
    *((kind, NOW.date()) for kind in (pa.date32(), pa.date64())),
    *((kind, NOW.time()) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))),
    *((pa.timestamp(unit), NOW) for unit in ("s", "ms", "us", "ns")),
    *((pa.timestamp(unit, zone), UTC) for unit, zone in (("s", "UTC"), ("us", "Asia/Tokyo"))),
    *((pa.duration(unit), dt.timedelta(seconds=5)) for unit in ("s", "ms", "us", "ns")),
    *((kind, b"a\0b") for kind in (pa.binary(), pa.large_binary(), pa.binary(3), pa.binary_view())),
    *((kind, "京都の寺院建築") for kind in (pa.string(), pa.large_string(), pa.string_view())),
    (pa.dictionary(pa.int32(), pa.string()), "京都"),
    (pa.null(), None),
]
# What only one of several forms of a list is needed for.
NESTED: list[tuple[pa.DataType, Any]] = [
    (pa.large_list(pa.decimal128(10, 2)), [PRICE, PRICE]),
    (pa.list_(pa.decimal128(10, 2), 2), [PRICE, PRICE]),
    (pa.list_view(pa.decimal128(10, 2)), [PRICE]),
    (pa.list_(pa.list_(pa.decimal128(10, 2))), [[PRICE], []]),
    (pa.list_(pa.struct([pa.field("a", pa.decimal128(10, 2))])), [{"a": PRICE}]),
]


def columns() -> Iterator[tuple[pa.DataType, Any]]:
    for kind, value in PLAIN:
        yield kind, value
        yield pa.list_(kind), [value, None, value]
        yield pa.struct([pa.field("a", kind), pa.field("b", pa.bool_())]), {"a": value, "b": None}
    yield from NESTED


def every_type(rows: int) -> pa.Table:
    """Documents with a column of each type; every third value of each is null."""
    arrays = [pa.array([None if i % 3 else value for i in range(rows)], kind) for kind, value in columns()]
    ids, texts = [f"d{i}" for i in range(rows)], [f"寺{i}" for i in range(rows)]
    return pa.table([ids, texts, *arrays], ["id", "text", *(f"c{n}" for n in range(len(arrays)))])


def user_values(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = [f"c{n}" for n in range(sum(1 for _ in columns()))]
    return {row["id"]: {name: row[name] for name in names} for row in rows}


@pytest.fixture
def db(tmp_path):
    return tmp_path / "db"


def priced(n, **more):
    return corpus(n, price=lambda i: PRICE, **more)


class TestEveryArrowType:
    def test_every_write_keeps_every_row_and_value(self, db, tmp_path, monkeypatch):
        given = every_type(10)
        with pa.ipc.new_file(str(tmp_path / "all.arrow"), given.schema) as writer:
            writer.write_table(given)
        source = Source(tmp_path / "all.arrow")
        records, expected = given.to_pylist(), user_values(given.to_pylist())

        def check():
            found = stored(db).to_pylist()
            assert len(found) == len(records)
            assert user_values(found) == expected

        index = Index.create(db, "t", source, encoder=FakeEncoder())
        check()
        index.upsert(records[:7])
        check()
        index.delete([f"d{i}" for i in range(4)])
        index.add(records[:4])
        check()
        index.rebuild()
        check()
        Index.create(db, "t", records, encoder=FakeEncoder(), overwrite=True)
        check()
        small_chunks(monkeypatch)
        with monkeypatch.context() as patch:
            patch.setattr(build, "create_index_table", after(0, create_index_table, KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                Index.create(db, "t", records, encoder=FakeEncoder(), overwrite=True)
        resumed = Index.create(db, "t", records, encoder=FakeEncoder(), overwrite=True)
        assert built(resumed).resumed == 10
        check()

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(n=st.integers(1, 80), digits=st.integers(1, 38), words=st.integers(0, 9))
    def test_decimals_in_any_layout(self, tmp_path_factory, n, digits, words):
        """Where a buffer begins in a staged file depends on all columns before it."""
        db = tmp_path_factory.mktemp("db")
        documents = corpus(n, note=lambda i: "x" * words, price=lambda i: decimal.Decimal("1" * digits))
        index = Index.create(db, "t", documents, encoder=FakeEncoder())
        index.upsert(documents)
        index.rebuild()
        assert {row["id"]: row["price"] for row in rows_by_id(db).values()} == {d["id"]: d["price"] for d in documents}

    @pytest.mark.parametrize(
        ("value", "problem"), [(pa.MonthDayNano([1, 2, 3]), "LanceDB cannot store"), (2**63, "too large")]
    )
    @pytest.mark.parametrize("within", [lambda x: x, lambda x: [x], lambda x: {"a": x}])
    def test_what_lancedb_cannot_hold_is_refused_before_anything_is_encoded(self, db, value, problem, within):
        encoder = FakeEncoder()
        with pytest.raises(InputError, match=rf"field 'span'.*{problem}.*give the field"):
            Index.create(db, "t", corpus(3, span=lambda i: within(value)), encoder=encoder)
        assert not encoder.encoded
        assert not db.exists()

    @pytest.mark.parametrize(
        ("kind", "fine"),
        [
            (TIME, 1_000),
            (pa.list_(TIME), [1_000]),
            (pa.list_(TIME, 1), [1_000]),
            (pa.struct([pa.field("a", TIME)]), {"a": 1_000}),
            (pa.map_(pa.string(), TIME), [("a", 1_000)]),
            (pa.list_(pa.struct([pa.field("a", pa.list_(TIME))])), [{"a": [1_000]}]),
        ],
    )
    def test_nanoseconds_that_python_has_not_are_refused_and_not_cut(self, kind, fine):
        """Arrow would cut those of a time of day in silence."""
        cut = eval(repr(fine).replace("1000", "1001"))  # noqa: S307  # the same with a nanosecond more
        batch = pa.record_batch({"id": ["a", "b"], "at": pa.array([fine, cut], kind)})
        kept, refused = batch_records(batch)
        assert isinstance(kept, dict)
        assert isinstance(refused, BadRecord)
        assert "1 nanoseconds" in refused.reason

    def test_what_python_has_not_is_refused_in_tables_too(self, db, tmp_path):
        years = pa.array([dt.datetime(2024, 1, 1), None], pa.timestamp("us")).cast(pa.int64()).to_pylist()
        years[1] = -(10**17)
        table = pa.table({"id": ["a", "b"], "text": ["寺", "城"], "at": pa.array(years, pa.timestamp("us"))})
        with pytest.raises(InputError, match=r"row 1: field 'at': .*out of range"):
            Index.create(db, "t", table, encoder=FakeEncoder())
        with Rejects(tmp_path / "rejects") as rejects:
            Index.create(db, "t", table, encoder=FakeEncoder(), rejects=rejects)
        assert (list(rows_by_id(db)), len(rejects)) == (["a"], 1)

    def test_a_fault_of_lancedbs_own_is_a_storage_error(self, db):
        Index.create(db, "t", corpus(3), encoder=FakeEncoder())
        lancedb.connect(str(db)).open_table("t").add_columns(pa.field("pair", pa.list_(pa.string(), 2)))
        with pytest.raises(StorageError, match="table 't'"):
            Index.open(db, "t", encoder=FakeEncoder()).upsert(corpus(3, pair=lambda i: ["a", "b"] if i else None))


class TestAligned:
    def test_every_buffer_begins_at_a_multiple_of_64_bytes(self):
        given = every_type(5).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, given.schema) as writer:
            writer.write_table(given)
        (read,) = pa.ipc.open_file(sink.getvalue()).read_all().to_batches()
        assert any(address % 64 for address in addresses(read))
        assert not any(address % 64 for address in addresses(aligned(read)))
        assert aligned(read).equals(read)

    def test_what_is_aligned_is_not_copied(self):
        (batch,) = pa.table({"x": pa.array([PRICE])}).to_batches()
        assert addresses(aligned(batch)) == addresses(batch)


def addresses(batch: pa.RecordBatch) -> list[int]:
    """Where the buffers begin, but those of views that hold plain bytes, which need no alignment."""
    found = []
    for column in batch.columns:
        parts = [column, column.dictionary] if isinstance(column, pa.DictionaryArray) else [column]
        if not contains_view(column.type):
            found += [buffer.address for part in parts for buffer in part.buffers() if buffer is not None]
    return found


def contains_view(kind: pa.DataType) -> bool:
    is_view = pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    return is_view or any(contains_view(kind.field(i).type) for i in range(kind.num_fields))


def losing_a_row(batch: pa.RecordBatch) -> pa.RecordBatch:
    """In place of `aligned`: a batch of which LanceDB would store all rows but one."""
    return batch.slice(1)


class TestLostRows:
    """LanceDB has reported commits as done that lacked rows."""

    def test_of_a_new_table_leave_none(self, db, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(table, "aligned", losing_a_row)
            with pytest.raises(StorageError, match=r"stored 9 of 10 rows; the table was removed again.*Repeat"):
                Index.create(db, "t", corpus(10), encoder=FakeEncoder())
        assert lancedb.connect(str(db)).list_tables().tables == ["t.codec"]
        encoder = FakeEncoder()
        assert built(Index.create(db, "t", corpus(10), encoder=encoder)).resumed == 10
        assert not encoder.encoded
        assert len(stored(db)) == 10

    @pytest.mark.parametrize("work", ["overwrite", "rebuild"])
    def test_of_a_replaced_table_bring_the_old_one_back(self, db, monkeypatch, work):
        index = Index.create(db, "t", corpus(10), encoder=FakeEncoder())
        before = stored(db)

        def write():
            if work == "rebuild":
                return index.rebuild(nbits=4)
            return built(Index.create(db, "t", corpus(6, "new"), encoder=FakeEncoder(), overwrite=True))

        with monkeypatch.context() as patch:
            patch.setattr(table, "aligned", losing_a_row)
            with pytest.raises(StorageError, match="the version before was put back"):
                write()
        assert stored(db).equals(before)
        assert write().resumed == len(stored(db))

    @pytest.mark.parametrize("work", ["add", "upsert"])
    def test_of_a_merge_are_put_back(self, db, monkeypatch, work):
        index = Index.create(db, "t", corpus(10), encoder=FakeEncoder())
        before = stored(db)
        documents = corpus(5, "new") if work == "add" else corpus(5, salt="new")
        with monkeypatch.context() as patch:
            patch.setattr(changes, "aligned", losing_a_row)
            with pytest.raises(StorageError, match=r"stored 4 of 5 rows.*the version before was put back"):
                getattr(index, work)(documents)
        assert stored(db).equals(before)
        report = getattr(index, work)(documents)
        assert (report.rows, report.resumed) == (5, 5)
        assert {d["id"]: d["text"] for d in documents}.items() <= texts_by_id(db).items()

    @pytest.mark.parametrize("work", ["create", "rebuild"])
    def test_are_noticed_after_an_interruption_too(self, db, monkeypatch, work):
        """The process ended after the commit, before its rows were counted."""
        index = None if work == "create" else Index.create(db, "t", corpus(10), encoder=FakeEncoder())

        def write():
            if index is not None:
                return index.rebuild(nbits=4)
            return built(Index.create(db, "t", corpus(10), encoder=FakeEncoder()))

        with monkeypatch.context() as patch:
            patch.setattr(table, "aligned", losing_a_row)
            patch.setattr(table, "check_made", after(0, check_made))
            patch.setattr(table, "drop_table", lambda *args: None)  # as after a kill
            with pytest.raises(KilledError):
                write()
        with pytest.raises(StorageError, match="stored 9 of 10 rows"):
            write()
        assert write().rows == 10
        assert len(stored(db)) == 10

    def test_of_a_staged_chunk_are_noticed_before_the_commit(self, db, monkeypatch):
        small_chunks(monkeypatch)

        def create(*args, **kwargs):
            next((db / "t.tansaku" / "build").glob("chunk-*1.arrow")).unlink()
            create_index_table(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(build, "create_index_table", create)
            with pytest.raises(StorageError, match="chunk"):
                Index.create(db, "t", corpus(10), encoder=FakeEncoder())
        assert len(Index.create(db, "t", corpus(10), encoder=FakeEncoder())) == 10

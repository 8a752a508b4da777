"""Row vectors and codes in a LanceDB table of the user's own."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import BTree, IvfFlat

from tansaku import Coder, CodesError, HostError, InputError
from tansaku.plugin.hosts.rows.conformance import RowStoreTests, random_rows, shared_coder
from tansaku.plugin.hosts.rows.lancedb import LanceRows

COLUMNS = {"year": pa.int64(), "note": pa.string()}


class TestLanceRows(RowStoreTests[LanceRows]):
    def make_store(self, coder, folder, **options):
        return LanceRows.create(coder, lancedb.connect(folder / "db"), "docs", columns=COLUMNS, **options)

    def year_is(self, year):
        return f"year = {year}"

    def reopen(self, store):
        return pickle.loads(pickle.dumps(store))

    def write_uncoded(self, store, records):
        store.table.add(
            pa.Table.from_pylist(records).cast(pa.schema([store.table.schema.field(n) for n in records[0]]))
        )

    def write_codes(self, store, row_id, codes):
        store.table.update(where=f"id = '{row_id}'", values={"tansaku_codes": codes})


@pytest.fixture(scope="module")
def coder():
    return shared_coder()


@pytest.fixture
def database(tmp_path):
    return lancedb.connect(tmp_path / "db")


@pytest.fixture
def store(coder, database):
    made = LanceRows.create(coder, database, "docs", columns=COLUMNS, fields=["year"])
    made.add(
        [{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}, {"id": "dog", "text": "犬は動物である。"}]
    )
    return made


class TestTablesOfTheUser:
    @pytest.fixture
    def articles(self, database):
        """With odd names, a column that a row of ours does not give, and whole numbers as ids."""
        rows = [
            {"No": 3, "見出し": "京都", "the text": "794年から都だった。", "when": dt.datetime(2020, 1, 1), "Key": "a"},
            {"No": 1, "見出し": None, "the text": "犬は嗅覚が鋭い動物である。", "when": None, "Key": "b"},
            {"No": 2, "見出し": None, "the text": "", "when": None, "Key": "c"},
        ]
        return database.create_table("articles", rows)

    OPTIONS: ClassVar = {"id_column": "No", "text_columns": ["見出し", "the text"], "fields": ["Key"]}

    def test_columns_are_added_and_filled(self, coder, articles):
        before = articles.to_arrow()
        store = LanceRows.adopt(coder, articles, **self.OPTIONS)
        assert store.count_without_codes() == 3
        report = store.fill(batch=2)
        assert (report.written, report.empty) == (2, 1)
        best = store.search("昔の首都はどこ？")[0]
        assert (best.id, best.text, best.fields) == (3, "京都 794年から都だった。", {"Key": "a"})
        assert articles.to_arrow().select(before.column_names).sort_by("No").equals(before.sort_by("No"))
        assert LanceRows.adopt(coder, articles, **self.OPTIONS).count_without_codes() == 1
        store.upsert([{"No": 3, "the text": "鯨は海に住む。"}, {"No": 1, "見出し": "鳥", "the text": "梟は夜に飛ぶ。"}])
        rows = {row["No"]: row for row in articles.to_arrow().to_pylist()}
        assert (rows[3]["見出し"], rows[3]["when"], rows[1]["見出し"]) == ("京都", dt.datetime(2020, 1, 1), "鳥")
        assert store.search("夜の鳥", where="`Key` = 'b'")[0].id == 1

    def test_ids_must_be_of_one_row(self, coder, database):
        for name, ids in (("twice", ["a", "a"]), ("nulls", ["a", None])):
            table = database.create_table(name, [{"id": row_id, "text": "文"} for row_id in ids])
            with pytest.raises(HostError, match=f"{name}.*'id' has nulls, or a value twice"):
                LanceRows.adopt(coder, table)
            assert table.schema.names == ["id", "text"]

    def test_ids_of_another_kind(self, coder, articles, store):
        rows = LanceRows.adopt(coder, articles, **self.OPTIONS)
        for work in (lambda: rows.delete(["a"]), lambda: rows.explain("犬", "a"), lambda: store.delete([5])):
            with pytest.raises(InputError, match=r"has (whole numbers|strings) as ids"):
                work()

    def test_codes_that_others_set_to_null(self, store):
        store.table.update(where="id = 'kyoto'", values={"tansaku_codes": None})
        hits = store.search("昔の首都はどこ？")
        assert ([hit.id for hit in hits], hits.uncoded) == (["dog", "kyoto"], 1)
        assert store.count_without_codes() == store.fill().written == 1
        assert store.search("昔の首都はどこ？")[0].id == "kyoto"


class TestWhatIsRefused:
    def test_tables(self, coder, database, store):
        def table(**columns):
            fields = {"id": pa.string(), "text": pa.string(), **columns}
            return database.create_table("other", schema=pa.schema(list(fields.items())), mode="overwrite")

        vector, codes = pa.list_(pa.float16(), coder.row_dim), pa.binary()
        for columns, said in (
            ({}, r"'other' has no column 'tansaku_vector'; LanceRows\.adopt"),
            ({"tansaku_vector": vector}, r"no column 'tansaku_codes'; LanceRows\.adopt"),
            ({"tansaku_vector": pa.list_(pa.float16(), 3), "tansaku_codes": codes}, r"3 dimensions.*row_dim=3"),
            ({"tansaku_vector": pa.list_(pa.float32()), "tansaku_codes": codes}, "of a fixed size"),
            ({"tansaku_vector": vector, "tansaku_codes": pa.string()}, "string, not binary"),
        ):
            made = table(**columns)
            with pytest.raises(HostError, match=said):
                LanceRows(coder, made)
        wrong: list[dict[str, Any]] = [{"id_column": "key"}, {"text_columns": ["body"]}, {"fields": ["when"]}]
        for options in wrong:
            with pytest.raises(HostError, match=r"'docs' has no column '(key|body|when)'; it has id, text"):
                LanceRows(coder, store.table, **options)
        with pytest.raises(InputError, match="'id' is double"):
            LanceRows.adopt(coder, table(id=pa.float64()))
        with pytest.raises(HostError, match=r"make the table 'docs'.*already exists"):
            LanceRows.create(coder, database, "docs")
        with pytest.raises(InputError, match="text_columns"):
            LanceRows.create(coder, database, "new", text_columns=[])
        with pytest.raises(InputError, match="open_table"):
            LanceRows(coder, "docs")  # pyright: ignore[reportArgumentType]

    def test_codes_of_another_codec(self, coder, store):
        codec = coder.codec
        other = Coder(coder.encoder, codec=dataclasses.replace(codec, centroids=codec.centroids[::-1].copy()))
        with pytest.raises(CodesError, match=f"'docs'.*{codec.codec_id}.*{other.codec_id}.*fill"):
            LanceRows(other, store.table)

    @pytest.mark.parametrize("where", ["year >=", "nobody = 1", "year = 'x'", "", "1"])
    def test_filters(self, store, where):
        for work in (lambda: store.search("犬", where=where), lambda: store.delete(where=where)):
            with pytest.raises(HostError, match=r"LanceDB cannot (search|delete from) 'docs': .*Invalid input"):
                work()
        assert store.count() == 2
        with pytest.raises(InputError, match="where"):
            store.search("犬", where={"year": 1})

    def test_records(self, store):
        with pytest.raises(InputError, match=r"row 'b': 'year' is 'x', not int64"):
            store.upsert([{"id": "a", "text": "文", "year": 1}, {"id": "b", "text": "文", "year": "x"}])
        with pytest.raises(InputError, match="no column 'yaer'; it has id, text, year"):
            store.upsert([{"id": "a", "text": "文", "yaer": 1}])
        assert store.count() == 2

    def test_a_table_that_is_gone(self, store, database):
        database.drop_table("docs")
        for work in (lambda: store.search("犬"), store.count, lambda: store.upsert([{"id": "a", "text": "文"}])):
            with pytest.raises(HostError, match="'docs'"):
                work()


class TestWriters:
    @pytest.mark.parametrize("wait", [True, False], ids=["threads", "as two processes"])
    @pytest.mark.parametrize("verb", ["upsert", "add"])
    def test_a_new_id_is_written_once(self, coder, database, monkeypatch, wait, verb):
        """By threads of one process; and by several processes, which do not wait for one another."""
        LanceRows.create(coder, database, "docs")
        if not wait:
            monkeypatch.setattr(LanceRows, "_lock", property(lambda store: contextlib.nullcontext()))
        stores = [LanceRows(coder, database.open_table("docs")) for _ in range(4)]
        begin = threading.Barrier(4)

        def work(store):
            begin.wait()
            with contextlib.suppress(InputError):
                getattr(store, verb)([{"id": "dog", "text": "犬"}, {"id": "cat", "text": "猫"}])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, stores))
        assert stores[0].count() == 2

    def test_an_index_over_the_ids(self, store):
        """With one, LanceDB's merge may find no row, above all where other columns come before the id."""
        store.table.create_index("id", config=BTree())
        store.table.optimize()
        store.upsert([{"id": "dog", "text": "鯨は海に住む。"}])
        assert store.search("海", k=1)[0].text == "鯨は海に住む。"
        assert store.count() == 2

    def test_it_can_be_pickled(self, store):
        again = pickle.loads(pickle.dumps(store))
        again.upsert([{"id": "whale", "text": "鯨は海に住む。"}])
        assert store.search("海", k=1)[0].id == "whale"

    def test_float32(self, coder, database):
        store = LanceRows.create(coder, database, "wide", float16=False)
        store.add([{"id": "dog", "text": "犬"}])
        assert store.table.schema.field("tansaku_vector").type.value_type == pa.float32()
        row = next(store.coded_rows())[0]
        np.testing.assert_array_equal(row.row_vector, coder.encode_documents(["犬"])[0].row_vector)


class TestIndexed:
    def test_a_search_with_an_index(self, coder, database):
        store = LanceRows.create(coder, database, "docs", columns=COLUMNS)
        store.write_coded(random_rows(coder, 400))
        with pytest.raises(InputError, match="distance_type='dot'"):
            store.create_index(IvfFlat(distance_type="l2"))
        store.create_index()
        store.write_coded([row._replace(id=f"new{row.id}") for row in random_rows(coder, 40)])
        found = store.search("京都", k=40, candidates=100)
        exact = store.search("京都", k=40, candidates=100, exact=True)
        assert (found.exact, exact.exact) == (False, True)
        assert len({hit.id for hit in found} & {hit.id for hit in exact}) >= 36
        few = store.search("京都", k=200, where="year = 1")
        assert {hit.id for hit in few} == {row["id"] for row in store.table.search().where("year = 1").to_list()}
        assert few.exact


def test_the_page(tmp_path, monkeypatch, capsys):
    """What docs/how-to/lancedb.md shows first runs as it is, twice."""
    page = (Path(__file__).parents[4] / "docs" / "how-to" / "lancedb.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(compile(code, "lancedb.md", "exec"), {})  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert printed[0].endswith("kyoto 京都 794年から都だった。 {'year': 794}")

"""Row vectors and codes in PostgreSQL with pgvector, on a server that is started here."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tansaku import Coder, CodesError, HostError, InputError, MissingExtraError
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, RowStoreTests, shared_coder
from tansaku.plugin.hosts.rows.postgres import PostgresRows
from tansaku.plugin.rows.row_store import CodedRow

from ....support import engines

pytestmark = pytest.mark.engine

COLUMNS = {"year": "integer", "note": "text"}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def place():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # a socket's path must be short
        try:
            server = engines.postgres(Path(name), programs=engines.pgvector_programs())
            opened = server.__enter__()
        except engines.NotInstalledError as error:
            pytest.skip(str(error))
        try:
            with psycopg.connect(opened) as connection:
                connection.execute("CREATE EXTENSION vector")
            yield opened
        finally:
            server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def pool(place):
    with ConnectionPool(place, min_size=1, max_size=8, open=True) as opened:
        yield opened


def run(place, statement, *values):
    """A statement as another program would run it; {} in it is a table's name, quoted."""
    with psycopg.connect(place) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def quoted(store):
    return '"' + store.table.replace("%", "%%") + '"'


class TestPostgresRows(RowStoreTests[PostgresRows]):
    @pytest.fixture(autouse=True)
    def _server(self, place, pool):
        self.place, self.pool = place, pool

    def make_store(self, coder, folder, **options):
        name = f"文書 {next(NUMBERS)}%"
        return PostgresRows.create(coder, self.pool.connection, name, columns=COLUMNS, **options)

    def year_is(self, year):
        return ("year = %(year)s", {"year": year})

    def reopen(self, store):
        return PostgresRows(store.coder, self.place, store.table, fields=store.fields)

    def write_uncoded(self, store, records):
        for record in records:
            statement = f"INSERT INTO {quoted(store)} (id, text, year, note) VALUES (%s, %s, %s, %s)"  # noqa: S608
            run(self.place, statement, *(record[name] for name in ("id", "text", "year", "note")))

    def write_codes(self, store, row_id, codes):
        run(self.place, f"UPDATE {quoted(store)} SET tansaku_codes = %s WHERE id = %s", codes, row_id)  # noqa: S608


@pytest.fixture
def table(place):
    """A table that the user has: whole numbers as ids, a column that must have a value, and one with a default."""
    name = f"articles{next(NUMBERS)}"
    run(
        place,
        f"CREATE TABLE {name} (number bigint PRIMARY KEY, title text NOT NULL, body text, seen int DEFAULT 7)",
    )
    for i, document in enumerate(DOCUMENTS):
        run(place, f"INSERT INTO {name} VALUES (%s, %s, %s)", i, document["id"], document["text"])  # noqa: S608
    return name


OF_TABLE: dict[str, Any] = {"id_column": "number", "text_columns": ["title", "body"], "fields": ["seen"]}


def of_table(**options: Any) -> dict[str, Any]:
    return OF_TABLE | options


def test_a_table_that_the_user_has(place, table):
    before = run(place, f"SELECT * FROM {table} ORDER BY number")  # noqa: S608
    store = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    assert store.count_without_codes() == len(DOCUMENTS)
    assert store.fill().written == len(DOCUMENTS)
    assert run(place, f"SELECT number, title, body, seen FROM {table} ORDER BY number") == before  # noqa: S608
    best = store.search("大仏はいつできた", where="number < 3 -- the first")[0]
    assert (best.id, best.text, best.fields) == (1, "nara 奈良の大仏は752年に開眼した。", {"seen": 7})
    again = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    assert again.count_without_codes() == 0
    indexes = run(place, "SELECT indexdef FROM pg_indexes WHERE tablename = %s", table)
    assert sum("USING hnsw (tansaku_vector halfvec_ip_ops)" in one for (one,) in indexes) == 1


def test_an_upsert_needs_only_the_columns_that_change(place, table):
    """The title must have a value, and has one."""
    store = PostgresRows.adopt(shared_coder(), place, table, **of_table(text_columns=["body"]))
    store.fill()
    store.upsert([{"number": 1, "body": "鯨は海に住む大きな哺乳類である。"}])
    assert run(place, f"SELECT title, seen FROM {table} WHERE number = 1") == [("nara", 7)]  # noqa: S608
    assert store.search("海の哺乳類", k=1)[0].id == 1
    with pytest.raises(InputError, match="title"):
        store.upsert([{"number": 2, "body": "雨"}, {"number": 100, "body": "鯨"}])
    assert store.search("海の哺乳類", k=5)[0].id == 1
    assert store.explain("犬", 2).text == DOCUMENTS[2]["text"]  # nothing of that batch


def test_ids_of_another_type(place):
    store = PostgresRows.create(shared_coder(), place, f"uuids{next(NUMBERS)}", id_type="uuid")
    first, second = "0b1ac1a4-5b6e-4cbd-a1ad-d0bb1f1ea000", "0b1ac1a4-5b6e-4cbd-a1ad-d0bb1f1ea001"
    store.add([{"id": first, "text": "犬"}, {"id": second, "text": "寺"}])
    assert store.search("寺", k=1)[0].id == second
    assert [row.id for rows in store.coded_rows(1) for row in rows] == [first, second]
    with pytest.raises(InputError, match=first):
        store.add([{"id": first, "text": "鯨"}])
    assert store.delete([second]) == 1
    with pytest.raises(InputError, match="uuid"):
        store.delete(["no uuid"])


def test_an_index_that_stops_early_is_scanned_until_there_are_enough(place):
    """As on a large table, where the planner takes the index."""
    forced = f"{place} options='-c enable_seqscan=off -c enable_sort=off'"
    store = PostgresRows.create(shared_coder(), forced, f"large{next(NUMBERS)}", columns=COLUMNS, candidates=60)
    near = np.random.default_rng(1).normal(size=(2000, store.coder.row_dim)).astype(np.float32) * 0.1 + 1
    near[-30:] *= -1  # the rows of the year 1 are the farthest of all
    codes = store.coder.encode_documents(["京都"])[0].codes
    rows = [CodedRow(f"{i:04}", v, codes, {"text": "京都", "year": int(i >= 1970)}) for i, v in enumerate(near)]
    store.write_coded(rows)
    query = f"'{[1] * store.coder.row_dim}'"
    for where, n in (("true", 60), ("year = 1", 30)):
        alone = f"SELECT id FROM {store.table} WHERE {where} ORDER BY tansaku_vector <#> {query} LIMIT {n}"  # noqa: S608
        assert len(run(forced, alone)) < n  # what the index gives by itself
        found = store._nearest(np.ones(store.coder.row_dim, np.float32), n, where, False)
        assert len({row.id for row in found}) == n
    assert {hit.id for hit in store.search("京都", 50, "year = 1")} == {row.id for row in rows[-30:]}
    exact = store._nearest(np.ones(store.coder.row_dim, np.float32), 60, None, True)
    expected = sorted(rows, key=lambda row: (-np.float16(row.row_vector).astype(float).sum(), row.id))[:60]
    assert [row.id for row in exact] == [row.id for row in expected]


def test_what_is_missing_is_said_with_what_makes_it(place, table):
    coder = shared_coder()
    with pytest.raises(HostError, match=r"no table 'none'.*PostgresRows.create"):
        PostgresRows(coder, place, "none")
    with pytest.raises(HostError, match=r"no column 'id'.*number, title, body, seen"):
        PostgresRows(coder, place, table)
    with pytest.raises(HostError, match=r"tansaku_vector.*PostgresRows.adopt"):
        PostgresRows(coder, place, table, **OF_TABLE)
    with pytest.raises(HostError, match="already exists"):
        PostgresRows.create(coder, place, table)
    run(place, f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
    with pytest.raises(HostError, match="unique index"):
        PostgresRows.adopt(coder, place, table, **OF_TABLE)
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE DATABASE plain")
    with pytest.raises(HostError, match="CREATE EXTENSION vector"):
        PostgresRows.create(coder, place.replace("dbname=postgres", "dbname=plain"), "docs")


def test_columns_of_other_types_are_refused(place, table):
    coder = shared_coder()
    run(place, f"ALTER TABLE {table} ADD tansaku_vector halfvec(3), ADD tansaku_codes bytea")
    with pytest.raises(InputError, match=rf"has 3 dimensions.*{coder.row_dim}"):
        PostgresRows(coder, place, table, **OF_TABLE)
    with pytest.raises(HostError, match=r"'body' is text; row vectors need"):
        PostgresRows(coder, place, table, **of_table(vector_column="body"))
    run(place, f"ALTER TABLE {table} DROP tansaku_vector, ADD tansaku_vector vector({coder.row_dim})")
    with pytest.raises(HostError, match=r"'body' is text; codes need bytea"):
        PostgresRows(coder, place, table, **of_table(codes_column="body"))
    store = PostgresRows(coder, place, table, **OF_TABLE)
    store.create_index()
    store.create_index()  # there is one
    store.fill()
    assert store.search("酢飯の料理", k=1)[0].id == 4


def test_codes_of_another_codec_are_found_when_a_table_is_opened(place):
    coder = shared_coder()
    other = Coder(coder.encoder, codec=dataclasses.replace(coder.codec, centroids=coder.codec.centroids[::-1].copy()))
    store = PostgresRows.create(other, place, f"others{next(NUMBERS)}")
    store.add([{"id": "a", "text": "京都"}])
    with pytest.raises(CodesError, match=rf"'a'.*{other.codec_id}.*{coder.codec_id}.*fill"):
        PostgresRows(coder, place, store.table)


def test_bad_conditions(place, table):
    store = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    store.fill()
    for where in ("no_such = 1", "number <", ("number = %(n)s", {}), "1; DROP TABLE x", "number = ("):
        with pytest.raises(HostError, match=table):
            store.search("犬", where=where)
    unusable: Any = ("", " ", 5, ("number = 1",), {"number": 1})
    for where in unusable:
        with pytest.raises(InputError, match="where is"):
            store.delete(where=where)
    assert store.count("title LIKE 'k%'") == 1
    assert store.count(("title LIKE 'k%%' AND number < %(n)s", {"n": 9})) == 1
    assert store.count() == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("record", "named"),
    [({"seen": "many"}, "many"), ({"sen": 1}, "no column 'sen'"), ({"title": "\0"}, "NUL"), ({"title": None}, "title")],
)
def test_a_batch_is_written_whole_or_not_at_all(place, table, record, named):
    store = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    good, bad = {"number": 50, "title": "鯨", "body": "海"}, {"number": 51, "title": "梟", "body": "夜", **record}
    for verb in (store.add, store.upsert):
        with pytest.raises(InputError, match=named):
            verb([good, bad])
    assert store.count() == len(DOCUMENTS)


def test_a_column_that_came_later_is_known(place, table):
    store = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    run(place, f"ALTER TABLE {table} ADD late int")
    assert store.add([{"number": 60, "title": "鯨", "body": "海", "late": 1}]).written == 1


def test_a_database_that_goes_down(place, table):
    with psycopg.connect(place) as connection:
        store = PostgresRows.adopt(shared_coder(), lambda: contextlib.nullcontext(connection), table, **OF_TABLE)
        run(place, "SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(HostError, match=table):
            store.search("犬")
        with pytest.raises(HostError, match=table):
            store.add([{"number": 50, "title": "鯨", "body": "海"}])


def test_no_message_has_the_password(place):
    for text in ("host=/nowhere password=geheim", "postgresql://u:geheim@[", "password=geheim nonsense"):
        with pytest.raises((HostError, InputError)) as caught:
            PostgresRows(shared_coder(), text, "docs", timeout=1)
        shown = "".join(traceback.format_exception(caught.value))
        assert "geheim" not in shown.replace(text, "")
        assert "geheim" not in str(caught.value)
    with pytest.raises(InputError, match=r"pool\.connection"):
        PostgresRows(shared_coder(), 5, "docs")  # type: ignore[arg-type]


def test_a_statement_that_takes_too_long_is_cut_off(place, table):
    store = PostgresRows.adopt(shared_coder(), place, table, timeout=0.2, **OF_TABLE)
    with pytest.raises(HostError, match="timeout"):
        store.count("pg_sleep(5) IS NOT NULL")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "tansaku.plugin.hosts.rows.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"tansaku\[postgres\]"):
        importlib.import_module("tansaku.plugin.hosts.rows.postgres")

"""Row vectors and codes in PostgreSQL with pgvector, on a server that is started here."""

from __future__ import annotations

import contextlib
import importlib
import pickle
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tansaku import HostError, InputError, MissingExtraError
from tansaku.plugin.hosts.rows.codes_file import CodesFile
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, shared_coder
from tansaku.plugin.hosts.rows.moving import StoredRows, to_file, to_rows
from tansaku.plugin.hosts.rows.numpy import NumpyRows
from tansaku.plugin.hosts.rows.places import made_rows, opened_rows, parse_place
from tansaku.plugin.hosts.rows.postgres import PostgresRows
from tansaku.plugin.rows.row_store import CodedRow

from ....support import engines
from .sql_tests import NUMBERS, OF_TABLE, SqlRowsTests, of_table, run_page

pytestmark = pytest.mark.engine


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
    """A statement as another program would run it."""
    with psycopg.connect(place) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


class TestPostgresRows(SqlRowsTests[PostgresRows]):
    kind = PostgresRows

    @pytest.fixture(autouse=True)
    def _server(self, place, pool):
        self.server, self.place = place, pool.connection

    def run(self, statement, *values):
        return run(self.server, statement.replace("%", "%%").replace("?", "%s"), *values)

    def parameter(self, name):
        return f"%({name})s"

    def reopen(self, store):
        return PostgresRows(store.coder, self.server, store.table, fields=store.fields)


@pytest.fixture
def table(place):
    """A table that the user has."""
    name = f"articles{next(NUMBERS)}"
    kinds = "number bigint PRIMARY KEY, title text NOT NULL, body text, seen int DEFAULT 7"
    run(place, f"CREATE TABLE {name} ({kinds})")
    for i, document in enumerate(DOCUMENTS):
        statement = f"INSERT INTO {name} VALUES (%s, %s, %s)"  # noqa: S608
        run(place, statement, i, document["id"], document["text"])
    return name


def test_an_index_is_made_once(place, table):
    for _ in range(2):
        PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE).create_index()
    indexes = run(place, "SELECT indexdef FROM pg_indexes WHERE tablename = %s", table)
    assert sum("USING hnsw (tansaku_vector halfvec_ip_ops)" in one for (one,) in indexes) == 1
    assert sum("IS NULL" in one for (one,) in indexes) == 1


def test_row_vectors_stay_in_the_rows_and_codes_do_not(place, table):
    storage = "SELECT attname, attstorage FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname LIKE 'tans%%'"
    PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    assert dict(run(place, storage, table)) == {"tansaku_vector": "m", "tansaku_codes": "e"}
    run(place, f"ALTER TABLE {table} DROP tansaku_codes, ALTER tansaku_vector SET STORAGE EXTERNAL")
    PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)  # the column that is there stays as it is
    assert dict(run(place, storage, table)) == {"tansaku_vector": "e", "tansaku_codes": "e"}


def test_the_index_is_searched_four_times_as_wide(place, table):
    store = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    store.fill()
    for candidates, width in ((10, 40), (200, 800), (1000, 1000)):
        where = ("current_setting('hnsw.ef_search')::int = %(width)s", {"width": width})
        assert store.search("犬", where=where, candidates=candidates).candidates == len(DOCUMENTS)


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
    """As on a large table, where the planner takes the index.

    Where the graph of the index has no way to the farthest rows, which chance decides, all are compared.
    """
    forced = f"{place} options='-c enable_seqscan=off -c enable_sort=off'"
    store = PostgresRows.create(shared_coder(), forced, f"large{next(NUMBERS)}", columns={"year": "int"}, candidates=60)
    near = np.random.default_rng(1).normal(size=(2000, store.coder.row_dim)).astype(np.float32) * 0.1 + 1
    near[-30:] *= -1  # the rows of the year 1 are the farthest of all
    codes = store.coder.encode_documents(["京都"])[0].codes
    rows = [CodedRow(f"{i:04}", v, codes, {"text": "京都", "year": int(i >= 1970)}) for i, v in enumerate(near)]
    store.write_coded(rows)
    query = f"'{[1] * store.coder.row_dim}'"
    for where, n in (("true", 60), ("year = 1", 30)):
        alone = f"SELECT id FROM {store.table} WHERE {where} ORDER BY tansaku_vector <#> {query} LIMIT {n}"  # noqa: S608
        assert len(run(forced, alone)) < n  # what the index gives by itself
        found = store._nearest_rows(np.ones(store.coder.row_dim, np.float32), n, where, False).rows
        assert len({row.id for row in found}) == n
    assert {hit.id for hit in store.search("京都", 50, "year = 1")} == {row.id for row in rows[-30:]}
    exact = store._nearest(np.ones(store.coder.row_dim, np.float32), 60, None, True)
    expected = sorted(rows, key=lambda row: (-np.float16(row.row_vector).astype(float).sum(), row.id))[:60]
    assert [row.id for row in exact] == [row.id for row in expected]


def test_fields_of_all_types_come_as_psycopg_reads_them(place):
    """Codes are read in binary where all fields can be; an enumeration cannot."""
    run(place, "CREATE TYPE mood AS ENUM ('glad', '悲しい')")
    kinds = {"price": "numeric(8, 2)", "at": "timestamp with time zone", "facts": "jsonb", "tags": "text[]"}
    row = {"price": "12.50", "at": "2026-12-01 00:00+00", "facts": '{"n": [1]}', "tags": "{x,y}", "mood": "悲しい"}
    read = ["price", "at", "facts", "tags"]
    made = PostgresRows.create(shared_coder(), place, f"kinds{next(NUMBERS)}", columns={**kinds, "mood": "mood"})
    made.add([{"id": "a", "text": "犬", **row}])
    found = [
        PostgresRows(shared_coder(), place, made.table, fields=fields).search("犬")[0].fields
        for fields in (read[:3], [*read, "mood"])
    ]
    assert found[1] == {**found[0], "tags": ["x", "y"], "mood": "悲しい"}
    assert (str(found[0]["price"]), found[0]["at"].year, found[0]["facts"]) == ("12.50", 2026, {"n": [1]})


def test_a_database_without_pgvector_is_said(place):
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("CREATE DATABASE plain")
    with pytest.raises(HostError, match="CREATE EXTENSION vector"):
        PostgresRows.create(shared_coder(), place.replace("dbname=postgres", "dbname=plain"), "docs")


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


def test_what_the_types_of_columns_refuse(place, table):
    store = PostgresRows.adopt(shared_coder(), place, table, **OF_TABLE)
    for given, named in (({"seen": "many"}, "many"), ({"title": "\0"}, "NUL"), ({"number": "eins"}, "eins")):
        with pytest.raises(InputError, match=named):
            store.upsert([{"number": 51, "title": "梟", "body": "夜", **given}])
    assert store.count(("title LIKE 'k%%' AND number < %(n)s", {"n": 9})) == 1


def test_a_database_that_goes_down(place, table):
    with psycopg.connect(place) as connection:
        store = PostgresRows.adopt(shared_coder(), lambda: contextlib.nullcontext(connection), table, **OF_TABLE)
        run(place, "SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(HostError, match=table):
            store.search("犬")
        with pytest.raises(HostError, match=table):
            store.add([{"number": 50, "title": "鯨", "body": "海"}])


class TestAConnectionString:
    """Connections are kept: a search that connects waits for the server to start a process."""

    @pytest.fixture
    def store(self, place, table):
        store = PostgresRows.adopt(shared_coder(), f"{place} application_name={table}", table, **OF_TABLE)
        store.fill()
        yield store
        store.close()

    @staticmethod
    def connections(place, store):
        """The server's processes that serve a store."""
        found = run(place, "SELECT pid FROM pg_stat_activity WHERE application_name = %s", store.table)
        return {pid for (pid,) in found}

    def test_one_connection_serves_one_call_after_another(self, place, store):
        first = self.connections(place, store)
        assert len(first) == 1
        for _ in range(3):
            store.search("犬")
        assert self.connections(place, store) == first

    def test_calls_at_the_same_time_have_one_each(self, place, store):
        with store._connection() as one, store._connection() as two:
            assert one is not two
            assert store.search("酢飯の料理", k=1)[0].id == 4
        assert len(self.connections(place, store)) == 3
        with contextlib.ExitStack() as opened:
            for _ in range(12):
                opened.enter_context(store._connection())
        assert len(store._kept._idle) == 8

    def test_one_that_the_server_closed_is_replaced(self, place, store):
        for pid in self.connections(place, store):
            run(place, "SELECT pg_terminate_backend(%s, 5000)", pid)
        assert store.search("酢飯の料理", k=1)[0].id == 4

    def test_one_that_was_left_in_a_transaction_is_closed(self, store):
        with store._connection() as connection:
            connection.execute("BEGIN")
        assert connection.closed
        assert store.count() == len(DOCUMENTS)

    def test_they_are_closed_with_the_store(self, store):
        idle = [*store._kept._idle]
        store.close()
        assert idle[0].closed
        assert store.count() == len(DOCUMENTS)  # it connects again
        idle = [*store._kept._idle]
        store._kept = store._connection = None
        assert idle[0].closed

    def test_a_fork_leaves_those_of_its_parent_open(self, store, monkeypatch):
        idle = [*store._kept._idle]
        monkeypatch.setattr("os.getpid", lambda: -1)
        assert store.count() == len(DOCUMENTS)
        assert not idle[0].closed
        store.close()
        monkeypatch.undo()
        assert not idle[0].closed
        idle[0].close()

    def test_another_process_may_use_a_store(self, store):
        other = pickle.loads(pickle.dumps(store))
        assert other.search("酢飯の料理", k=1)[0].id == 4
        other.close()


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


def test_the_page(place, capsys):
    """What the page shows first runs as it is, but for the place."""
    run_page("postgresql", {"dbname=shop": place})["pool"].close()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].endswith("kyoto 京都 794年から都だった。 {'year': 794}")


def test_rows_move_in_and_out(place, tmp_path):
    coder, columns = shared_coder(), {"text_columns": ["text"], "fields": ["year", "note"]}
    source = NumpyRows(coder, fields=["year", "note"])
    source.add(DOCUMENTS)
    target = parse_place(f"postgresql:{place}#Moved 文書")
    with contextlib.ExitStack() as opened:

        def make(kinds, id_type):
            return opened.enter_context(made_rows(target, coder, kinds, id_type, **columns))

        assert to_rows(StoredRows(source), make).written == len(DOCUMENTS)
    assert str(place) not in str(target)
    with opened_rows(target, coder, **columns) as store:
        report = to_file(StoredRows(store), tmp_path / "rows.parquet", coder)
    assert report.written == len(DOCUMENTS)
    moved = CodesFile(tmp_path / "rows.parquet", coder)
    read = {row.id: row for rows, _ in moved.rows(100, ["text", "year", "note"]) for row in rows}
    for rows in source.coded_rows():
        for row in rows:
            found = read[row.id]
            assert found.codes == row.codes
            assert np.allclose(found.row_vector, row.row_vector, rtol=1e-3, atol=1e-3)  # float16
            assert found.columns == {name: row.columns.get(name) for name in ("text", "year", "note")}

"""Row vectors and codes in a file of SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from multiprocessing import get_context

import pytest

from tansaku import HostError, InputError
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, shared_coder
from tansaku.plugin.hosts.rows.sqlite import SqliteRows

from .sql_tests import SqlRowsTests, run_page

pytestmark = pytest.mark.engine


def run(path, statement, *values):
    """A statement as another program would run it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


class TestSqliteRows(SqlRowsTests[SqliteRows]):
    kind = SqliteRows

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.place = tmp_path / "文書.db"

    def run(self, statement, *values):
        return run(self.place, statement, *values)


@pytest.fixture
def store(tmp_path):
    made = SqliteRows.create(shared_coder(), tmp_path / "a.db", "docs", timeout=0.5)
    made.add([{"id": document["id"], "text": document["text"]} for document in DOCUMENTS])
    return made


def test_no_file_is_made_by_opening_one(tmp_path):
    for make in (SqliteRows, SqliteRows.adopt):
        with pytest.raises(HostError, match=r"none\.db"):
            make(shared_coder(), tmp_path / "none.db", "docs")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HostError, match="no folder"):
        SqliteRows.create(shared_coder(), tmp_path / "no folder" / "a.db", "docs")
    with pytest.raises(InputError, match="NumpyRows"):
        SqliteRows.create(shared_coder(), ":memory:", "docs")
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(HostError, match=r"text\.db.*not a database"):
        SqliteRows(shared_coder(), tmp_path / "text.db", "docs")


def test_a_file_that_is_made_has_large_pages(store, tmp_path):
    """And one that is there stays as it is."""
    assert run(store.path, "PRAGMA page_size") == [(65536,)]
    run(tmp_path / "b.db", "CREATE TABLE other (id TEXT)")
    SqliteRows.create(shared_coder(), tmp_path / "b.db", "docs")
    assert run(tmp_path / "b.db", "PRAGMA page_size") == [(4096,)]


def test_row_vectors_of_another_length(store):
    run(store.path, "UPDATE docs SET tansaku_vector = zeroblob(12) WHERE id = 'dog'")
    with pytest.raises(HostError, match=r"'dog' is blob of 12 bytes"):
        store.search("犬", 1)
    assert store.search("京都", 1, "id = 'kyoto'")[0].id == "kyoto"
    run(store.path, "UPDATE docs SET tansaku_vector = 'text' WHERE id = 'dog'")
    with pytest.raises(HostError, match="'dog' is text of 4 bytes"):
        store.search("犬", 1)
    run(store.path, "UPDATE docs SET tansaku_vector = NULL WHERE id = 'dog'")
    assert store.fill().written == 1
    run(store.path, "UPDATE docs SET tansaku_vector = zeroblob(12)")
    with pytest.raises(InputError, match=rf"3 dimensions.*{store.coder.row_dim}"):
        SqliteRows(store.coder, store.path, "docs")


def test_values_that_sqlite_cannot_hold(store):
    run(store.path, "ALTER TABLE docs ADD COLUMN n INTEGER")
    for value in (2**70, ["a list"], object()):
        with pytest.raises(InputError):
            store.upsert([{"id": "a", "text": "文", "n": value}])
    with pytest.raises(InputError):
        store.count(("n = :n", {"n": 2**70}))
    assert store.count() == len(DOCUMENTS)


def test_another_writer_is_waited_for(store):
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.search("酢飯の料理", 1)[0].id == "sushi"
        with pytest.raises(HostError, match=r"docs.*locked"):
            store.delete(["sushi"])
        other.execute("COMMIT")
    assert store.delete(["sushi"]) == 1


def test_a_statement_that_takes_too_long_is_cut_off(store):
    endless = "id IN (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)"
    with pytest.raises(HostError, match=r"timeout=0\.5"):
        store.count(endless)


def test_rows_without_codes_are_found_by_an_index(store):
    plan = run(store.path, f"EXPLAIN QUERY PLAN SELECT count(*) FROM docs WHERE {store._lacks} AND true")  # noqa: S608
    assert "docs_tansaku_codes_missing" in plan[0][3]


def _search(store):
    return store.search("酢飯の料理", 1)[0].id


def test_another_process_may_use_a_store(store):
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(_search, [store]) == "sushi"


def test_the_page(tmp_path, monkeypatch, capsys):
    """What the page shows first runs as it is."""
    monkeypatch.chdir(tmp_path)
    run_page("sqlite")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].endswith("kyoto 京都 794年から都だった。 {'year': 794}")

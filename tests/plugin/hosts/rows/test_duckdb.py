"""Row vectors and codes in a file of DuckDB."""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys

import duckdb
import pytest

from tansaku import HostError, InputError, MissingExtraError
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, shared_coder
from tansaku.plugin.hosts.rows.duckdb import DuckdbRows

from .sql_tests import SqlRowsTests, run_page

pytestmark = pytest.mark.engine


class TestDuckdbRows(SqlRowsTests[DuckdbRows]):
    kind = DuckdbRows

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.place = tmp_path / "文書.duckdb"
        with duckdb.connect(self.place) as self.connection:  # keeps the file open, as an application would
            yield

    def run(self, statement, *values):
        with self.connection.cursor() as cursor:
            return cursor.execute(statement, values).fetchall()

    def parameter(self, name):
        return f"${name}"


@pytest.fixture
def store(tmp_path):
    made = DuckdbRows.create(shared_coder(), tmp_path / "a.duckdb", "docs")
    made.add([{"id": document["id"], "text": document["text"]} for document in DOCUMENTS])
    yield made
    made.close()


def test_no_file_is_made_by_opening_one(tmp_path):
    for make in (DuckdbRows, DuckdbRows.adopt):
        with pytest.raises(HostError, match=r"none\.duckdb.*create"):
            make(shared_coder(), tmp_path / "none.duckdb", "docs")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="give a file"):
        DuckdbRows(shared_coder(), "", "docs")
    (tmp_path / "text.duckdb").write_text("no database " * 1000)
    with pytest.raises(HostError, match=r"text\.duckdb"):
        DuckdbRows(shared_coder(), tmp_path / "text.duckdb", "docs")


def test_another_process_that_has_the_file_is_said(store):
    path = store._file
    store.close()
    with pytest.raises(HostError, match="docs"):
        store.search("犬")
    program = f"import duckdb, sys; c = duckdb.connect({path!r}); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(HostError, match="another process has the file open"):
            DuckdbRows(shared_coder(), path, "docs")
        other.stdin.close()
        other.wait()
    with contextlib.closing(DuckdbRows(shared_coder(), path, "docs")) as again:
        assert again.count() == len(DOCUMENTS)


def test_a_connection_of_the_application(store):
    with duckdb.connect(store._file) as connection:
        with contextlib.closing(DuckdbRows(shared_coder(), connection, "docs")) as other:
            assert other.search("酢飯の料理", 1)[0].id == "sushi"
        assert connection.execute("SELECT count(*) FROM docs").fetchall() == [(len(DOCUMENTS),)]
    with pytest.raises(HostError, match="connection"):
        DuckdbRows(shared_coder(), connection, "docs")


def test_a_database_in_memory():
    with contextlib.closing(DuckdbRows.create(shared_coder(), ":memory:", "docs", id_type="INTEGER")) as store:
        store.add([{"id": 1, "text": "犬"}, {"id": 2, "text": "寺"}])
        assert store.search("寺", 1)[0].id == 2
        with pytest.raises(InputError, match="'two' is none"):
            store.delete(["two"])


def test_columns_of_other_types_are_refused(store):
    with duckdb.connect(store._file) as connection:
        connection.execute("ALTER TABLE docs ADD COLUMN short FLOAT[3]")
    coder = store.coder
    with pytest.raises(InputError, match=rf"has 3 dimensions.*{coder.row_dim}"):
        DuckdbRows(coder, store._file, "docs", vector_column="short")
    with pytest.raises(HostError, match="'text' is VARCHAR; row vectors need"):
        DuckdbRows(coder, store._file, "docs", vector_column="text")
    with pytest.raises(HostError, match="'text' is VARCHAR; codes need BLOB"):
        DuckdbRows(coder, store._file, "docs", codes_column="text")


def test_values_that_duckdb_cannot_hold(store):
    with duckdb.connect(store._file) as connection:
        connection.execute("ALTER TABLE docs ADD COLUMN n INTEGER")
    for value in (2**70, "many", ["a list"], object(), 2**40):
        with pytest.raises(InputError):
            store.upsert([{"id": "a", "text": "文", "n": value}])
    with pytest.raises(InputError, match="'n' cannot be written"):
        store.upsert([{"id": "a", "text": "文", "n": 1}, {"id": "b", "text": "文", "n": "many"}])
    for value in (object(), "\ud800"):
        with pytest.raises((InputError, HostError)):
            store.count(("n = $n", {"n": value}))
    assert store.count() == len(DOCUMENTS)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "tansaku.plugin.hosts.rows.duckdb")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"tansaku\[duckdb\]"):
        importlib.import_module("tansaku.plugin.hosts.rows.duckdb")


def test_the_page(tmp_path, monkeypatch, capsys):
    """What the page shows first runs as it is."""
    monkeypatch.chdir(tmp_path)
    run_page("duckdb")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1
    assert printed[0].endswith("kyoto 京都 794年から都だった。 {'year': 794}")

"""The commands that move rows with codes: from an index through each database that needs no server, and back."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from tansaku import Coder, Searcher
from tansaku.plugin.hosts.rows.sqlite import SqliteRows

from .test_cli import TWO, succeeds, tansaku

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with an index `db`, table `t`, and its rows in `rows.parquet`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, TWO)), encoding="utf-8")
    succeeds("index", "docs.jsonl", "--db", "db", "--table", "t")
    assert "2 rows of 2 written to rows.parquet" in succeeds("export-codes", "index:db#t", "rows.parquet")
    return tmp_path


def fails(*command):
    ended = tansaku(*command)
    assert ended.returncode == 2, ended.stdout
    return " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("place", "package"),
    [
        ("sqlite:s.db#t", "sqlite3"),
        ("duckdb:d.db#t", "duckdb"),
        ("lance:rows#t", "lancedb"),
        ("qdrant:q#t", "qdrant_client"),
        ("milvus:m.db#t", "milvus_lite"),
        ("chroma:c#rows", "chromadb"),
    ],
)
def test_rows_come_back_as_they_were(folder, place, package):
    pytest.importorskip(package)
    pytest.importorskip(f"tansaku.plugin.hosts.rows.{place.partition(':')[0].replace('lance', 'lancedb')}")
    assert f"2 rows of 2 written to {place}" in succeeds("import-codes", "rows.parquet", place)
    assert "2 were there already" in succeeds("import-codes", "rows.parquet", place)
    assert "2 rows of 2 written" in succeeds("import-codes", "rows.parquet", place, "--existing", "replace")
    columns = ["--text-column", "title", "--text-column", "text", "--field", "year"]
    succeeds("export-codes", place, "back.parquet", *columns)
    wanted, found = (pq.read_table(name).sort_by("id") for name in ("rows.parquet", "back.parquet"))
    assert (
        found.select(wanted.column_names).drop_columns("tansaku_vector").equals(wanted.drop_columns("tansaku_vector"))
    )
    for one, two in zip(wanted["tansaku_vector"], found["tansaku_vector"], strict=True):
        assert one.as_py() == pytest.approx(two.as_py(), rel=1e-3, abs=1e-3)  # some databases keep half precision
    assert found.schema.metadata == wanted.schema.metadata


def test_a_table_of_the_users_own_gets_codes(folder):
    import sqlite3

    with sqlite3.connect("shop.db") as shop:
        shop.execute("CREATE TABLE goods (sku TEXT PRIMARY KEY, title TEXT, text TEXT, year INTEGER, price REAL)")
        shop.execute("INSERT INTO goods VALUES ('dog', '犬', '犬は嗅覚が鋭い。', 2001, 9.5)")
    succeeds("import-codes", "rows.parquet", "sqlite:shop.db#goods", "--id-column", "sku")
    store = SqliteRows(Coder(), "shop.db", "goods", id_column="sku", text_columns=["title", "text"], fields=["price"])
    hits = store.search("塩辛いのは？")
    assert [(hit.id, hit.fields["price"]) for hit in hits] == [("sea", None), ("dog", 9.5)]
    succeeds("export-codes", "sqlite:shop.db#goods", "goods.parquet", "--id-column", "sku", "--field", "price")
    assert pq.read_table("goods.parquet").column_names[:3] == ["id", "text", "price"]


def test_an_index_is_made_of_rows(folder):
    assert "2 rows of 2 written to index:db#back" in succeeds("import-codes", "rows.parquet", "index:db#back")
    assert Searcher.open("db", "back").search("塩辛いのは？", 1)[0].id == "sea"
    assert "exists" in fails("import-codes", "rows.parquet", "index:db#back")
    succeeds("import-codes", "rows.parquet", "index:db#back", "--existing", "replace")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["export-codes", "db", "a.parquet"], "'db': not known as a place of rows"),
        (["export-codes", "rows.parquet", "a.parquet"], "is a file already"),
        (["export-codes", "sqlite:none.db#t", "a.parquet"], "none.db"),
        (["export-codes", "index:db#none", "a.parquet"], "none"),
        (["export-codes", "index:db#t", "rows.parquet"], "rows.parquet exists already"),
        (["export-codes", "index:db#t", "a.parquet", "--field", "yaer"], "no column 'yaer'"),
        (["import-codes", "docs.jsonl", "sqlite:s.db#t"], "docs.jsonl: cannot be read"),
        (["import-codes", "rows.parquet", "a.parquet"], "is a file"),
        (["import-codes", "rows.parquet", "sqlite:no/folder/s.db#t"], "s.db"),
    ],
)
def test_what_cannot_be_moved_is_named(folder, command, said):
    assert said in fails(*command)

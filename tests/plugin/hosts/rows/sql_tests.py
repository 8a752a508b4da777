"""Tests of all SQL databases: tables that the user has, and what a database refuses."""

from __future__ import annotations

import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tansaku import Coder, CodesError, HostError, InputError
from tansaku.plugin.hosts.rows._sql_rows import SqlRows
from tansaku.plugin.hosts.rows.conformance import DOCUMENTS, RowStoreTests, shared_coder

NUMBERS = itertools.count()
OF_TABLE: dict[str, Any] = {"id_column": "number", "text_columns": ["title", "body"], "fields": ["seen"]}

Store = TypeVar("Store", bound=SqlRows)


def of_table(**options: Any) -> dict[str, Any]:
    """Options of the table `user_table`, with others."""
    return OF_TABLE | options


def run_page(name: str, given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the first code of a page of docs/how-to, with some texts replaced; the names that it makes."""
    page = (Path(__file__).parents[4] / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
    code, names = page.partition("```python\n")[2].partition("```")[0], {}
    for old, new in (given or {}).items():
        code = code.replace(old, new)
    exec(compile(code, f"{name}.md", "exec"), names)  # noqa: S102
    return names


class SqlRowsTests(RowStoreTests[Store]):
    """A subclass has a fixture that sets `place`: what a store's class takes before the table."""

    kind: Any  # the class of the stores
    place: Any

    @abstractmethod
    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """A statement as another program would run it; a value is a question mark."""

    def parameter(self, name: str) -> str:
        """A named parameter of a condition."""
        return f":{name}"

    def quoted(self, store: Store) -> str:
        return '"' + store.table.replace('"', '""') + '"'

    def make_store(self, coder, folder, **options):
        name = f"文書 {next(NUMBERS)}%"
        return self.kind.create(coder, self.place, name, columns={"year": "INTEGER", "note": "TEXT"}, **options)

    def adopt(self, table, **options) -> Store:
        return self.kind.adopt(shared_coder(), self.place, table, **options)

    def open(self, table, coder=None, **options) -> Store:
        return self.kind(coder or shared_coder(), self.place, table, **options)

    def open_columns(self, table) -> str:
        with pytest.raises(HostError) as caught:
            self.open(table)
        return str(caught.value)

    def year_is(self, year):
        return (f"year = {self.parameter('year')}", {"year": year})

    def reopen(self, store):
        return self.open(store.table, store.coder, fields=store.fields)

    def write_uncoded(self, store, records):
        for record in records:
            statement = f"INSERT INTO {self.quoted(store)} (id, text, year, note) VALUES (?, ?, ?, ?)"  # noqa: S608
            self.run(statement, *(record[name] for name in ("id", "text", "year", "note")))

    def write_codes(self, store, row_id, codes):
        self.run(f"UPDATE {self.quoted(store)} SET tansaku_codes = ? WHERE id = ?", codes, row_id)  # noqa: S608

    @pytest.fixture
    def table(self):
        """A table that the user has: whole numbers as ids, a column that must have a value, and one with a default."""
        name = f"articles{next(NUMBERS)}"
        kinds = (
            "number BIGINT PRIMARY KEY NOT NULL, title TEXT NOT NULL, body TEXT, seen INT DEFAULT 7 CHECK (seen > 0)"
        )
        self.run(f"CREATE TABLE {name} ({kinds})")
        for i, document in enumerate(DOCUMENTS):
            statement = f"INSERT INTO {name} (number, title, body) VALUES (?, ?, ?)"  # noqa: S608
            self.run(statement, i, document["id"], document["text"])
        return name

    def test_a_table_that_the_user_has(self, table):
        """Its columns stay as they were; adopting it again changes nothing."""
        columns = f"SELECT number, title, body, seen FROM {table} ORDER BY number"  # noqa: S608
        before = self.run(columns)
        store = self.adopt(table, **OF_TABLE)
        assert store.count_without_codes() == len(DOCUMENTS)
        assert store.search("大仏", k=2).uncoded == len(DOCUMENTS)
        assert store.fill(batch=2).written == len(DOCUMENTS)
        assert self.run(columns) == before
        best = store.search("大仏はいつできた", where="number < 3 -- the first")[0]
        assert (best.id, best.text, best.fields) == (1, "nara 奈良の大仏は752年に開眼した。", {"seen": 7})
        assert self.adopt(table, **OF_TABLE).count_without_codes() == 0
        store.write_coded([])

    def test_an_upsert_needs_only_the_columns_that_change(self, table):
        """The title must have a value, and has one."""
        store = self.adopt(table, **of_table(text_columns=["body"]))
        store.fill()
        store.upsert([{"number": 1, "body": "鯨は海に住む大きな哺乳類である。"}])
        assert self.run(f"SELECT title, seen FROM {table} WHERE number = 1") == [("nara", 7)]  # noqa: S608
        assert store.search("海の哺乳類", k=1)[0].id == 1
        with pytest.raises(InputError, match="title"):
            store.upsert([{"number": 2, "body": "雨"}, {"number": 100, "body": "鯨"}])
        assert store.explain("犬", 2).text == DOCUMENTS[2]["text"]  # nothing of that batch
        assert store.count() == len(DOCUMENTS)

    def test_what_is_missing_is_said_with_what_makes_it(self, table):
        """The table, a column, one of ours, and a unique id."""
        name = self.kind.__name__
        with pytest.raises(HostError, match=rf"no table 'none'.*{name}.create"):
            self.open("none")
        with pytest.raises(HostError, match=rf"no table 'none'.*{name}.create"):
            self.adopt("none")
        with pytest.raises(HostError, match=r"no column 'id'.*number, title, body, seen"):
            self.open(table)
        with pytest.raises(HostError, match=rf"tansaku_vector.*{name}.adopt"):
            self.open(table, **OF_TABLE)
        with pytest.raises(HostError, match="already exists"):
            self.kind.create(shared_coder(), self.place, table)
        with pytest.raises(HostError, match="unique index"):
            self.adopt(table, **of_table(id_column="seen"))
        assert "tansaku_codes" not in self.open_columns(table)  # what cannot be used is not changed
        with pytest.raises(InputError, match="columns has 'id'"):
            self.kind.create(shared_coder(), self.place, "new", columns={"id": "INT"})

    def test_a_row_without_an_id(self, table):
        """A unique index allows them."""
        self.run(f"ALTER TABLE {table} ADD COLUMN other TEXT")
        self.run(f"CREATE UNIQUE INDEX of_{table} ON {table} (other)")
        with pytest.raises(HostError, match="no 'other'"):
            self.adopt(table, **of_table(id_column="other"))
        self.run(f"UPDATE {table} SET other = title")  # noqa: S608
        store = self.adopt(table, **of_table(id_column="other"))
        assert store.fill().written == len(DOCUMENTS)
        assert store.search("大仏はいつできた", k=1)[0].id == "nara"

    def test_codes_of_another_codec_are_found_when_a_table_is_opened(self, tmp_path):
        """With what to do."""
        coder = shared_coder()
        codec = dataclasses.replace(coder.codec, centroids=coder.codec.centroids[::-1].copy())
        other = Coder(coder.encoder, codec=codec)
        store = self.make_store(other, tmp_path)
        store.add([{"id": "a", "text": "京都"}])
        with pytest.raises(CodesError, match=rf"'a'.*{other.codec_id}.*{coder.codec_id}.*fill"):
            self.open(store.table)
        self.write_codes(store, "a", b"TSKC damaged")  # a search says so; opening must not keep one from mending it
        assert self.open(store.table).upsert([{"id": "a", "text": "京都"}]).written == 1

    def test_bad_conditions(self, table):
        """Those that the database refuses, and those that are none."""
        store = self.adopt(table, **OF_TABLE)
        store.fill()
        n = self.parameter("n")
        for where in ("no_such = 1", "number <", (f"number = {n}", {}), "1=1; DROP TABLE x", "number = ("):
            with pytest.raises(HostError, match=table):
                store.search("犬", where=where)
        unusable: Any = ("", " ", 5, ("number = 1",), {"number": 1})
        for where in unusable:
            with pytest.raises(InputError, match="where is"):
                store.delete(where=where)
        assert store.count("title LIKE 'k%'") == 1
        assert store.count((f"title LIKE {n}", {"n": "k%"})) == 1
        assert store.count() == len(DOCUMENTS)

    @pytest.mark.parametrize(
        ("record", "named"), [({"seen": -1}, "seen"), ({"sen": 1}, "no column 'sen'"), ({"title": None}, "title")]
    )
    def test_a_batch_is_written_whole_or_not_at_all(self, table, record, named):
        """The second record is refused, and the first is not written."""
        store = self.adopt(table, **OF_TABLE)
        store.fill()
        good, bad = {"number": 50, "title": "鯨", "body": "海"}, {"number": 51, "title": "梟", "body": "夜", **record}
        for verb in (store.add, store.upsert):
            with pytest.raises(InputError, match=named):
                verb([good, bad])
        with pytest.raises(InputError, match=named):
            store.upsert([{**good, "number": 0}, bad])
        assert store.count() == len(DOCUMENTS)
        assert store.explain("京都", 0).text.startswith("kyoto")

    def test_documents_with_different_columns(self, table):
        """A column that one does not give has its default, not the value of another."""
        store = self.adopt(table, **OF_TABLE)
        some = [{"number": 50 + i, "title": "鯨", "body": "海", **({"seen": i} if i % 2 else {})} for i in range(4)]
        store.add(some)
        store.upsert([{"number": 50, "title": "梟", "seen": 9}, {"number": 51, "title": "梟"}])
        found = self.run(f"SELECT seen, body FROM {table} WHERE number >= 50 ORDER BY number")  # noqa: S608
        assert found == [(9, "海"), (1, "海"), (7, "海"), (3, "海")]

    def test_a_column_that_came_later_is_known(self, table):
        """The columns are read again."""
        store = self.adopt(table, **OF_TABLE)
        self.run(f"ALTER TABLE {table} ADD COLUMN late INT")
        assert store.add([{"number": 60, "title": "鯨", "body": "海", "late": 1}]).written == 1

"""Where a database is: one rule for all that take one, in Python, on the command line, over MCP and in hosts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tansaku import Index, InputError, Searcher, TableNotFoundError
from tansaku.indexer.table.database import connect, database_exists
from tansaku.plugin.cli.main import app
from tansaku.plugin.cli.serve import _indexes
from tansaku.plugin.hosts.haystack import TansakuDocumentStore
from tansaku.plugin.mcp.server import make_server

from ..support.fakes import FakeEncoder, corpus


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and a working folder in which nothing called ~ may appear."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    assert not list((tmp_path / "work").iterdir())


class TestATilde:
    @pytest.mark.parametrize("make", ["~/db", Path("~/db"), "~/db/"])
    @pytest.mark.parametrize("then", ["~/db", Path("~/db"), "whole"])
    def test_is_the_home_folder_for_writers_and_readers(self, home, make, then):
        db = home / "db" if then == "whole" else then
        Index.create(make, "t", corpus(3), encoder=FakeEncoder())
        assert (home / "db" / "t.lance").is_dir()
        assert database_exists(db)
        assert len(Index.open(db, "t", encoder=FakeEncoder())) == 3
        assert len(Searcher.open(db, "t", encoder=FakeEncoder())) == 3
        assert connect(db).uri == str(home / "db")

    def test_of_an_index_that_is_not_there_is_named_in_full(self, home):
        with pytest.raises(TableNotFoundError, match=f"database {home}/db: no such folder"):
            Searcher.open("~/db", "t", encoder=FakeEncoder())

    def test_within_a_path_is_a_character_like_others(self, home, tmp_path):
        place = tmp_path / "a~b" / "~"
        Index.create(place, "t", corpus(3), encoder=FakeEncoder())
        assert len(Index.open(str(place), "t", encoder=FakeEncoder())) == 3

    @pytest.mark.parametrize("db", ["~", "~/db", Path("~/db")])
    def test_without_a_home_folder_is_refused(self, home, monkeypatch, db):
        monkeypatch.setattr(os.path, "expanduser", str)  # as where neither HOME nor the user is known
        for call in (lambda: connect(db, create=True), lambda: connect(db), lambda: database_exists(db)):
            with pytest.raises(InputError, match="no home folder is known; set HOME"):
                call()

    @pytest.mark.integration
    def test_is_the_same_for_commands_services_and_hosts(self, home, tmp_path, default_encoder):
        source = tmp_path / "docs.jsonl"
        source.write_text(json.dumps({"id": "a", "text": "京都の寺"}), encoding="utf-8")
        commands = (
            ["index", str(source), "--db=~/db"],
            ["search", "京都", "--db=~/db"],
            ["info", "--db=~/db"],
            ["optimize", "--db=~/db"],
            ["delete", "--id", "b", "--db=~/db"],
        )
        for command in commands:
            result = CliRunner().invoke(app, [*command, "--table", "t"], catch_exceptions=False)
            assert result.exit_code == 0, result.output
        assert (home / "db" / "t.lance").is_dir()
        make_server("~/db", ["t"], encoder=default_encoder)
        assert TansakuDocumentStore("~/db", "t").count_documents() == 1
        for db, table in _indexes(None, None, ["x=~/db/t"]).values():
            assert len(Searcher.open(db, table, encoder=default_encoder)) == 1


@pytest.mark.parametrize("uri", ["s3://bucket/db", "gs://bucket/db", "memory://x"])
def test_a_uri_as_a_path_is_refused(uri):
    with pytest.raises(InputError, match="give it as a string"):
        connect(Path(uri))

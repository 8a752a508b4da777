"""Options: the same in Python, on the command line, over HTTP and over MCP; and every one has a plain help text."""

from __future__ import annotations

import dataclasses
import inspect
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from mcp import Client
from typer.testing import CliRunner

from tansaku import BundleError, Index, InputError, Searcher, SearchOptions, create_app, read_bundle
from tansaku.plugin.cli.hits import HitFormat
from tansaku.plugin.cli.main import app
from tansaku.plugin.cli.search import read_for
from tansaku.plugin.mcp.server import make_server
from tansaku.plugin.serving.ports import check_port

from ...support.fakes import FakeEncoder, corpus

COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]
WITH_DB = ("search", "index", "info", "check", "delete", "optimize", "rebuild", "serve", "mcp", "evaluate")
ENCODING = ("index", "rebuild", "search", "evaluate", "beir", "serve", "mcp")
OPTIONS = {field.name: field.default for field in dataclasses.fields(SearchOptions)}


def of_command(name: str) -> dict[str, Any]:
    return {param.name: param.default for param in COMMANDS[name].params}


def of_searcher() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(Searcher.search).parameters.items()}


def of_http() -> dict[str, Any]:
    fields = create_app().openapi()["components"]["schemas"]["SearchRequest"]["properties"]
    return {name: field.get("default") for name, field in fields.items()}


@pytest.mark.parametrize(
    "defaults",
    [of_searcher, lambda: of_command("search"), lambda: of_command("evaluate"), of_http],
    ids=["Searcher.search", "tansaku search", "tansaku evaluate", "POST /search"],
)
def test_every_search_option_is_there_with_the_same_default(defaults: Callable[[], dict[str, Any]]):
    found = defaults()
    expected = {name: value for name, value in OPTIONS.items() if name != "fields" or "query" in found}
    assert {name: found.get(name, "absent") for name in expected} == expected


async def test_the_tool_for_agents_has_every_search_option_with_the_same_default(tmp_path: Path):
    encoder = FakeEncoder()
    Index.create(tmp_path, "docs", corpus(3), encoder=encoder)
    async with Client(make_server(tmp_path, ["docs"], encoder=encoder)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    fields = tools["search"].input_schema["properties"]
    assert {name: fields.get(name, {"default": "absent"}).get("default") for name in OPTIONS} == OPTIONS


@pytest.mark.parametrize(
    ("form", "named", "read"),
    [
        ("text", None, ["title", "text"]),
        ("text", ["year", "title", "snippet"], ["title", "text", "year"]),
        ("json", None, None),
        ("jsonl", ["year", "snippet"], ["year"]),
        ("jsonl", [], []),
        ("tsv", None, ["title", "text"]),
        ("tsv", ["text"], ["text"]),
    ],
)
def test_a_search_reads_what_it_shows(form: HitFormat, named: list[str] | None, read: list[str] | None):
    assert read_for(form, named) == read


@pytest.mark.parametrize("name", WITH_DB)
def test_every_command_with_a_database_takes_storage_options(name: str):
    assert "--storage-option" in {option for param in COMMANDS[name].params for option in param.opts}


@pytest.mark.parametrize("name", ENCODING)
def test_every_command_that_encodes_takes_threads(name: str):
    assert "--threads" in {option for param in COMMANDS[name].params for option in param.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text_that_is_a_sentence(name: str):
    for param in COMMANDS[name].params:
        text = param.help
        assert text, f"{name}: {param.opts} has no help text"
        assert text[0].isupper(), f"{name}: {param.opts}: {text!r} does not begin with a capital letter"
        assert text.endswith("."), f"{name}: {param.opts}: {text!r} does not end with a period"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_summary_of_one_sentence_and_an_example(name: str):
    summary, *rest = inspect.cleandoc(COMMANDS[name].help).split("\n\n")
    assert summary.endswith(".")
    assert rest[-1].startswith(f"Example: `tansaku {name}")


def test_every_command_is_in_a_group():
    assert all(isinstance(command.rich_help_panel, str) for command in COMMANDS.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index"], "Missing: SOURCE, --db, --table."),
        (["search", "犬"], "Missing: --db, --table."),
        (["search", "犬", "--db", "x"], "Missing option '--table'"),
    ],
)
def test_all_that_is_missing_is_named_at_once(arguments: list[str], said: str):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_a_model_on_the_hub_or_a_checkpoint_is_told_to_be_exported_first(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    for model in ("owner/name", str(tmp_path / "checkpoint")):
        with pytest.raises(BundleError, match=f"`tansaku export {model} FOLDER`"):
            read_bundle(Path(model))


def test_a_port_in_use_is_said_with_the_option_that_changes_it(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use.* by --http"):
            check_port("127.0.0.1", port, "--http")
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        with pytest.raises(InputError, match=f"port {port} of name is in use"):
            check_port("name", port)
        monkeypatch.undo()
    check_port("127.0.0.1", 0)
    with pytest.raises(InputError, match=r"cannot listen there.*--host"):
        check_port("192.0.2.1", 8000)

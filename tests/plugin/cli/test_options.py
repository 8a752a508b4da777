"""Options: the same in Python, on the command line, over HTTP and over MCP; and every one has a plain help text."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from mcp import Client

from tansaku import Index, Searcher, SearchOptions, create_app
from tansaku.plugin.cli.main import app
from tansaku.plugin.mcp.server import make_server

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
    assert {name: found.get(name, "absent") for name in OPTIONS} == OPTIONS


async def test_the_tool_for_agents_has_every_search_option_with_the_same_default(tmp_path: Path):
    encoder = FakeEncoder()
    Index.create(tmp_path, "docs", corpus(3), encoder=encoder)
    async with Client(make_server(tmp_path, ["docs"], encoder=encoder)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    fields = tools["search"].input_schema["properties"]
    assert {name: fields.get(name, {"default": "absent"}).get("default") for name in OPTIONS} == OPTIONS


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

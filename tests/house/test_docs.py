"""The recipe pages: all are listed, their links lead somewhere, and their command lines are ones that tansaku has."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer.main

from tansaku.plugin.cli.main import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "how-to"
INDEX = DOCS / "index.md"
PAGES = sorted(path for path in DOCS.glob("*.md") if path != INDEX)
WITH_COMMANDS = [ROOT / "README.md", INDEX, *PAGES]
SHAPES = {"reranks its candidates", "is its retriever", "speaks its API", "trains models"}
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]

of_each_page = pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> list[str]:
    """Code blocks in one of these languages."""
    fenced = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in fenced if language in languages]


def links(page: Path) -> list[str]:
    """Where links and pictures lead; code has none."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`(?!\])", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(<?([^)\s>]+)", text)


def anchors(page: Path) -> set[str]:
    """What stands behind # in links to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows() -> list[list[str]]:
    """The cells of the index's first table, without its head."""
    table = next(part for part in INDEX.read_text(encoding="utf-8").split("\n\n") if part.startswith("|"))
    lines = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def complete_lines(script: str) -> Iterator[str]:
    """Lines of a shell script; those that a quoted text joins are one."""
    whole = ""
    for line in script.splitlines():
        whole += re.sub(r"(^|\s)#\s.*", "", line)
        if whole.count("'") % 2 == 0:
            yield whole
            whole = ""
    assert not whole, f"a quoted text does not end: {whole}"


def commands(script: str) -> list[list[str]]:
    """The arguments of each call of tansaku in a shell script, also behind another command on the same line."""
    found: list[list[str]] = []
    for line in complete_lines(script.replace("\\\n", " ")):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        arguments: list[str] | None = None
        for word in lexer:
            if re.fullmatch(r"[();<>|&]+", word):
                arguments = None
            elif arguments is not None:
                arguments.append(word)
            elif word == "tansaku":
                arguments = []
                found.append(arguments)
    return found


def configured(config: object) -> list[list[str]]:
    """The arguments of each server in an agent's configuration that is tansaku."""
    if not isinstance(config, dict):
        return []
    if config.get("command") == "tansaku":
        return [config["args"]]
    return [arguments for value in config.values() for arguments in configured(value)]


def parsed(arguments: list[str]) -> None:
    """Raises what typer raises for a command, option or value that tansaku has not."""
    name, *others = arguments
    assert name in COMMANDS, f"there is no command {name!r}"
    try:
        COMMANDS[name].make_context(name, others)
    except Exception as error:
        if type(error).__name__ != "Exit":  # of --help
            message = getattr(error, "format_message", None)
            said = message() if message else repr(error)
            raise AssertionError(said) from error


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("tansaku demo\n# tansaku is\necho tansaku-x", [["demo"]]),
        ("cat a | tansaku index - \\\n  --db ./db # new", [["index", "-", "--db", "./db"]]),
        ("A=1 tansaku serve --port 1 > log &\nclaude mcp add t -- tansaku mcp", [["serve", "--port", "1"], ["mcp"]]),
        ("tansaku search '金閣 --寺' && tansaku demo", [["search", "金閣 --寺"], ["demo"]]),
        ("pip install 'tansaku[mcp]'", []),
    ],
)
def test_commands_are_found_in_a_script(script: str, expected: list[list[str]]):
    assert commands(script) == expected


@pytest.mark.parametrize(
    ("line", "offender"),
    [
        ("serch x --db d --table t", "serch"),
        ("search x --db d --tabel t", "--tabel"),
        ("search x --table t", "db"),
        ("search x --db d --table t -k many", "-k"),
        ("search x y --db d --table t", "y"),
    ],
)
def test_a_command_line_that_is_wrong_is_seen(line: str, offender: str):
    with pytest.raises(AssertionError, match=offender):
        parsed(line.split())


def test_every_page_is_listed_once():
    listed = [target for row in rows() for target in re.findall(r"\]\(([^)]+)\)", row[2])]
    assert sorted(listed) == sorted(page.name for page in PAGES)


def test_every_row_says_shape_and_test():
    for cells in rows():
        assert len(cells) == 4, cells
        assert set(cells[1].split(", ")) <= SHAPES, cells
        assert re.match(r"(real: |recorded\b)", cells[3]), cells


@of_each_page
def test_links_to_files_lead_somewhere(page: Path):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leads out of the repository"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}: {link}: there is no such heading"


@of_each_page
def test_command_lines_are_understood(page: Path):
    lines = [arguments for script in blocks(page, "sh", "bash", "console") for arguments in commands(script)]
    lines += [
        arguments for code in blocks(page, "json") if '"command"' in code for arguments in configured(json.loads(code))
    ]
    lines += [arguments for code in blocks(page, "toml") for arguments in configured(tomllib.loads(code))]
    for arguments in lines:
        try:
            parsed(arguments)
        except AssertionError as error:
            pytest.fail(f"{page.name}: tansaku {shlex.join(arguments)}: {error}")

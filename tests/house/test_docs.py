"""The pages: links lead somewhere, commands and imports are real ones, and the reference names what is public."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import typer.main

import tansaku
from tansaku import Index, InputError, SearchOptions
from tansaku.plugin.cli.main import app

pytestmark = pytest.mark.integration

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
HOW_TO = DOCS / "how-to"
INDEX = HOW_TO / "index.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted({*ROOT.glob("README*.md"), *DOCS.rglob("*.md")} - set((DOCS / "textlint").rglob("*")))
SHAPES = {
    "keeps codes in its rows",
    "reranks its candidates",
    "is its retriever",
    "speaks its API",
    "measures models",
}
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]

of_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@functools.cache
def generated() -> ModuleType:
    """The module that writes parts of pages from the code."""
    spec = importlib.util.spec_from_file_location("generated", DOCS / "site" / "generated.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, *languages: str) -> list[str]:
    """Code blocks in one of these languages."""
    fenced = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in fenced if language in languages]


def links(page: Path) -> list[str]:
    """Where links and pictures lead; code has none."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`(?!\])", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(<?([^)\s>]+)", text)


def anchors(page: Path) -> set[str]:
    """What stands behind # in links to a page's headings, and to the names that its HTML gives places."""
    text = generated().fill(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    named = re.findall(r'<a id="([^"]+)"></a>', text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(named)


def rows(page: Path, table: int) -> list[list[str]]:
    """The cells of a page's table, without its head."""
    tables = [part for part in page.read_text(encoding="utf-8").split("\n\n") if part.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[table].splitlines()[2:]]


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


@pytest.mark.parametrize("name", ["index.md", "index.ja.md"])
def test_every_how_to_page_is_listed_once(name: str):
    tasks, stacks = rows(HOW_TO / name, 0), rows(HOW_TO / name, 1)
    cells = [*(row[1] for row in tasks), *(row[2] for row in stacks)]
    listed = [target for cell in cells for target in re.findall(r"\]\(([^)]+)\)", cell)]
    pages = {
        path.name for path in HOW_TO.glob("*.md") if not path.name.startswith("index.") and ".ja." not in path.name
    }
    assert {target.replace(".ja.", ".") for target in listed} == pages
    assert len(listed) <= len(pages) + 1, "evaluation.md may stand in both tables, others in one"


def test_every_stack_has_a_shape_and_a_test():
    for cells in rows(INDEX, 1):
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
        if anchor and target.suffix == ".md" and not anchor.startswith("tansaku."):  # mkdocs sees to those
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


@of_each_page
def test_python_imports_public_names_only(page: Path):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code.replace("…", "None"))):
            if isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if alias.name.startswith("tansaku.")], page.name
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tansaku":
                assert node.module == "tansaku" or str(node.module).startswith("tansaku.plugin.hosts."), node.module
                for alias in node.names:
                    if node.module == "tansaku":
                        assert alias.name in dir(tansaku), f"{page.name}: tansaku.{alias.name} does not exist"


def test_the_table_of_search_options_is_complete():
    listed = {re.sub("`", "", cells[0]): cells[2] for cells in rows(HOW_TO / "search.md", 0)}
    options = {field.name: field.default for field in dataclasses.fields(SearchOptions)}
    assert listed.keys() == options.keys()
    for name, default in options.items():
        if default is not None:
            assert listed[name] in (f"{default:g}" if isinstance(default, float) else str(default), f'`"{default}"`'), (
                name
            )


def test_every_page_is_in_the_navigation_once():
    """MkDocs allows pages that no menu leads to."""
    (nav,) = re.findall(
        r"^nav:\n(.*)", (DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    listed = re.findall(r"[\w/-]+\.md", nav)
    pages = [str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS) and ".ja." not in page.name]
    assert sorted(listed) == pages


@of_each_page
def test_pages_are_whole_where_they_lie(page: Path):
    """A mark that the site would replace with a file's content stays a mark on GitHub, and formatters break it."""
    assert not re.search(r"8 ?< ?--", page.read_text(encoding="utf-8"))


@of_each_page
def test_extras_are_added_to_what_is_installed(page: Path):
    """The same command as in the message of MissingExtraError; `pip install .` comes first, in the quick start."""
    extras = PROJECT["optional-dependencies"]
    for extra_names in re.findall(r"pip install [\"'](?!markitdown)\S*?\[(.*?)\]", page.read_text(encoding="utf-8")):
        assert f"pip install 'tansaku[{extra_names}]'" in page.read_text(encoding="utf-8")
        assert set(extra_names.split(",")) - {"NAME"} <= set(extras)


@pytest.mark.parametrize("name", ["README.md", "README.ja.md", "docs/quickstart.md", "docs/quickstart.ja.md"])
def test_every_extra_of_a_host_is_listed(name: str):
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "plugin" / "hosts").rglob("*.py"))
    extras = {extra for text in sources for extra in re.findall(r'MissingExtraError\("[^"]+", "([^"]+)"\)', text)}
    assert {"qdrant", "langchain"} <= extras <= set(PROJECT["optional-dependencies"])
    tables = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    listed = set(re.findall(r"`([\w-]+)`", "\n".join(tables)))
    assert extras <= listed, f"{name} does not list {sorted(extras - listed)}"


@pytest.mark.parametrize("suffix", ["", ".ja"])
def test_pages_to_begin_with_do_not_make_the_same_table(suffix: str):
    """Whoever follows one page after the other in one folder meets no table that exists already."""
    made: list[str] = []
    for page in (ROOT / f"README{suffix}.md", DOCS / f"quickstart{suffix}.md", DOCS / f"tutorial{suffix}.md"):
        for code in blocks(page, "python"):
            assert code.count("Index.create(") == code.count("overwrite=True"), "it must be possible to run it again"
            made += re.findall(r'Index\.create\("db", "(\w+)"', code)
        for arguments in (arguments for script in blocks(page, "sh") for arguments in commands(script)):
            if arguments[0] == "index" and "--mode" not in arguments:
                made.append(arguments[arguments.index("--table") + 1])
    assert len(made) == 5
    assert len(set(made)) == 5, made


def test_python_of_pages_may_be_run_twice_and_makes_a_table_of_its_own():
    made: dict[str, Path] = {}
    for page in (page for page in PAGES if ".ja." not in page.name):
        for code in blocks(page, "python"):
            for call in re.findall(r"Index\.create\((.*?)\)$", code, flags=re.DOTALL | re.MULTILINE):
                (table,) = re.findall(r'^\s*"db", "(\w+)"', call)
                assert "overwrite=True" in call, f"{page.name}: {table}"
                assert made.setdefault(table, page) == page, f"{page.name} and {made[table].name} make {table}"
    assert len(made) >= 6


@pytest.mark.parametrize("name", ["quickstart.md", "quickstart.ja.md"])
def test_the_quick_start_has_the_example_itself(name: str):
    (code,) = blocks(DOCS / name, "python")
    assert (DOCS / "examples" / "index_and_search.py").read_text(encoding="utf-8").endswith(f'"""\n\n{code}')


def test_the_quick_start_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With the record that it shows, and with no more than what it calls required."""
    monkeypatch.chdir(tmp_path)
    page = DOCS / "quickstart.md"
    (record,) = blocks(page, "json")
    made, searched = [arguments for script in blocks(page, "sh") for arguments in commands(script)]
    Path("docs.jsonl").write_text(record, encoding="utf-8")
    for arguments in (made, searched):
        COMMANDS[arguments[0]].main(arguments[1:], standalone_mode=False)
    assert "kinkaku" in capsys.readouterr().out
    assert "`text` and `id` (or `_id`) are required." in page.read_text(encoding="utf-8")
    whole = json.loads(record)
    Index.create("db", "least", [{"id": whole["id"], "text": whole["text"]}])
    for missing in ("id", "text"):
        with pytest.raises(InputError, match=f"no field '{missing}'"):
            Index.create("db", "less", [{name: value for name, value in whole.items() if name != missing}])


@pytest.mark.parametrize(
    "name",
    [
        "how-to/own-files.md",
        "how-to/own-vectors.md",
        "how-to/moving.md",
        "how-to/shards.md",
        "how-to/search.md",
        "how-to/living-index.md",
        "how-to/notebook.md",
    ],
)
def test_python_of_these_pages_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks(DOCS / name, "python"):
        exec(compile(code, name, "exec"), names)  # noqa: S102


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.ja.md")), ids=lambda path: path.name)
def test_japanese_pages_have_the_same_code(page: Path):
    def code(path: Path) -> list[str]:
        return [re.sub(r"(^|\s+)# .*", "", block) for block in blocks(path, "sh", "python", "json")]

    assert code(page) == code(page.with_name(page.name.replace(".ja.", ".")))


@pytest.mark.parametrize("page", sorted({ROOT / "README.ja.md", *DOCS.rglob("*.ja.md")}), ids=lambda path: path.name)
def test_japanese_pages_link_to_japanese_ones(page: Path):
    for link in links(page):
        target = page.parent / unquote(link).partition("#")[0]
        if page.name == "README.ja.md" and target.name == "README.md":
            continue  # the way to the English page
        assert target.name.endswith(".ja.md") or not target.with_suffix(".ja.md").exists(), link


def test_the_reference_documents_what_is_public():
    pages = [generated().fill(path.read_text(encoding="utf-8")) for path in (DOCS / "reference" / "api").glob("*.md")]
    documented = [name for page in pages for name in re.findall(r"^::: tansaku\.(\w+)$", page, flags=re.MULTILINE)]
    assert sorted(documented) == sorted({*dir(tansaku)} - {"__version__"})


def test_the_reference_documents_every_store_of_rows():
    folder = ROOT / "plugin" / "hosts" / "rows"
    page = (DOCS / "reference" / "api" / "row-stores.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: tansaku\.plugin\.hosts\.rows\.(\w+\.\w+Rows)$", page, flags=re.MULTILINE)
    written = {
        f"{path.stem}.{found.name}"
        for path in folder.glob("[!_]*.py")
        for found in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(found, ast.ClassDef) and found.name.endswith("Rows") and not found.name.startswith("_")
    }
    assert set(documented) == written - {"moving.StoredRows", "moving.FileRows", "moving.IndexRows"}


def test_generated_parts_name_commands_paths_and_errors():
    parts = {name: write() for name, write in generated().PARTS.items()}
    shown = {name for name, command in COMMANDS.items() if not command.hidden}
    assert set(re.findall(r"^## tansaku ([\w-]+)$", parts["command line"], flags=re.MULTILINE)) == shown
    assert re.search(r"^\| `--recall` .*`fast` `balanced` `exact` `0.9..1`", parts["command line"], flags=re.MULTILINE)
    assert "### POST /search" in parts["http"]
    assert "    - `InputError`\n        - `ConfigError`" in parts["errors"]

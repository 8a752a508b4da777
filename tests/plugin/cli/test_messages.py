"""Help and messages in Japanese, where the locale is Japanese."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

import tansaku.plugin.cli.display as display_module
from tansaku.plugin.cli import messages
from tansaku.plugin.cli.main import app

click_error: Any = typer.BadParameter.__mro__[1]
FOLDER = messages.LOCALE / "ja" / "LC_MESSAGES"
ENTRIES = read_po(io.BytesIO((FOLDER / "tansaku.po").read_bytes()))
CATALOGUE = {str(entry.id): str(entry.string) for entry in ENTRIES if entry.id}
SOURCES = Path(display_module.__file__).resolve().parents[2]
FOLDERS = ("onnx_export", "indexer", "plugin", "training")
# What typer says, and not the sources of tansaku.
OF_TYPER = {
    "Show this message and exit.", "Arguments", "Options", "Commands", "Error", "Aborted.", "[required]",
    "[default: {}]", "[env var: {}]", "(deprecated) ", "Missing command.",
    "Try [blue]'{command_path} {help_option}'[/] for help.",
    "No such option: {0}", "No such option: {0} (Possible options: {1})", "No such command {name!r}.",
    "Got unexpected extra argument(s) ({0})", "Invalid value for {0}: {1}", "Missing option {0}.",
    "Input should be a valid integer, unable to parse string as an integer", "Input should be {0}",
    "Input should be a valid number, unable to parse string as a number",
    "Missing argument {0}.", "Option {0} does not take a value.", "Option {0} requires an argument.",
}  # fmt: skip
COMPOSED = {
    "{0}, {1} in {2} s ({3} documents/s, {4} tokens/s)",
    "{0} in {1}, {2} in {3} s ({4} passages/s, {5} tokens/s)",
    "{0}: left out {1} without data: {2}",
}
COUNT_OR_RATE = re.compile(r"\{0\} [A-Za-z ]+(/s(, \{1\} tokens/s)?)?")  # composed of a number and a noun


@pytest.fixture(autouse=True)
def english_again(monkeypatch):
    yield
    monkeypatch.undo()
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "C")
    messages.choose_language()


def speak(monkeypatch, **variables: str) -> None:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    messages.choose_language()


def help_texts() -> set[str]:
    command: Any = typer.main.get_command(app)
    found: set[str] = set()
    for part in (command, *command.commands.values()):
        found.update(messages.paragraphs(part.help or ""))
        found.update(param.help for param in part.params)
        found.update(filter(None, [getattr(part, "rich_help_panel", None)]))
    return found


def template(node: ast.expr) -> str:
    """A text of the sources with ``{}`` for what changes in it; empty for other expressions."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def templates() -> set[str]:
    """All texts of the sources, with ``{}`` for what changes in them."""
    found: set[str] = set()
    for path in (path for folder in FOLDERS for path in (SOURCES / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(template(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_help_text_has_a_japanese_one():
    assert sorted(help_texts() - CATALOGUE.keys()) == []


def test_the_compiled_catalogue_is_that_of_the_source():
    compiled = read_mo(io.BytesIO((FOLDER / "tansaku.mo").read_bytes()))
    assert {str(entry.id): str(entry.string) for entry in compiled if entry.id} == CATALOGUE


def test_a_translation_has_the_changing_parts_of_its_text():
    for text, translation in CATALOGUE.items():
        assert translation.strip(), text
        assert set(re.findall(r"\{\w*\}", translation)) <= set(re.findall(r"\{\w*\}", text)), text


@pytest.mark.parametrize(
    ("variables", "japanese"),
    [
        ({"LANG": "ja_JP.UTF-8"}, True),
        ({"LANG": "ja"}, True),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "ja:en"}, True),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "ja_JP.UTF-8", "LANGUAGE": "en:ja"}, False),
        ({"LANG": "jam_JM.UTF-8"}, False),
        ({}, False),
    ],
)
def test_the_language_is_that_of_the_environment(monkeypatch, variables, japanese):
    speak(monkeypatch, **variables)
    assert messages.said("Search") == ("検索" if japanese else "Search")


@pytest.mark.parametrize(
    ("english", "japanese"),
    [
        ("2 documents deleted", "文書 2 件を削除しました"),
        ("1 document in 5 passages, 9 token vectors in 1.0 s (5 passages/s, 9 tokens/s)", "文書 1 件"),
        ("table 'docs': not in this database (tables: a, b); `tansaku index` makes one", "テーブル 'docs' はこの"),
        ("a.csv:2: no field 'text' here (fields: 本文); add it, or name the field that holds the text: --text-field, "
         "in Python names=FieldNames(text=...)", "a.csv:2: フィールド 'text' がありません (フィールド: 本文)"),
        ("1 row of 1,200 written to sqlite:a.db#t", "1,200 行のうち 1 行を sqlite:a.db#t に書き込みました"),
        ("2 were there already, and stay (--existing replace writes over them)", "2 件はすでにあるため"),
        ("3 rows without codes left out; encode them with fill()", "コードのない 3 行を除きました"),
        ("something that nobody has translated", "something that nobody has translated"),
    ],
)  # fmt: skip
def test_messages_are_found_with_their_changing_parts(monkeypatch, english, japanese):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    assert messages.said(english).startswith(japanese)


def test_a_message_with_a_long_value_is_looked_up_at_once(monkeypatch):
    # A regular expression would try all ways to divide this among its groups, for hours.
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    value = "a: field x is y, (b) ; , of type " * 10_000
    said = messages.said(f"a.csv:2: field 'x' is {value!r}, which no column can hold")
    assert said.startswith("a.csv:2: field 'x' is ")


def test_what_the_user_wrote_is_not_translated(monkeypatch):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    assert messages.said("table 'Search' removed") == "テーブル 'Search' を削除しました"


def warnings() -> set[str]:
    """What the indexer says as a warning, with ``{}`` for what changes in it."""
    found: set[str] = set()
    for path in (SOURCES / "indexer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("say", "_say", "warning"):
                text = template(node.args[0]).replace("%s", "{}")
                found.update([text] if text not in ("", "{}", "{} {}") else [])
    return found


def test_every_warning_of_the_indexer_has_a_japanese_one():
    assert len(warnings()) >= 8
    assert sorted(warnings() - {re.sub(r"\{\d\}", "{}", text) for text in CATALOGUE}) == []


NO_COLUMN = (
    "the condition cannot be used: there is no column '田中'; a value takes single quotes: '田中'; the columns are "
    "id; the field of --id-field is now id, and those of --text-field and --title-field are text and title (at "
    "character 9: a)"
)


@pytest.mark.parametrize(
    ("english", "japanese"),
    [
        (
            "a.csv: read as cp932, by its first lines; encoding= or --encoding sets the encoding",
            "a.csv: 先頭の行から cp932 と判定して読みます。",
        ),
        (
            "notes: left out 2 files without data: a.db, b.jpg",
            "notes: データではないファイル 2 個を除きました: a.db, b.jpg",
        ),
        (
            "the field '番号' has 3 numbers and 1 text (a.xlsx [s] row 2: 1); its column becomes text, and "
            "--column-type, in Python FieldNames(types=...), sets another type",
            "フィールド '番号' に数値 3 個、文字列 1 個があります (a.xlsx",
        ),
        (
            "the condition cannot be used: the column day has no time zone; leave out that of '9' (at character 6: d)",
            "条件が使えません: 列 day にはタイムゾーンがありません。'9' のタイムゾーンを除いてください (6 文字目",
        ),
        (NO_COLUMN, "条件が使えません: 列 '田中' はありません。値は単一引用符で囲みます: '田中'。列は id です。"),
        ("13 documents/s, 900 tokens/s", "毎秒 13 件、900 トークン"),
        (", 0:29 left", "、残り 0:29"),
        (
            "1 fragment became 1; 0 old versions and 0 codecs removed",
            "断片 1 個が 1 個になりました。古いバージョン 0 個と",
        ),
    ],
)
def test_parts_of_a_message_that_are_messages_are_translated_too(monkeypatch, english, japanese):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    assert messages.said(english).startswith(japanese)


@pytest.mark.parametrize(
    ("args", "japanese"),
    [
        (("search", "寺", "--column", "x"), "--column というオプションはありません"),
        (
            ("search", "寺", "-k", "three", "--db", "d", "--table", "t"),
            "'-k' の値が正しくありません: 整数を書いてください",
        ),
        (("drop", "d", "--db", "d", "--table", "t"), "余分な引数があります (d)"),
        (("find",), "'find' というコマンドはありません。"),
    ],
)
def test_errors_of_use_are_japanese(monkeypatch, args, japanese):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    with pytest.raises(click_error) as caught:
        messages.with_help(typer.main.get_command(app))(args, standalone_mode=False)
    assert caught.value.format_message().startswith(japanese)


def test_every_translated_message_is_one_that_the_program_says():
    # Of a message that is composed of several texts, one part that does not change must be there.
    sources = "\n".join(templates())
    lost = []
    for text in CATALOGUE.keys() - help_texts() - OF_TYPER - COMPOSED:
        if COUNT_OR_RATE.fullmatch(text):
            continue
        parts = [part for part in re.split(r"\{\d\}", text) if part.strip(" ,:;().'s/")]
        if not all(part.strip() in sources or any(piece in sources for piece in pieces(part)) for part in parts):
            lost.append(text)
    assert lost == []


def pieces(part: str) -> list[str]:
    """A part of a message at its punctuation: what one text of the sources may end with."""
    return [piece.strip() for piece in re.split(r"[;,:]", part) if len(piece.strip()) > 3]


def test_help_is_japanese_and_names_stay(monkeypatch, capsys):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    monkeypatch.setenv("COLUMNS", "200")
    messages.with_help(typer.main.get_command(app))(["search", "--help"], standalone_mode=False)
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "インデックスを検索します。" in shown
    assert "この説明を表示して終わります。" in shown
    assert "ヒットの数。" in shown
    assert "--phrase-weight" in shown
    assert "例: tansaku search" in shown

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
}  # fmt: skip


COMPOSED = {
    "{0}, {1} in {2} s ({3} documents/s, {4} tokens/s)",
    "{0} in {1}, {2} in {3} s ({4} passages/s, {5} tokens/s)",
    "{0} documents",
    "{0} passages",
    "{0} ids",
}


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


def templates() -> set[str]:
    """All texts of the sources, with ``{}`` for what changes in them."""
    found: set[str] = set()
    for path in (path for folder in FOLDERS for path in (SOURCES / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                found.add("".join(map(str, parts)))
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
        ("something that nobody has translated", "something that nobody has translated"),
    ],
)  # fmt: skip
def test_messages_are_found_with_their_changing_parts(monkeypatch, english, japanese):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    assert messages.said(english).startswith(japanese)


def test_what_the_user_wrote_is_not_translated(monkeypatch):
    speak(monkeypatch, LANG="ja_JP.UTF-8")
    assert messages.said("table 'Search' removed") == "テーブル 'Search' を削除しました"


def test_every_translated_message_is_one_that_the_program_says():
    # Of a message that is composed of several texts, one part that does not change must be there.
    sources = "\n".join(templates())
    lost = []
    for text in CATALOGUE.keys() - help_texts() - OF_TYPER - COMPOSED:
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

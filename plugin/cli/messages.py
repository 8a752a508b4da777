"""Help and messages in the language of the user: English, or Japanese where the locale is Japanese.

The catalogue is `locale/ja/LC_MESSAGES/tansaku.po`. After a change compile it: ``pybabel compile -D tansaku -d
plugin/cli/locale``. Messages are written in English and looked up whole when they are printed. What changes in a
message is numbered there: ``{0} copied to the table {1}``. What is not in the catalogue stays English.
"""

from __future__ import annotations

import gettext
import inspect
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import typer

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "tansaku"

_SENTENCE = 20  # characters that no name of the user has by chance in common with a message
_COUNT = re.compile(r"\{0\} [a-z ]+")  # "{0} documents"
_NUMBER = re.compile(r"[\d,]+")


def choose_language() -> None:
    """Speak the first language of LANGUAGE, LC_ALL, LC_MESSAGES and LANG; what is not known is English."""
    japanese = _wanted().lower().replace("-", "_").split("_")[0].split(".")[0] == "ja"
    if japanese:
        gettext.bindtextdomain(DOMAIN, str(LOCALE))
    gettext.textdomain(DOMAIN if japanese else "messages")  # for the texts of typer too
    _patterns.cache_clear()


def language() -> Literal["en", "ja"]:
    """The language of messages."""
    return "ja" if gettext.textdomain() == DOMAIN else "en"


def said(text: str) -> str:
    """``text``, a message or a help text, in the language of the user.

    Args:
        text: in English.
    """
    if gettext.textdomain() != DOMAIN:
        return text
    exact, patterns, _ = _patterns()
    if text in exact:
        return exact[text]
    for literals, translation in patterns:
        if (parts := _parts(text, literals)) is not None:
            return translation.format(*map(_part, parts))
    return text


def with_help(command: Any) -> Any:
    """``command``, a command of typer, with the help of it, its options and its commands in the user's language."""
    if gettext.textdomain() == DOMAIN:
        _fold_japanese()
        names = command.context_settings.get("help_option_names", ["--help"])
        for part in (command, *getattr(command, "commands", {}).values()):
            help_option = part.get_help_option(typer.Context(part, help_option_names=names))  # which the command keeps
            if help_option is not None:
                help_option.help = said(help_option.help)
            part.help = _paragraphs(part.help)
            if getattr(part, "rich_help_panel", None):
                part.rich_help_panel = said(part.rich_help_panel)
            for param in part.params:
                param.help = said(param.help or "")
    return command


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a command's help that are translated: all but the example.

    Args:
        text: the docstring.
    """
    parts = inspect.cleandoc(text).split("\n\n")
    return [" ".join(part.split()) for part in parts if not part.startswith("Example:")]


def _fold_japanese() -> None:
    """Have long Japanese help folded, which has no spaces to be wrapped at; typer would cut it off."""
    from rich import columns
    from rich.table import Table
    from typer import rich_utils

    class Folding(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            super().add_row(*cells, **options)
            for column in self.columns:
                column.overflow = "fold"

    rich_utils.Table = columns.Table = Folding  # pyright: ignore[reportPrivateImportUsage]


def _paragraphs(text: str | None) -> str:
    parts = inspect.cleandoc(text or "").split("\n\n")
    examples = [part.replace("Example:", said("Example:"), 1) for part in parts if part.startswith("Example:")]
    return "\n\n".join([*map(said, paragraphs(text or "")), *examples])


def _wanted() -> str:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if os.environ.get(name):
            return os.environ[name].split(":")[0]
    return ""


def _part(value: str) -> str:
    """What changes in a message, translated if it is a number and its noun, such as "2 documents", or a sentence.

    Anything else may be the user's, and stays.
    """
    counts = [_counted(count) for count in value.split(" and ")]
    if all(counts):
        return "、".join(map(str, counts))
    return said(value) if len(value) > _SENTENCE else value


def _counted(value: str) -> str | None:
    for literals, translation in _patterns()[2]:
        parts = _parts(value, literals)
        if parts is not None and all(map(_NUMBER.fullmatch, parts)):
            return translation.format(*parts)
    return None


def _parts(text: str, literals: list[str]) -> list[str] | None:
    """What stands between the literals in a text, each where it comes first; None if they are not in it in this order.

    That is what a regular expression would find, but in time that grows with the text alone: values may be long.
    """
    at, end = len(literals[0]), len(text) - len(literals[-1])
    if at > end or not (text.startswith(literals[0]) and text.endswith(literals[-1])):
        return None
    parts = []
    for literal in literals[1:-1]:
        found = text.find(literal, at, end)
        if found < 0:
            return None
        parts.append(text[at:found])
        at = found + len(literal)
    return [*parts, text[at:end]]


_Patterns = list[tuple[list[str], str]]  # what does not change in a message, and its translation


@cache
def _patterns() -> tuple[dict[str, str], _Patterns, _Patterns]:
    """The catalogue: texts without changing parts, texts with them, and among these the counts."""
    found: dict[str, str] = gettext.translation(DOMAIN, LOCALE, languages=["ja"])._catalog  # type: ignore[attr-defined]
    exact = {text: translation for text, translation in found.items() if text and "{0}" not in text}
    numbered = sorted(
        (text for text in found if "{0}" in text), key=lambda text: (-len(re.sub(r"\{\d\}", "", text)), text)
    )
    patterns = [(re.split(r"\{\d\}", text), found[text]) for text in numbered]
    counts = [(re.split(r"\{\d\}", text), found[text]) for text in numbered if _COUNT.fullmatch(text)]
    return exact, patterns, counts

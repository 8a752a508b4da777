"""What reaches a terminal: no control characters from data, and no error for a character that it cannot show."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import Any

from pydantic_core import to_jsonable_python

# Control characters (C0, DEL, C1), which can move the cursor or change the terminal; marks that change the direction of
# writing; line and paragraph separators; halves of surrogate pairs.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_JSON_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, keep: str = "") -> str:
    r"""``text`` with its control characters as escapes that can be seen, such as ``\x1b``.

    Args:
        text: the text, from documents or from anywhere else.
        keep: control characters that stay as they are.

    Example:
        >>> print(visible("red: \x1b[31m"))
        red: \x1b[31m
    """
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def as_json(content: Any, *, indent: int | None = 2) -> str:
    """``content`` as JSON that every reader takes and every terminal shows.

    NaN and infinities are null, dates, bytes and other values of columns strings. Control characters are escaped, and
    all but ASCII where standard output cannot hold it.
    """
    plain = to_jsonable_python(content, inf_nan_mode="null", bytes_mode="base64", fallback=str)
    text = json.dumps(plain, ensure_ascii=False, indent=indent, allow_nan=False)
    text = _JSON_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(plain, indent=2, allow_nan=False)
    return text


def show_all_characters() -> None:
    """Have standard output and error show what their encoding does not have as an escape, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

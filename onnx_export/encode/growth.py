"""How much longer a text may become in a tokenizer, by what its file says.

A few lines of a tokenizer file can turn each character into gigabytes: replacements, one after the other. The file is
read as data here, before anything runs, and what its steps multiply is multiplied.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

MAX_GROWTH = 100.0  # files of real models stay below 30
_MAX_STEPS = 1_000

_CJK_WITH_SPACES, _BYTES_OF_CHARACTER = 3.0, 4.0
_CHARSMAP_BYTES = 128  # of a replacement; Unicode's longest compatibility form has 33

# With these a regular expression may match between two characters, or means something else to Python than to Oniguruma.
_UNSURE = re.compile(r"\(\?|[\^$]|\\[bBAzZGKRX]|\}\?|\[\[")


def growth(tokenizer: Any) -> float:
    """How many characters at most come of one, apart from Unicode's normal forms, which change nothing when repeated.

    Args:
        tokenizer: the content of a `tokenizers` file.

    Returns:
        The factor, at least 1.

    Raises:
        ValueError: the file has not the form of a `tokenizers` file.
    """
    factor = 1.0
    for step in steps_of(tokenizer):
        factor = min(factor * _of_step(step), 1e300)
    return factor


def steps_of(tokenizer: Any) -> list[dict[str, Any]]:
    """The steps before a text is looked up in the vocabulary: those of the normalizer and of the pre-tokenizer.

    Args:
        tokenizer: the content of a `tokenizers` file.

    Raises:
        ValueError: the file has not the form of a `tokenizers` file.
    """
    if not isinstance(tokenizer, dict):
        raise ValueError("it is no JSON object")
    normalizers = _steps(tokenizer.get("normalizer"), "normalizers")
    steps = normalizers + _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if len(steps) > _MAX_STEPS:
        raise ValueError(f"it has {len(steps):,} steps; at most {_MAX_STEPS:,} are read")
    return steps


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those within sequences too."""
    found: list[dict[str, Any]] = []
    unread = [part]
    while unread:
        step = unread.pop()
        if step is None:
            continue
        if not isinstance(step, dict):
            raise ValueError(f"a step is {type(step).__name__}, not an object")
        if step.get("type") != "Sequence":
            found.append(step)
        elif isinstance(step.get(name), list):
            unread += step[name]
        else:
            raise ValueError(f"a sequence has no list of {name}")
    return found


def _of_step(step: dict[str, Any]) -> float:
    kind = step.get("type")
    if kind == "Replace":
        return _of_replacement(step.get("pattern"), str(step.get("content") or ""))
    if kind == "Prepend":
        return 1.0 + len(str(step.get("prepend") or ""))
    if kind == "Precompiled":
        return _of_charsmap(str(step.get("precompiled_charsmap") or ""))
    return {"BertNormalizer": _CJK_WITH_SPACES, "ByteLevel": _BYTES_OF_CHARACTER}.get(str(kind), 1.0)


def _of_replacement(pattern: Any, content: str) -> float:
    if not isinstance(pattern, dict):
        raise ValueError("a replacement has no pattern")
    literal, expression = pattern.get("String"), pattern.get("Regex")
    if isinstance(literal, str) and literal:
        return max(1.0, len(content) / len(literal))
    if isinstance(expression, str) and _takes_a_character(expression):
        return max(1.0, float(len(content)))
    return 1.0 + len(content)  # it may match nothing, which puts the content between all characters


def _takes_a_character(expression: str) -> bool:
    """Whether a regular expression surely matches no empty string."""
    if _UNSURE.search(expression):
        return False
    try:
        return re.fullmatch(expression, "") is None
    except (re.error, RecursionError, OverflowError):
        return False


def _of_charsmap(encoded: str) -> float:
    """Of sentencepiece's table: the size of a trie, the trie, then the replacements, each ended by a zero."""
    try:
        table = base64.b64decode(encoded)
    except binascii.Error as error:
        raise ValueError(f"precompiled_charsmap is not base64 ({error})") from error
    size = int.from_bytes(table[:4], "little")
    longest = max(map(len, table[4 + size :].split(b"\0")))
    return 1.0 if longest <= _CHARSMAP_BYTES else float(longest)

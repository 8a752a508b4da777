"""Whether the regular expressions of a tokenizer take a time that grows with the length of a text, and not faster.

`tokenizers` runs them in Oniguruma, which goes back and tries again: a few characters can keep it busy for years. Only
such expressions are allowed as can be seen to go back by a few characters at most, and those of real tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .growth import steps_of
from .japanese_patterns import KNOWN

_MOST_REPEATED = 100  # in a count such as {1,3}
_MOST_OPTIONAL = 3  # parts that may be left out: each doubles the ways to go back
_MOST_CHARACTERS = 2_000  # of an expression
_LONGEST_WORD = 1_000  # of WordPiece, which takes the square of it; 100 in BERT

# Alternatives of real tokenizers that the rules below do not allow, and the alternative that must stand beside each: it
# takes the run as a whole in which the first would be tried in vain at every character.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BESIDE = {r"\s*[\r\n]+": r"\s+", r"\s+(?!\S)": r"\s+"} | {
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{end}": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{end}"
    for end in ("", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?")
}

_QUANTIFIER = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")
_ESCAPE = re.compile(r"\\(?:[sSdDwWhHnrtfv]|[pP]\{\^?\w+\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[^\w\s])")
_CLASS = re.compile(rf"\[\^?(?:{_ESCAPE.pattern}|[^\\\[\]])+\]")
_GROUP = re.compile(r"\((?:\?[imx]*:)?([^()]*)\)")
_PLAIN = re.compile(r"[^\\\[\](){}*+?|^$]")


class _Part(NamedTuple):
    """A character, class or group, and how often it may come; ``most`` is None without an end."""

    least: int
    most: int | None


def problem(tokenizer: Any) -> str:
    """What may take very long in a `tokenizers` file; empty if nothing may.

    Args:
        tokenizer: its content.

    Raises:
        ValueError: the file has not the form of a `tokenizers` file.
    """
    for step in steps_of(tokenizer):
        pattern = step.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        if isinstance(expression, str) and (slow := slow_alternative(expression)) is not None:
            return f"its pattern {expression[:100]!r} may take very long at {slow[:100]!r}"
    model = tokenizer.get("model")
    if isinstance(model, dict) and model.get("type", "WordPiece") == "WordPiece":
        for name, most in (("max_input_chars_per_word", _LONGEST_WORD), ("continuing_subword_prefix", _MOST_REPEATED)):
            value = model.get(name, 0)
            size = len(value) if isinstance(value, str) else value
            if not isinstance(size, int) or size > most:
                return f"its model has a {name} of {str(value)[:20]}, and more than {most} is not allowed"
    return ""


def slow_alternative(expression: str) -> str | None:
    """The first alternative of a regular expression that may take very long; None if there is none.

    Args:
        expression: in Oniguruma's syntax. What is not known here counts as slow.
    """
    if expression in KNOWN:
        return None
    if len(expression) > _MOST_CHARACTERS:
        return expression
    alternatives = list(_alternatives(expression))
    for alternative in alternatives:
        known = _BESIDE.get(alternative) in alternatives
        if not known and not _goes_back_a_little(alternative):
            return alternative
    return None


def _alternatives(expression: str) -> Iterator[str]:
    """What stands between the "|" that are in no group and no class."""
    depth, start, at = 0, 0, 0
    while at < len(expression):
        found = _ESCAPE.match(expression, at) or _CLASS.match(expression, at)
        if found:
            at = found.end()
            continue
        depth += {"(": 1, ")": -1}.get(expression[at], 0)
        if expression[at] == "|" and not depth:
            yield expression[start:at]
            start = at + 1
        at += 1
    yield expression[start:]


def _goes_back_a_little(alternative: str) -> bool:
    """Whether nothing that can fail follows a part of variable length, other than a few that may be left out."""
    parts = _parts(alternative)
    if parts is None:
        return False
    optional, varies = 0, False
    for least, most in parts:
        if varies and least:
            return False
        optional += (least, most) == (0, 1)
        varies = varies or (least != most and (least, most) != (0, 1))
    return optional <= _MOST_OPTIONAL


def _parts(alternative: str) -> list[_Part] | None:
    """The parts of an alternative; None if it has something else."""
    parts: list[_Part] = []
    at = 0
    while at < len(alternative):
        group = _GROUP.match(alternative, at)
        found = group or next(filter(None, (kind.match(alternative, at) for kind in (_ESCAPE, _CLASS, _PLAIN))), None)
        if found is None:
            return None
        at = found.end()
        if group is not None and not all(_is_fixed(inner) for inner in _alternatives(group[1])):
            return None
        least, most = 1, 1
        if quantifier := _QUANTIFIER.match(alternative, at):
            at = quantifier.end()
            counted = _count(quantifier)
            if counted is None or _QUANTIFIER.match(alternative, at):  # lazy, possessive, or twice
                return None
            least, most = counted
            if group is not None and most != 1:
                return None
        parts.append(_Part(least, most))
    return parts


def _is_fixed(alternative: str) -> bool:
    parts = _parts(alternative)
    return parts is not None and all(part == _Part(1, 1) for part in parts)


def _count(quantifier: re.Match[str]) -> tuple[int, int | None] | None:
    if quantifier[0] in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[quantifier[0]]
    first, comma, last = quantifier.groups()
    if not first and not last:
        return None
    least = int(first or 0)
    most = int(last) if last else None if comma else least
    return None if max(least, most or 0) > _MOST_REPEATED else (least, most)

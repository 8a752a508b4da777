"""The sentences by which two tokenizers are compared: 1,000 of all kinds, most of them from the sample corpus."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..files import read_lines


@functools.cache
def sentences() -> tuple[str, ...]:
    """The sentences, always the same: odd cases first, then questions and Japanese text."""
    return tuple(read_lines(Path(__file__).with_name("sentences.txt")))


def first_difference(
    texts: Iterable[str], ones: Iterable[Sequence[int]], others: Iterable[Sequence[int]], one: str, other: str
) -> str | None:
    """Say where two readings of the same texts part.

    Args:
        texts: the texts.
        ones: a number for each token of each text, by one reading.
        others: the same by the other reading.
        one: what the first reading is called.
        other: what the other is called.

    Returns:
        The first text and token that differ, with both numbers; None if the readings are equal.

    Example:
        >>> first_difference(["探索"], [[2, 7, 3]], [[2, 8, 3]], "the file", "the bundle")
        "sentence 0 '探索', token 1: 7 by the file, but 8 by the bundle"
    """
    for number, (text, left, right) in enumerate(zip(texts, ones, others, strict=True)):
        if list(left) == list(right):
            continue
        pairs = enumerate(zip(left, right, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
        found = [str(numbers[place]) if place < len(numbers) else "none" for numbers in (left, right)]
        return f"sentence {number} {text!r}, token {place}: {found[0]} by {one}, but {found[1]} by {other}"
    return None

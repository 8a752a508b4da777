"""Words that are too short for engines that search by trigrams: many words of Japanese have two characters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

GRAM = 3
"""Characters of a trigram."""

_LEAST_IDF = 1e-6


def split_query(query: str) -> tuple[list[str], list[str]]:
    """The words of a query that have a trigram, and those that are too short to have one.

    Signs divide words too (``梅雨、時期``), where no part of a word has a trigram of letters.
    """
    long: list[str] = []
    short: list[str] = []
    for word in query.replace("\0", " ").split():
        if len(word) >= GRAM:
            long.append(word)
        parts = re.findall(r"\w+", word)
        if all(len(part) < GRAM for part in parts):
            short += parts or ([word] if len(word) < GRAM else [])
    return list(dict.fromkeys(long)), list(dict.fromkeys(short))


def idf(n_documents: int, containing: Sequence[int]) -> list[float]:
    """How much each word counts: the inverse document frequency of BM25, as FTS5 has it, always above 0.

    Args:
        n_documents: number of documents of the table.
        containing: number of documents that contain each word.
    """
    return [max(math.log((n_documents - n + 0.5) / (n + 0.5)), _LEAST_IDF) for n in containing]

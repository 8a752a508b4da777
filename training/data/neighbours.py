"""Groups without mining: blocks of neighbouring passages, asked for by their questions and by their own sentences.

Passages that follow one another are of one article or page and hard to tell apart. Every query of a block has the
block's passages as its group, so a step that holds whole blocks encodes each passage once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import TrainingDataError
from .groups import Group

_SENTENCE = re.compile(r"[^。\n]+。?")
_SENTENCE_LENGTH = range(8, 61)  # characters


def neighbour_groups(
    passages: Mapping[str, str],
    questions: Mapping[str, Sequence[str]],
    *,
    nway: int,
    queries: int,
    blocks: int,
    seed: int,
) -> tuple[list[Group], dict[str, str]]:
    """Groups of blocks drawn at random, and the sentences that serve as queries.

    A block's queries are its questions, drawn at random if there are too many, then random sentences of its passages.
    The passage that answers, or that the sentence is from, is the group's first and has score 1, the others 0. A block
    with too few questions and sentences is left out.

    Args:
        passages: passage id → text, neighbours beside one another.
        questions: passage id → ids of the questions that it answers.
        nway: number of passages of a block.
        queries: number of queries of a block.
        blocks: largest number of blocks.
        seed: seed of all random draws.

    Returns:
        The groups, and query id → text of the queries that are sentences.

    Raises:
        TrainingDataError: no block has enough passages and queries.
    """
    ids = list(passages)
    drawn = random.Random(seed)  # noqa: S311
    starts = list(range(0, len(ids) - nway + 1, nway))
    drawn.shuffle(starts)
    groups: list[Group] = []
    sentences: dict[str, str] = {}
    for start in starts:
        if len(groups) >= blocks * queries:
            break
        block = ids[start : start + nway]
        asked = [(question, passage) for passage in block for question in questions.get(passage, ())]
        asked = drawn.sample(asked, min(queries, len(asked)))
        own = [(text, passage) for passage in block for text in _sentences(passages[passage])]
        if len(asked) + len(own) < queries:
            continue
        for text, passage in drawn.sample(own, queries - len(asked)):
            name = f"sentence-{len(sentences)}-{passage}"
            sentences[name] = text
            asked.append((name, passage))
        groups += [_group(query, passage, block) for query, passage in asked]
    if not groups:
        raise TrainingDataError(f"no {nway} neighbours have {queries} questions and sentences; use smaller numbers")
    return groups, sentences


def _sentences(text: str) -> list[str]:
    return [found.strip() for found in _SENTENCE.findall(text) if len(found.strip()) in _SENTENCE_LENGTH]


def _group(query: str, passage: str, block: Sequence[str]) -> Group:
    scores = np.zeros(len(block), np.float32)
    scores[0] = 1.0
    return Group(query, (passage, *(other for other in block if other != passage)), scores)

"""Distillation data: groups of passages with a teacher's scores.

A group is one line of JSONL, as in the code of JaColBERTv2.5 and ColBERTv2: `[query id, [passage id, score], …]`, the
relevant passage first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...onnx_export.files import read_lines, write_atomically
from ..errors import TrainingDataError


@dataclass(frozen=True)
class Group:
    """A query and n passages.

    Attributes:
        query: id of the query.
        passages: ids of the passages, the relevant one first.
        scores: scores by the teacher, float32 (n,).
    """

    query: str
    passages: tuple[str, ...]
    scores: np.ndarray


def read_groups(
    paths: Iterable[str | Path], queries: dict[str, str], collection: dict[str, str], *, nway: int
) -> list[Group]:
    """The groups of all files, each cut to its first ``nway`` passages.

    Args:
        paths: JSONL files.
        queries: query id → text.
        collection: passage id → text.
        nway: number of passages of a group.

    Raises:
        TrainingDataError: a line has another form, fewer passages than ``nway``, an unknown id, a passage twice, or
            scores that are not finite or all the same; names the file and the line. Or there are no groups.
    """
    groups = []
    for path in map(Path, paths):
        for number, line in _lines(path):
            place = f"{path}:{number}"
            query, pairs = _parsed(place, line)
            if len(pairs) < nway:
                raise TrainingDataError(f"{place}: a group of {len(pairs)} passages; it needs {nway} (data.nway)")
            ids = tuple(str(passage) for passage, _ in pairs[:nway])
            scores = np.array([score for _, score in pairs[:nway]], np.float32)
            if query not in queries:
                raise TrainingDataError(f"{place}: the query {query!r} is not among the queries")
            for passage in ids:
                if passage not in collection:
                    raise TrainingDataError(f"{place}: the passage {passage!r} is not in the collection")
            _check(place, ids, scores)
            groups.append(Group(query, ids, scores))
    if not groups:
        raise TrainingDataError(f"{', '.join(map(str, paths))}: no groups here")
    return groups


def write_groups(path: str | Path, groups: Iterable[Group]) -> int:
    """Write groups as JSONL.

    Returns:
        The number of groups.
    """
    lines = [as_line(group) for group in groups]
    write_atomically(Path(path), "".join(lines))
    return len(lines)


def as_line(group: Group) -> str:
    """A group as a line of JSONL."""
    pairs = [[p, round(float(s), 6)] for p, s in zip(group.passages, group.scores, strict=True)]
    return json.dumps([group.query, *pairs], ensure_ascii=False) + "\n"


def _check(place: str, ids: tuple[str, ...], scores: np.ndarray) -> None:
    if len(set(ids)) < len(ids):
        twice = next(passage for passage in ids if ids.count(passage) > 1)
        raise TrainingDataError(f"{place}: the passage {twice!r} occurs twice in the group")
    if not np.isfinite(scores).all():
        raise TrainingDataError(f"{place}: a score is not finite")
    if scores.min() == scores.max():
        raise TrainingDataError(
            f"{place}: all scores are {scores[0]:g}, so there is nothing to learn; leave the group out"
        )


def _parsed(place: str, line: str) -> tuple[str, list[tuple[Any, float]]]:
    try:
        content = json.loads(line)
        if not isinstance(content, list) or not all(isinstance(pair, list) for pair in content[1:]):
            raise TypeError(f"found {line[:60]}")
        query, *pairs = content
        known = [(passage, float(score)) for passage, score in pairs]
    except (TypeError, ValueError) as error:
        raise TrainingDataError(f"{place}: expected [query id, [passage id, score], …] ({error})") from error
    return str(query), known


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        for number, line in enumerate(read_lines(path), start=1):
            if line.strip():
                yield number, line
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path}: cannot be read ({error})") from error


def normalized(scores: np.ndarray) -> np.ndarray:
    """Scores scaled to [0, 1], (s - min) / (max - min): float32 of the same shape; all 0 if they are all the same."""
    spread = float(scores.max() - scores.min())
    return ((scores - scores.min()) / (spread if math.isfinite(spread) and spread > 0 else 1.0)).astype(np.float32)

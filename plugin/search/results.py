"""What a search returns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .scores import ScoreMode, as_mode, check_mode


@dataclass(frozen=True)
class Hit:
    """One document found.

    Attributes:
        id: the document's id.
        score: MaxSim, a sum over the query's tokens, and BM25 if it was asked for; comparable within one query only.
        title: the document's title, perhaps empty.
        text: the document's text.
        fields: the caller's other columns.
    """

    id: str
    score: float
    title: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Which documents were found, before their rows are fetched.

    Attributes:
        documents: int64 (hits,), document numbers, best first.
        scores: float32 (hits,), MaxSim, and BM25 if it was asked for.
        scored: how many documents were scored by their codes.
        missing: ids that the search was restricted to and that the index has not.
    """

    documents: np.ndarray
    scores: np.ndarray
    scored: int
    missing: tuple[str, ...]


class Hits(list[Hit]):
    """The hits of one search, best first.

    Attributes:
        stages: milliseconds of each stage of the search, in their order.
        scored: how many documents were scored by their codes.
        missing: ids that the search was restricted to and that the index has not.
        version: version of the table that was searched.
        query_tokens: how many vectors the query has.
    """

    def __init__(
        self, hits: Iterable[Hit], *, ranking: Ranking, stages: dict[str, float], version: int, query_tokens: int
    ) -> None:
        super().__init__(hits)
        self.stages = stages
        self.scored = ranking.scored
        self.missing = ranking.missing
        self.version = version
        self.query_tokens = query_tokens

    def scores(self, mode: ScoreMode = "mean") -> list[float]:
        """The hits' scores on another scale, in their order; see `as_mode`. Raises InputError for an unknown one."""
        return as_mode(np.array([hit.score for hit in self]), self.query_tokens, check_mode(mode)).tolist()


class Stopwatch:
    """Milliseconds of named stages; of a stage that runs twice, their sum."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + 1000 * (time.perf_counter() - started)

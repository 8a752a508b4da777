"""What a search returns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .choices import ScoreMode
from .explain_html import hits_html
from .scores import as_mode, check_mode


@dataclass(frozen=True)
class RankedRows:
    """Which rows were found, before they are fetched.

    Attributes:
        rows: int64 (hits,), row numbers, best first.
        scores: float32 (hits,), MaxSim, plus weighted BM25 if it was asked for.
        scored: Number of rows that were scored by their codes.
        missing: Ids that the search was restricted to and that are not in the index.
        complete: Whether all rows were scored that the search was allowed to find.
    """

    rows: np.ndarray
    scores: np.ndarray
    scored: int
    missing: tuple[str, ...]
    complete: bool = False


@dataclass(frozen=True)
class Hit:
    """One document found.

    Attributes:
        id: The document's id; the passage's, if passages were asked for.
        score: MaxSim, a sum over the query's tokens, plus weighted BM25 if it was asked for. Comparable only with
            scores of the same query.
        title: The document's title; may be empty, and is if it was not asked for (``fields`` of `SearchOptions`).
        text: The document's text; in an index of passages, its best passage. Empty if it was not asked for.
        fields: The caller's other columns that were asked for, by name; of a passage also ``parent_id``, its document,
            and ``passage``, its number from 0.
    """

    id: str
    score: float
    title: str
    text: str
    fields: dict[str, Any] = field(default_factory=dict)


class Scores(np.ndarray):
    """Scores of documents: an array, float32 (documents,).

    Attributes:
        truncated: Whether the query was longer than the model reads (`Bundle.query`), so that its end was ignored.
    """

    truncated: bool = False

    @classmethod
    def of(cls, scores: np.ndarray, truncated: bool) -> Scores:
        """``scores``, with what is known of their query."""
        seen = scores.view(cls)
        seen.truncated = truncated
        return seen

    def __array_finalize__(self, origin: Any) -> None:
        self.truncated = getattr(origin, "truncated", False)  # parts of it, and what is computed from it

    def __reduce__(self) -> tuple[Any, ...]:
        return Scores.of, (np.asarray(self), self.truncated)


class Hits(list[Hit]):
    """The hits of one search, best first.

    Attributes:
        stages: Milliseconds of each stage of the search, in order.
        scored: Number of documents that were scored by their codes.
        missing: Ids that the search was restricted to and that are not in the index.
        recall: Expected share of the best by exact MaxSim over the index's codes that is among the hits: 1 if all
            documents were scored that the search was allowed to find, otherwise as it was measured in this index, see
            `Searcher.calibrate`. None if it was not, or if ``nprobe``, ``candidates`` or ``source`` was given.
        version: Version of the table that was searched.
        query_tokens: Number of vectors of the query.
        truncated: Whether the query was longer than the model reads (`Bundle.query`), so that its end was ignored.
            False for a query that was given as vectors.
        lost: Numbers of the shards that did not answer, in a search over shards that allows that; else empty.
    """

    def __init__(
        self,
        hits: Iterable[Hit],
        *,
        ranked: RankedRows,
        stages: dict[str, float],
        version: int,
        query_tokens: int,
        truncated: bool = False,
        recall: float | None = None,
    ) -> None:
        super().__init__(hits)
        self.stages = stages
        self.scored = ranked.scored
        self.missing = ranked.missing
        self.version = version
        self.query_tokens = query_tokens
        self.truncated = truncated
        self.recall = recall
        self.lost: tuple[int, ...] = ()

    def scores(self, mode: ScoreMode = "mean") -> list[float]:
        """The hits' scores on another scale, in their order.

        Args:
            mode: "mean", MaxSim divided by the number of query tokens; "raw", the sum; or "logit", the mean's log-odds.
                See `ScoreMode`.

        Raises:
            InputError: An unknown mode.
        """
        return as_mode(np.array([hit.score for hit in self]), self.query_tokens, check_mode(mode)).tolist()

    def _repr_html_(self) -> str:
        """For notebooks: a table."""
        return hits_html(self)


class Stopwatch:
    """Milliseconds of named stages; of a stage that runs twice, the sum."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block inside."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + 1000 * (time.perf_counter() - started)

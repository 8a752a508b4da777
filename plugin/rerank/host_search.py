"""Another engine's search with our ranking: its candidates by id, MaxSim over them.

Every engine is a `CandidateSource`; the adapters in `hosts` are small files that turn its answers into `Candidate`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...onnx_export.errors import InputError, TansakuError
from .reranker import Reranker


class HostError(TansakuError):
    """The engine that candidates come from is unreachable or refused; the message names it and what it said."""


@dataclass(frozen=True)
class Candidate:
    """A document that another engine found.

    Attributes:
        id: its id, the same there and in our index.
        score: the engine's own, higher is better.
        text: its text, for documents that our index has not; None if the engine was not asked for it.
    """

    id: str
    score: float
    text: str | None = None


class CandidateSource(Protocol):
    """An engine that finds candidates."""

    def candidates(self, query: str, k: int, where: Any = None) -> Sequence[Candidate]:
        """The engine's ``k`` best documents for ``query``, best first.

        Args:
            query: the question or keywords, as the user wrote them.
            k: how many.
            where: a filter in the engine's own terms; None is none.

        Raises HostError if the engine is unreachable or refuses.
        """
        ...


@dataclass(frozen=True)
class HostHit:
    """A document found by another engine, ranked by MaxSim.

    Attributes:
        id: its id.
        score: MaxSim as `Reranker.rerank` gives it; mean by default.
        host_rank: its place in the engine's own order, from 1.
        host_score: the engine's score.
    """

    id: str
    score: float
    host_rank: int
    host_score: float


class HostHits(list[HostHit]):
    """Best first; ``missing`` has the ids that could not be scored, left out here: in no index and without a text."""

    missing: tuple[str, ...] = ()


class HostSearch:
    """Search in another engine, ranked by MaxSim.

    Args:
        source: the engine.
        reranker: with a searcher whose index has the same ids, or without, if the engine returns texts.
        candidates: how many the engine is asked for.
    """

    def __init__(self, source: CandidateSource, reranker: Reranker, *, candidates: int = 100) -> None:
        if candidates < 1:
            raise InputError(f"candidates is {candidates}; it must be 1 or more")
        self.source = source
        self.reranker = reranker
        self.candidates = candidates

    def search(self, query: str, k: int = 10, where: Any = None) -> HostHits:
        """The ``k`` best of the engine's candidates by MaxSim.

        Args:
            query: the question or keywords.
            k: how many hits.
            where: a filter in the engine's own terms.

        Raises InputError for an empty query and ``k`` below 1, HostError if the engine cannot be asked.
        """
        found = list(self.source.candidates(query, max(self.candidates, k), where))
        ranked = self.reranker.rerank(query, [c.text for c in found], ids=[c.id for c in found], k=k)
        hits = HostHits(HostHit(str(r.id), r.score, r.index + 1, found[r.index].score) for r in ranked)
        hits.missing = ranked.missing
        return hits

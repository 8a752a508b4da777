"""The search of another engine, ranked by tansaku: the engine's candidates by id, MaxSim over them.

Every engine is a `CandidateSource`. The adapters in `hosts` are small files that turn an engine's answers into
`Candidate`s.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...onnx_export.errors import InputError, TansakuError
from ...onnx_export.kinds import check_kind, check_whole
from ..search.query_encoder import check_query
from .reranker import RerankedDocument, Reranker


class HostError(TansakuError):
    """The engine that candidates come from cannot be reached or refuses; the message has its name and its answer."""


@dataclass(frozen=True)
class Candidate:
    """A document that another engine found.

    Attributes:
        id: Its id, the same in the engine and in the index of tansaku.
        score: The engine's own score; higher is better.
        text: Its text, for a document that is not in the index; None if the engine was not asked for it.
        payload: What else the engine has of it, which comes back with the hit.
    """

    id: str
    score: float
    text: str | None = None
    payload: Any = None


class CandidateSource(Protocol):
    """An engine that finds candidates."""

    def candidates(self, query: str, k: int, where: Any = None) -> Sequence[Candidate]:
        """The engine's best documents for a query, best first.

        Args:
            query: Question or keywords, as the user wrote them.
            k: Number of documents.
            where: Filter in the engine's own form; None for no filter.

        Raises:
            HostError: The engine cannot be reached or refuses.
        """
        ...


@dataclass(frozen=True)
class CallableSource:
    """Any engine, by a function that asks it.

    Args:
        find: Function of the query, the number of documents and the filter (None for no filter). It gives the engine's
            best documents, best first: `Candidate`s, or tuples of their fields, such as (id, score) or (id, score,
            text). More than are asked for are cut off. What it raises comes through.

    Example:
        >>> from tansaku import CallableSource, HostSearch, Reranker
        >>> def find(query, k, where):
        ...     return [("dog", 9.5, "犬は嗅覚が鋭い動物である。"), ("kyoto", 7.1, "京都は794年から都だった。")]
        >>> [hit.id for hit in HostSearch(CallableSource(find), Reranker()).search("昔の首都はどこ？")]
        ['kyoto', 'dog']
    """

    find: Callable[[str, int, Any], Iterable[Candidate | tuple[Any, ...]]]

    def candidates(self, query: str, k: int, where: Any = None) -> list[Candidate]:
        """See `CandidateSource`.

        Raises:
            InputError: An empty query, ``k`` below 1, an asynchronous function, or a document that is not a `Candidate`
                and not such a tuple.
        """
        found = self.find(check_query(query), check_whole("k", k), where)
        if not isinstance(found, Iterable):
            raise InputError(
                f"the engine's function gave {type(found).__name__}; give one that returns a list and is not async"
            )
        return [one if isinstance(one, Candidate) else _candidate(one) for one in itertools.islice(found, k)]


@dataclass(frozen=True)
class HostHit:
    """A document that another engine found, ranked by MaxSim.

    Attributes:
        id: Its id.
        score: MaxSim divided by the number of query tokens: a mean cosine.
        host_rank: Its place in the engine's own order, from 1.
        host_score: The engine's own score.
        text: Its text, if the engine was asked for it.
        payload: What else the engine has of it, see `Candidate`.
    """

    id: str
    score: float
    host_rank: int
    host_score: float
    text: str | None = None
    payload: Any = None


class HostHits(list[HostHit]):
    """The hits of a `HostSearch`, best first.

    Attributes:
        missing: Ids of candidates that could not be scored and were left out: not in the index, and without a text.
        truncated: Whether the query was longer than the model reads, so that its end was ignored; see `RerankResult`.
        cut: Ids of candidates whose texts are longer than the model reads; they were scored by their beginnings.
    """

    missing: tuple[str, ...] = ()
    truncated: bool = False
    cut: tuple[str, ...] = ()


class HostSearch:
    """Search in another engine, ranked by MaxSim.

    Args:
        source: The engine.
        reranker: With the searcher of an index that has the same ids; or without one, if the engine returns texts.
        candidates: Number of documents that the engine is asked for, 1 or more.

    Raises:
        InputError: ``candidates`` below 1, or a source or reranker of a wrong kind.

    Example:
        >>> from tansaku import Candidate, HostSearch, Reranker
        >>> class Engine:
        ...     def candidates(self, query, k, where=None):
        ...         found = [("dog", 9.5, "犬は嗅覚が鋭い動物である。"), ("kyoto", 7.1, "京都は794年から都だった。")]
        ...         return [Candidate(doc_id, score, text) for doc_id, score, text in found][:k]
        >>> hits = HostSearch(Engine(), Reranker()).search("昔の首都はどこ？")
        >>> [(hit.id, hit.host_rank) for hit in hits]
        [('kyoto', 2), ('dog', 1)]
    """

    def __init__(self, source: CandidateSource, reranker: Reranker, *, candidates: int = 100) -> None:
        if not callable(getattr(source, "candidates", None)):
            remedy = "give CallableSource(function)" if callable(source) else "give a source, such as CallableSource"
            raise InputError(f"source is of type {type(source).__name__}, which has no method candidates; {remedy}")
        check_kind("reranker", reranker, Reranker, "give Reranker(searcher=...), or Reranker()")
        self.source = source
        self.reranker = reranker
        self.candidates = check_whole("candidates", candidates)

    def search(self, query: str, k: int = 10, where: Any = None) -> HostHits:
        """The engine's best candidates, ranked by MaxSim.

        Args:
            query: Question or keywords.
            k: Number of hits, 1 or more.
            where: Filter in the engine's own form; None for no filter.

        Raises:
            InputError: An empty query, or ``k`` below 1.
            HostError: The engine cannot be reached or refuses.
        """
        found = list(self.source.candidates(query, max(self.candidates, k), where))
        ranked = self.reranker.rerank(query, [c.text for c in found], ids=[c.id for c in found], k=k)
        hits = HostHits(_hit(found[r.index], r) for r in ranked)
        hits.missing, hits.truncated = ranked.missing, ranked.truncated
        hits.cut = tuple(found[i].id for i in ranked.cut)
        return hits

    async def asearch(self, query: str, k: int = 10, where: Any = None) -> HostHits:
        """`search` in a thread, for applications that run in an event loop."""
        return await asyncio.to_thread(self.search, query, k, where)

    def search_many(self, queries: Iterable[str], k: int = 10, where: Any = None) -> list[HostHits]:
        """`search` for each of several queries.

        Args:
            queries: Questions or keywords.
            k: Number of hits for each, 1 or more.
            where: Filter of all, in the engine's own form; None for no filter.

        Returns:
            The hits of each query, in their order.

        Raises:
            InputError: One string in place of queries, an empty query, or ``k`` below 1.
            HostError: The engine cannot be reached or refuses.
        """
        if isinstance(queries, str):
            raise InputError("queries is one string; give a list")
        return [self.search(query, k, where) for query in queries]


def _candidate(fields: Any) -> Candidate:
    try:
        doc_id, score, *rest = fields
        return Candidate(str(doc_id), float(score), *rest)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the engine's function gave {fields!r} ({error}); give Candidates, or tuples (id, score), (id, score, "
            "text) or (id, score, text, payload)"
        ) from error


def _hit(found: Candidate, ranked: RerankedDocument) -> HostHit:
    return HostHit(found.id, ranked.score, ranked.index + 1, found.score, found.text, found.payload)

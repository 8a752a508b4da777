"""The work behind the endpoints: one encoder, the indexes, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ...indexer.errors import StorageError
from ...indexer.table.database import connect
from ...onnx_export.encode.encoder import Encoder
from ..rerank.reranker import RerankedDocument, Reranker
from ..search.results import Hits
from ..search.scores import ScoreMode, as_mode
from ..search.searcher import Searcher
from .errors import ServiceError
from .observability import Metrics
from .settings import Settings
from .work import Workers, check_abandoned

T = TypeVar("T")

_TOGETHER = 128  # documents scored before looking whether somebody still waits
_WARM = "暖機運転"


@dataclass(frozen=True)
class Reranked:
    """Documents in their new order.

    Attributes:
        ranked: best first.
        missing: ids that could not be scored.
        cut: how many texts were cut at the limit.
    """

    ranked: list[RerankedDocument]
    missing: tuple[str, ...]
    cut: int

    def warnings(self, limit: int) -> list[str]:
        """What the client should know, in words."""
        found = []
        if self.cut:
            found.append(f"{self.cut} documents were cut at {limit:,} characters")
        if self.missing:
            found.append(f"{len(self.missing)} documents are not in the index and were left out")
        return found


class Service:
    """What the endpoints ask.

    Args:
        settings: of the service.
        encoder: the model; None loads the settings'.
        searchers: name → searcher of each index; None opens the settings'.

    Attributes:
        ready: whether everything is loaded.
        draining: whether the service is about to stop.
    """

    def __init__(
        self, settings: Settings, *, encoder: Encoder | None = None, searchers: Mapping[str, Searcher] | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.workers = Workers(settings.slots)
        self.metrics.watch(self.workers)
        self.searchers: dict[str, Searcher] = dict(searchers or {})
        self.ready = False
        self.draining = False
        self._given = encoder, searchers
        self._rerankers: dict[str, Reranker] = {}
        self._of_texts: Reranker | None = None

    def load(self) -> None:
        """Load the model, open the indexes, and do each kind of work once, so that no client waits for that.

        Raises as `Encoder.load` and `Searcher.open` do.
        """
        encoder, searchers = self._given
        if encoder is None and searchers:
            encoder = next(iter(searchers.values())).encoder
        if encoder is None:
            encoder = Encoder.load(self.settings.model, threads=self.settings.threads)
        if searchers is None:
            options = None if self.settings.storage_options is None else dict(self.settings.storage_options)
            self.searchers = {
                name: Searcher.open(connect(db, storage_options=options), table, encoder=encoder)
                for name, (db, table) in self.settings.indexes.items()
            }
        weight = self.settings.phrase_weight
        self._of_texts = Reranker(encoder, phrase_weight=weight)
        self._of_texts.rerank(_WARM, [_WARM])
        for name, searcher in self.searchers.items():
            self._rerankers[name] = Reranker(searcher=searcher, phrase_weight=weight)
            searcher.search(_WARM, k=1, phrase_weight=weight)
            self._warm_ids(name)
        self.ready = True

    @property
    def encoder(self) -> Encoder:
        """The model."""
        return self._texts().encoder

    @property
    def model(self) -> str:
        """The model's name."""
        return self.encoder.bundle.name

    async def run(self, task: Callable[[], T], started: Callable[[], None] = lambda: None) -> T:
        """``task`` in a worker."""
        return await self.workers.run(task, started)

    def refresh(self, name: str) -> bool:
        """Bring an index to its latest version; whether there was a later one."""
        if not self.searchers[name].refresh():
            return False
        self._warm_ids(name)
        return True

    def rerank(
        self,
        query: str,
        documents: Sequence[str | None],
        *,
        ids: Sequence[str | None] | None = None,
        index: str | None = None,
        k: int | None = None,
        score: ScoreMode,
    ) -> Reranked:
        """Documents by falling MaxSim, as `Reranker.rerank`, in pieces between which the work can be given up.

        Args:
            query: the question or keywords.
            documents: their texts; None for one that only the index has.
            ids: their ids in ``index``, as many; None if all are given by their texts.
            index: the name of an index; None is the first.
            k: only the best so many.
            score: what a score means.
        """
        limit = self.settings.max_text_chars
        texts = [text if text is None else text[:limit] for text in documents]
        cut = sum(text is not None and len(text) > limit for text in documents)
        reranker = self._texts() if ids is None else self._reranker(index)
        mode: ScoreMode = "raw" if score == "raw" else "mean"
        found: list[RerankedDocument] = []
        missing: list[str] = []
        for start in range(0, len(texts), _TOGETHER):
            check_abandoned()
            some = slice(start, start + _TOGETHER)
            part = reranker.rerank(query, texts[some], ids=None if ids is None else ids[some], score=mode)
            found += [replace(ranked, index=ranked.index + start) for ranked in part]
            missing += part.missing
            self.metrics.scored(stored=part.stored, encoded=part.encoded)
        found.sort(key=lambda ranked: (-ranked.score, ranked.index))
        found = found[:k]
        if score == "logit":
            odds = as_mode(np.array([ranked.score for ranked in found], np.float64), 1, "logit").tolist()
            found = [replace(ranked, score=value) for ranked, value in zip(found, odds, strict=True)]
        return Reranked(found, tuple(missing), cut)

    def embed(self, texts: Sequence[str], *, queries: bool) -> tuple[list[np.ndarray], int]:
        """Token vectors of each text, float32 (tokens, dim), and how many texts were cut at the limit."""
        limit = self.settings.max_text_chars
        short = [text[:limit] for text in texts]
        encode = self.encoder.encode_queries if queries else self.encoder.encode_documents
        vectors = encode(short)
        self.metrics.scored(encoded=len(texts))
        return vectors, sum(len(text) > limit for text in texts)

    def searcher(self, index: str | None) -> tuple[str, Searcher]:
        """Name and searcher of an index; of the first for None. Raises ServiceError 404 if there is none."""
        if not self.searchers:
            raise ServiceError(404, "no index is served here; start tansaku serve with --db and --table", "index")
        name = next(iter(self.searchers)) if index is None else index
        if name not in self.searchers:
            raise ServiceError(404, f"no such index; there are {', '.join(self.searchers)}", "index")
        return name, self.searchers[name]

    def search(self, index: str | None, ask: Callable[[Searcher], Hits]) -> tuple[str, Hits]:
        """An index's name, and what ``ask`` finds there."""
        name, searcher = self.searcher(index)
        try:
            hits = ask(searcher)
        except StorageError as error:
            raise ServiceError(503, "the index cannot be read at the moment", "storage") from error
        self.metrics.scored(stored=hits.scored)
        return name, hits

    def _texts(self) -> Reranker:
        if self._of_texts is None:
            raise ServiceError(503, "the model is being loaded", "loading")
        return self._of_texts

    def _reranker(self, index: str | None) -> Reranker:
        return self._rerankers[self.searcher(index)[0]]

    def _warm_ids(self, name: str) -> None:
        """Have the table of ids ready, which is made when it is first needed."""
        searcher = self.searchers[name]
        searcher.score_vectors(np.full((1, searcher.encoder.dim), searcher.encoder.dim**-0.5, np.float32), [])
        self.metrics.index(name, documents=len(searcher), version=searcher.version)


def check_lengths(service: Service, query: str, documents: int) -> None:
    """Refuse a query that is too long, and too many documents."""
    settings = service.settings
    check_query(service, query)
    if not documents:
        raise ServiceError(422, "the list of documents is empty; give at least one", "input")
    if documents > settings.max_documents:
        raise ServiceError(
            413,
            f"there are {documents:,} documents; at most {settings.max_documents:,} are ranked at once",
            "documents",
        )


def check_query(service: Service, query: str) -> None:
    """Refuse a query without a word, and one that is too long."""
    limit = service.settings.max_query_chars
    if not query.strip():
        raise ServiceError(422, "the query is empty; give at least one word", "input")
    if len(query) > limit:
        raise ServiceError(422, f"the query has {len(query):,} characters; at most {limit:,} are read", "input")

"""LangChain: a retriever over an index, and a document compressor that ranks what other retrievers find.

The vector store is in `langchain_store`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ....onnx_export.errors import MissingExtraError

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
    from pydantic import AliasChoices, ConfigDict, Field
except ImportError as error:
    raise MissingExtraError("langchain-core", "langchain") from error

from ...rerank.reranker import Reranker
from ...search.plan import Recall, SearchOptions, SourceName
from ...search.results import Hits
from ...search.scores import ScoreMode
from ...search.searcher import Searcher

__all__ = ["TansakuCompressor", "TansakuRetriever"]

RELEVANCE = "relevance_score"  # the key that LangChain's rerankers write

_logger = logging.getLogger(__name__)


class TansakuRetriever(BaseRetriever):
    """Searches an index.

    A document found has the hit's id, its text as ``page_content``, and as metadata the index's other columns,
    ``title`` (perhaps empty) and ``relevance_score``.

    Every field but ``searcher`` and ``score`` can be given for one call too: ``invoke(query, k=1, where="year < 50")``.

    Attributes:
        searcher: of the index.
        k: how many documents.
        recall: see `SearchOptions`, as for all that follow.
        where: a condition over the index's columns, in LanceDB's SQL.
        ids: only these documents are found; how many of them the index has not is logged.
        source: where candidates come from.
        bm25_weight: what BM25 counts beside MaxSim, where ``source`` is "fused" or "text".
        phrase_weight: what the neighbours of a token count.
        nprobe: centroids probed for each query token.
        candidates: documents that may be scored by their codes.
        score: scale of ``relevance_score``; see `Reranker.rerank`.

    Raises pydantic's ValidationError, a ValueError, for a field of another type or below 1; calls raise InputError for
    an empty query and an option that cannot be used.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    searcher: Searcher
    k: int = Field(default=4, ge=1)
    recall: Recall = "balanced"
    where: str | None = None
    ids: list[str] | None = None
    source: SourceName = "lists"
    bm25_weight: float = 0.0
    phrase_weight: float | None = None
    nprobe: int | None = None
    candidates: int | None = None
    score: ScoreMode = "mean"

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **options: Any
    ) -> list[Document]:
        own = {field.name: getattr(self, field.name) for field in fields(SearchOptions) if field.name != "k"}
        hits = search(self.searcher, query, self.k if k is None else k, own | options)
        return [
            Document(hit.text, id=hit.id, metadata={**hit.fields, "title": hit.title, RELEVANCE: score})
            for hit, score in zip(hits, hits.scores(self.score), strict=True)
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, **options: Any
    ) -> list[Document]:
        sync = run_manager.get_sync()
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=sync, k=k, **options)


class TansakuCompressor(BaseDocumentCompressor):
    """Ranks documents by MaxSim: those that the reranker's index has by its codes, the others by their texts.

    Documents come back as copies whose metadata has ``relevance_score``. One whose id is in the index is scored as it
    was when it was indexed, whatever its text is now.

    Attributes:
        reranker: with a searcher for ranking by id; the default ranks by text, with the model that ships inside.
        k: only the best so many; None is all. May be given as ``top_n``, LangChain's name for it.
        score: scale of ``relevance_score``; see `Reranker.rerank`.
        id_key: metadata key that holds the id in our index; None takes ``Document.id``.

    Raises pydantic's ValidationError, a ValueError, for ``k`` below 1 and an unknown ``score``; calls raise InputError
    for an empty query.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: Reranker = Field(default_factory=Reranker)
    k: int | None = Field(default=None, ge=1, validation_alias=AliasChoices("k", "top_n"))
    score: ScoreMode = "mean"
    id_key: str | None = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best of ``documents`` for ``query``, best first."""
        texts = [document.page_content for document in documents]
        ids = [d.id if self.id_key is None else d.metadata.get(self.id_key) for d in documents]
        return [
            documents[r.index].model_copy(update={"metadata": {**documents[r.index].metadata, RELEVANCE: r.score}})
            for r in self.reranker.rerank(query, texts, ids=ids, k=self.k, score=self.score)
        ]


def search(searcher: Searcher, query: str, k: int, options: Mapping[str, Any]) -> Hits:
    """`Searcher.search`; how many ids are missing goes into the log, as documents cannot say it."""
    hits = searcher.search(query, **vars(SearchOptions.of({"k": k, **options})))
    if hits.missing:
        _logger.warning("%d of the ids that the search was restricted to are not in the index", len(hits.missing))
    return hits

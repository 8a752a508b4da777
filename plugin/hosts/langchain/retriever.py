"""LangChain: a retriever over an index, and a document compressor that ranks what other retrievers find.

```python
from tansaku import Searcher
from tansaku.plugin.hosts.langchain import TansakuRetriever
documents = TansakuRetriever(searcher=Searcher.open("db", "docs"), k=5).invoke("質問")
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

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
from ...search.choices import LEAST_RECALL, RecallName, ScoreMode, SourceName
from ...search.plan import SearchOptions
from ...search.results import Hit
from ...search.searcher import Searcher
from .._framework_search import rerank, search
from .metadata import stored_metadata

__all__ = ["TansakuCompressor", "TansakuRetriever"]

RELEVANCE = "relevance_score"  # the key that LangChain's rerankers write

# What a search may be given beside `k`: fields of the retriever, and arguments of one call.
_OPTIONS = (
    "recall",
    "where",
    "ids",
    "passages",
    "source",
    "bm25_weight",
    "phrase_weight",
    "nprobe",
    "candidates",
    "fields",
)


class TansakuRetriever(BaseRetriever):
    """Searches an index.

    A document found has the id of the index's document, its text as ``page_content``, and as metadata the index's other
    columns, ``title`` (perhaps empty) and ``relevance_score``. In the table of a `TansakuVectorStore`, metadata is what
    the store was given, with ``relevance_score``.

    Every field except ``searcher`` and ``score`` can also be given for one call:
    ``invoke(query, k=1, where="year < 50")``.

    Attributes:
        searcher: searcher of the index.
        k: number of documents; 4 by default, as in LangChain's own retrievers.
        recall: how much of the index is examined; see `SearchOptions`, as for the fields that follow.
        where: condition over the index's columns, such as ``"year < 1950"``.
        ids: only these documents are found; the number of unknown ids is logged.
        passages: whether each passage is found on its own, in an index of passages; False finds documents.
        source: where candidates come from.
        bm25_weight: weight given to the BM25 score, which is added to MaxSim, if ``source`` is "fused" or "text".
        phrase_weight: weight given to the similarity of neighbouring tokens.
        nprobe: number of centroids probed for each query token.
        candidates: number of documents that may be scored by their codes.
        fields: what is read of each document found: ``title``, ``text`` and columns; None reads all.
        score: scale of ``relevance_score``; see `Reranker.rerank`.

    Raises:
        pydantic.ValidationError: (a ValueError) an unknown field, or a value of another type or below 1.
        InputError: raised by calls, for an empty query, an unknown option and one that cannot be used.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    searcher: Searcher
    k: int = Field(default=4, ge=1)
    recall: RecallName | Annotated[float, Field(ge=LEAST_RECALL, le=1, strict=True)] = "balanced"
    where: str | None = None
    ids: list[str] | None = None
    passages: bool = False
    source: SourceName = "lists"
    bm25_weight: float = 0.0
    phrase_weight: float | None = None
    nprobe: int | None = None
    candidates: int | None = None
    fields: list[str] | None = None
    score: ScoreMode = "mean"

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **options: Any
    ) -> list[Document]:
        own = {name: getattr(self, name) for name in _OPTIONS}
        hits = search(self.searcher, query, SearchOptions.of({"k": self.k if k is None else k, **own, **options}))
        return [
            Document(hit.text, id=hit.id, metadata={**_metadata(hit), RELEVANCE: score})
            for hit, score in zip(hits, hits.scores(self.score), strict=True)
        ]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, **options: Any
    ) -> list[Document]:
        sync = run_manager.get_sync()
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=sync, k=k, **options)


def _metadata(hit: Hit) -> dict[str, Any]:
    stored = stored_metadata(hit.fields)
    return {**hit.fields, "title": hit.title} if stored is None else stored


class TansakuCompressor(BaseDocumentCompressor):
    """Ranks documents by MaxSim: documents that the reranker's index has by its codes, the others by their texts.

    Documents come back as copies whose metadata has ``relevance_score``. A document whose id is in the index is scored
    as it was when it was indexed, whatever its text is now.

    Attributes:
        reranker: a reranker with a searcher, to rank by id; the default ranks by text, with the model that ships
            inside.
        k: number of documents that come back; None is all. May be given as ``top_n``, LangChain's name for it.
        score: scale of ``relevance_score``; see `Reranker.rerank`.
        id_key: metadata key with the id in our index; None takes ``Document.id``.

    Raises:
        pydantic.ValidationError: (a ValueError) an unknown field, ``k`` below 1 or an unknown ``score``.
        InputError: raised by calls, for an empty query.
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
            for r in rerank(self.reranker, query, texts, ids, k=self.k, score=self.score)
        ]

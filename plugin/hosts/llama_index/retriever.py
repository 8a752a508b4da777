"""LlamaIndex: a retriever over an index.

```python
from tansaku import Searcher
from tansaku.plugin.hosts.llama_index import TansakuRetriever
nodes = TansakuRetriever(Searcher.open("db", "docs"), similarity_top_k=5).retrieve("質問")
```
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Sequence

from ....onnx_export.errors import MissingExtraError
from ....onnx_export.kinds import check_whole

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.schema import NodeWithScore, QueryBundle
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index") from error

from ...search.choices import Recall, ScoreMode, SourceName
from ...search.plan import SearchOptions
from ...search.scores import check_mode
from ...search.searcher import Searcher
from .._framework_search import search
from .nodes import node_of

_logger = logging.getLogger(__name__)


class TansakuRetriever(BaseRetriever):
    """Searches an index.

    In an index of `node_records`, the nodes found are those that were given, with their relationships. In any other, a
    node has the id and text of its document, and its metadata has the index's other columns, and ``title`` if the
    document has one.

    Args:
        searcher: searcher of the index.
        similarity_top_k: number of nodes.
        score: scale of the nodes' scores; see `Reranker.rerank`.
        recall: how much of the index is examined; see `SearchOptions`, as for the arguments that follow.
        where: condition over the index's columns, such as ``"year < 1950"``.
        ids: only these documents are found; the number of unknown ids is logged.
        passages: whether each passage is found on its own, in an index of passages; False finds documents.
        source: where candidates come from.
        bm25_weight: weight given to the BM25 score, which is added to MaxSim.
        phrase_weight: weight given to the similarity of neighbouring tokens.
        nprobe: number of centroids probed for each query token.
        candidates: number of documents that may be scored by their codes.
        fields: what is read of each document found: ``title``, ``text`` and columns; None reads all. A node is whole
            only with the column ``llama_index_node``.
        callback_manager: as in LlamaIndex.
        verbose: as in LlamaIndex.
        k: deprecated name of ``similarity_top_k``.

    Attributes:
        searcher: searcher of the index.
        options: the options of every search, a `SearchOptions`.
        score: scale of the nodes' scores.

    Raises:
        InputError: an option that cannot be used; retrieving raises it for an empty query too.
    """

    def __init__(
        self,
        searcher: Searcher,
        similarity_top_k: int = 10,
        *,
        score: ScoreMode = "mean",
        recall: Recall = "balanced",
        where: str | None = None,
        ids: Sequence[str] | None = None,
        passages: bool = False,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        fields: Sequence[str] | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        k: int | None = None,
    ) -> None:
        if k is not None:
            warnings.warn("k is deprecated; use similarity_top_k", DeprecationWarning, stacklevel=2)
            similarity_top_k = k
        check_whole("similarity_top_k", similarity_top_k)
        options = SearchOptions(
            k=similarity_top_k,
            recall=recall,
            where=where,
            ids=ids,
            passages=passages,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
            fields=fields,
        )
        check_mode(score)
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self.searcher = searcher
        self.options = options
        self.score: ScoreMode = score

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if query_bundle.custom_embedding_strs or query_bundle.embedding is not None:
            _logger.warning(
                "the query's own embedding (custom_embedding_strs or embedding) is ignored; its text counts"
            )
        hits = search(self.searcher, query_bundle.query_str, self.options)
        scores = hits.scores(self.score)
        return [NodeWithScore(node=node_of(hit), score=score) for hit, score in zip(hits, scores, strict=True)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

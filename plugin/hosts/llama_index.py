"""LlamaIndex: a retriever over an index, and a node postprocessor that ranks what other retrievers find."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ...onnx_export.errors import InputError, MissingExtraError

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
    from llama_index_instrumentation import get_dispatcher
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index") from error

from ..rerank.reranker import Reranker
from ..search.plan import SearchOptions
from ..search.results import Hit
from ..search.scores import ScoreMode, check_mode
from ..search.searcher import Searcher

if TYPE_CHECKING:
    pass

__all__ = ["TansakuRerank", "TansakuRetriever"]

_logger = logging.getLogger(__name__)
_dispatcher = get_dispatcher(__name__)


class TansakuRetriever(BaseRetriever):
    """Searches an index.

    A node found has the hit's id and text, and as metadata the index's other columns, and ``title`` where there is one.

    Args:
        searcher: of the index.
        k: how many nodes.
        score: scale of the nodes' scores; see `Reranker.rerank`.
        callback_manager: LlamaIndex's.
        verbose: LlamaIndex's.
        options: of every search; see `SearchOptions`. How many of its ``ids`` the index has not is logged.

    Raises InputError for ``k`` below 1 and options that cannot be used; retrieving raises it for an empty query too.
    """

    def __init__(
        self,
        searcher: Searcher,
        k: int = 10,
        *,
        score: ScoreMode = "mean",
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        checked = SearchOptions.of({"k": k, **options})
        check_mode(score)
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self.searcher = searcher
        self.k = k
        self.score: ScoreMode = score
        self.options = checked

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.searcher.search(query_bundle.query_str, **vars(self.options))
        if hits.missing:
            _logger.warning("%d of the ids that the search was restricted to are not in the index", len(hits.missing))
        scores = hits.scores(self.score)
        return [NodeWithScore(node=_node(hit), score=score) for hit, score in zip(hits, scores, strict=True)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class TansakuRerank(BaseNodePostprocessor):
    """Ranks nodes by MaxSim: those that the reranker's index has under their ``node_id`` by its codes, others by text.

    Nodes come back with new scores; those given stay as they are. The text of a node is what LlamaIndex would embed,
    metadata included. A node whose id is in the index is scored as it was when it was indexed.

    Args:
        reranker: with a searcher for ranking by id; None ranks by text, with the model that ships inside.
        top_n: how many nodes come back.
        score: scale of the scores; see `Reranker.rerank`.
        keep_retrieval_score: keep the old score in the node's metadata, as ``retrieval_score``.
        callback_manager: LlamaIndex's.

    Raises pydantic's ValidationError, a ValueError, for ``top_n`` below 1 and an unknown ``score``; calls raise
    InputError without a query and for an empty one.
    """

    top_n: int = Field(ge=1, description="How many nodes come back.")
    score: ScoreMode = Field(description="Scale of the scores.")
    keep_retrieval_score: bool = Field(description="Keep the old score in the node's metadata.")
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | None = None,
        *,
        top_n: int = 10,
        score: ScoreMode = "mean",
        keep_retrieval_score: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        fields: dict[str, Any] = {"top_n": top_n, "score": score, "keep_retrieval_score": keep_retrieval_score}
        super().__init__(**fields, callback_manager=callback_manager or CallbackManager())
        self._reranker = reranker or Reranker()

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name for the class."""
        return "TansakuRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("there is no query to rank by; give query_bundle or query_str")
        query, model = query_bundle.query_str, self._reranker.encoder.bundle.name
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [found.node.get_content(MetadataMode.EMBED) for found in nodes]
            ids = [found.node.node_id for found in nodes]
            ranked = self._reranker.rerank(query, texts, ids=ids, k=self.top_n, score=self.score)
            best = [self._scored(nodes[r.index], r.score) for r in ranked]
            event.on_end(payload={EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _scored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        node = found.node
        if self.keep_retrieval_score:
            node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": found.score}})
        return found.model_copy(update={"node": node, "score": score})


def _node(hit: Hit) -> TextNode:
    title = {"title": hit.title} if hit.title else {}
    return TextNode(id_=hit.id, text=hit.text, metadata={**hit.fields, **title})

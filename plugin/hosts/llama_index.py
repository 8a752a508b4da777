"""LlamaIndex: a retriever over an index, and a node postprocessor that ranks what other retrievers find.

```python
from tansaku import Searcher
from tansaku.plugin.hosts.llama_index import TansakuRetriever
nodes = TansakuRetriever(Searcher.open("db", "docs"), similarity_top_k=5).retrieve("質問")
```

`node_records` makes the documents of an index from nodes, so that the retriever gives them back as they were.
"""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from ...indexer.read.documents import RESERVED_FIELDS
from ...indexer.table.database import location_of
from ...onnx_export.encode.encoder import DEFAULT_BUNDLE, Encoder
from ...onnx_export.errors import InputError, MissingExtraError

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseNode, Document, MetadataMode, NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
    from llama_index_instrumentation import get_dispatcher
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index") from error

from ..rerank.reranker import Reranker
from ..search.choices import Recall, ScoreMode, SourceName
from ..search.plan import SearchOptions
from ..search.results import Hit
from ..search.scores import check_mode
from ..search.searcher import Searcher
from ._framework_search import rerank, search

__all__ = ["TansakuRerank", "TansakuRetriever", "node_records"]

NODE_COLUMN = "llama_index_node"  # the whole node, JSON

_logger = logging.getLogger(__name__)
_dispatcher = get_dispatcher(__name__)


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
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        k: int | None = None,
    ) -> None:
        if k is not None:
            warnings.warn("k is deprecated; use similarity_top_k", DeprecationWarning, stacklevel=2)
            similarity_top_k = k
        if similarity_top_k < 1:
            raise InputError(f"similarity_top_k is {similarity_top_k}; it must be 1 or more")
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
        return [NodeWithScore(node=_node(hit), score=score) for hit, score in zip(hits, scores, strict=True)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class TansakuRerank(BaseNodePostprocessor):
    """Ranks nodes by MaxSim: nodes whose ``node_id`` the reranker's index has by its codes, the others by their texts.

    Nodes come back as copies with new scores. The text of a node is what LlamaIndex would embed, metadata included. A
    node whose id is in the index is scored as it was when it was indexed.

    `to_dict` and pickle keep where the reranker's index and model are; `from_dict` opens them again.

    Args:
        reranker: a reranker with a searcher, to rank by id; None ranks by text, with the model that ships inside.
        top_n: number of nodes that come back.
        score: scale of the scores; see `Reranker.rerank`.
        keep_retrieval_score: keep the old score in the node's metadata, as ``retrieval_score``.
        callback_manager: as in LlamaIndex.

    Raises:
        pydantic.ValidationError: (a ValueError) ``top_n`` below 1 or an unknown ``score``.
        InputError: raised by calls, if there is no query or an empty one.
    """

    top_n: int = Field(ge=1, description="Number of nodes that come back.")
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

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The fields, and the places of index and model, as LlamaIndex writes them down.

        Raises:
            InputError: the index has storage options, which may be credentials, or cannot be found again by its place;
                or the model was not loaded from a bundle.
        """
        return {**super().to_dict(**kwargs), "reranker": _written(self._reranker)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> TansakuRerank:
        """The postprocessor that `to_dict` has described.

        Args:
            data: what `to_dict` gave.
            kwargs: arguments of the class that replace those in ``data``, such as ``reranker``.

        Raises:
            InputError: the model has changed.
            TansakuError: the index or the model cannot be opened.
        """
        fields = {**data, **kwargs}
        fields.pop("class_name", None)
        if isinstance(fields.get("reranker"), dict):
            fields["reranker"] = _read(fields["reranker"])
        return cls(**fields)

    def __reduce__(self) -> tuple[Any, ...]:
        # LlamaIndex leaves out what cannot be pickled, and makes the rest anew with another index and model.
        fields = {name: getattr(self, name) for name in ("top_n", "score", "keep_retrieval_score")}
        callbacks = self.callback_manager if self.callback_manager.handlers else None
        return _made_again, (type(self), self._reranker, fields, callbacks)

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
            ranked = rerank(self._reranker, query, texts, ids, k=self.top_n, score=self.score)
            best = [self._scored(nodes[r.index], r.score) for r in ranked]
            event.on_end(payload={EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _scored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        node = found.node
        if self.keep_retrieval_score:
            node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": found.score}})
        return found.model_copy(update={"node": node, "score": score})


def node_records(nodes: Iterable[BaseNode], *, columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    r"""Documents for `Index.create`, `add` and `upsert` that hold nodes; `TansakuRetriever` gives the nodes back.

    What is searched is what LlamaIndex would embed: the text, and the metadata that is not excluded from embeddings.

    Args:
        nodes: the nodes, none of them empty.
        columns: keys of the metadata to have columns of their own, for conditions (``where="year < 1950"``).

    Returns:
        A document for each node.

    Raises:
        InputError: a node that JSON cannot keep, or a name in ``columns`` that the index itself uses.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> (record,) = node_records([TextNode(id_="a", text="京都", metadata={"year": 794})], columns=["year"])
        >>> record["id"], record["text"], record["year"]
        ('a', 'year: 794\n\n京都', 794)
    """
    if isinstance(columns, str):
        raise InputError("columns is one string; give a list of metadata keys")
    for name in columns:
        if name in (*RESERVED_FIELDS, NODE_COLUMN):
            raise InputError(f"columns has {name!r}, a name that the index itself uses; rename the metadata key")
    return [
        {
            **{name: node.metadata.get(name) for name in columns},
            "id": node.node_id,
            "text": node.get_content(MetadataMode.EMBED),
            NODE_COLUMN: _node_json(node),
        }
        for node in nodes
    ]


def _node_json(node: BaseNode) -> str:
    try:
        whole = node_to_metadata_dict(node)
        return json.dumps({name: whole[name] for name in ("_node_content", "_node_type")}, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"node {node.node_id!r} holds a value that JSON cannot keep ({error}); use text or numbers"
        ) from error


def _written(reranker: Reranker) -> dict[str, Any]:
    """Where a reranker's index and model are."""
    encoder, searcher = reranker.encoder, reranker.searcher
    if encoder.folder is None:
        raise InputError(
            f"the model {encoder.bundle.name!r} was not loaded from a bundle, so the postprocessor cannot be written "
            "down; use Encoder.load"
        )
    own = encoder.folder == DEFAULT_BUNDLE.absolute()
    place: dict[str, Any] = {
        "model": None if own else str(encoder.folder),
        "fingerprint": encoder.bundle.fingerprint,
        "phrase_weight": reranker.given_phrase_weight,
    }
    if searcher is not None:
        database, table = searcher.location
        uri, options = location_of(database)
        if options:
            raise InputError(
                f"the index {table!r} has storage options, which may be credentials and are not written down; give "
                "them in the environment, or give from_dict the reranker"
            )
        place |= {"db": uri, "table": table}
    return place


def _read(place: dict[str, Any]) -> Reranker:
    encoder = Encoder.load(place["model"])
    if encoder.bundle.fingerprint != place["fingerprint"]:
        raise InputError(
            f"the model in {place['model'] or 'tansaku'} is not the one that was written down; use that one"
        )
    if "table" not in place:
        return Reranker(encoder, phrase_weight=place["phrase_weight"])
    searcher = Searcher.open(place["db"], place["table"], encoder=encoder)
    return Reranker(searcher=searcher, phrase_weight=place["phrase_weight"])


def _made_again(
    kind: type[TansakuRerank], reranker: Reranker, fields: dict[str, Any], callbacks: CallbackManager | None
) -> TansakuRerank:
    return kind(reranker, **fields, callback_manager=callbacks)


def _node(hit: Hit) -> BaseNode:
    if content := hit.fields.get(NODE_COLUMN):
        stored = json.loads(content)
        if stored["_node_type"] == Document.class_name():  # LlamaIndex's function makes a TextNode of it
            return Document.from_json(stored["_node_content"])
        return metadata_dict_to_node(stored)
    title = {"title": hit.title} if hit.title else {}
    fields = {name: value for name, value in hit.fields.items() if name != NODE_COLUMN}
    return TextNode(id_=hit.id, text=hit.text, metadata={**fields, **title})

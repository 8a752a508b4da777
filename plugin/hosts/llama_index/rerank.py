"""LlamaIndex: a node postprocessor that ranks what other retrievers find."""

from __future__ import annotations

from typing import Any

from ....indexer.table.database import location_of
from ....onnx_export.encode.encoder import DEFAULT_BUNDLE, Encoder
from ....onnx_export.errors import InputError, MissingExtraError

try:
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
    from llama_index_instrumentation import get_dispatcher
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index") from error

from ...rerank.reranker import Reranker
from ...search.choices import ScoreMode
from ...search.searcher import Searcher
from .._framework_search import rerank

_dispatcher = get_dispatcher(__name__)


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

"""Components for Haystack: a retriever over a `TansakuDocumentStore`, and a ranker for documents of any store."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....indexer.errors import TableNotFoundError
from ....onnx_export.errors import InputError, MissingExtraError
from ...rerank.reranker import Reranker
from ...search.plan import Recall
from ...search.scores import ScoreMode
from .filters import Filters
from .store import TansakuDocumentStore, latest_searcher, shared_encoder, title_of

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack") from error

__all__ = ["TansakuDocumentStore", "TansakuRanker", "TansakuRetriever"]

_log = logging.getLogger(__name__)


@component
class TansakuRetriever:
    """Finds documents of a `TansakuDocumentStore` by late interaction.

    Args:
        document_store: the store.
        filters: only documents for which they hold are found.
        top_k: how many.
        filter_policy: whether filters given to `run` replace these or are added to them.
        score: of the documents returned: "mean" (a mean cosine), "raw" or "logit"; see `Reranker.rerank`.
        recall: "fast", "balanced" or "exact"; see `SearchOptions`.

    Raises InputError for ``top_k`` below 1 and for another document store.
    """

    def __init__(
        self,
        document_store: TansakuDocumentStore,
        *,
        filters: Filters | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        score: ScoreMode = "mean",
        recall: Recall = "balanced",
    ) -> None:
        if not isinstance(document_store, TansakuDocumentStore):
            raise InputError(f"document_store is {type(document_store).__name__}; give a TansakuDocumentStore")
        self.document_store = document_store
        self.filters = filters
        self.top_k = _checked_top_k(top_k)
        self.filter_policy = filter_policy
        self.score: ScoreMode = score
        self.recall: Recall = recall

    def to_dict(self) -> dict[str, Any]:
        """What the component was made with, the store as its own `to_dict` says."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            score=self.score,
            recall=self.recall,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TansakuRetriever:
        """The component that `to_dict` has described."""
        parameters = dict(data.get("init_parameters", {}))
        if isinstance(parameters.get("document_store"), dict):
            # Here and not by Haystack, which would import the class that is named, if it is told to trust it.
            parameters["document_store"] = TansakuDocumentStore.from_dict(parameters["document_store"])
        if "filter_policy" in parameters:
            parameters["filter_policy"] = FilterPolicy.from_str(parameters["filter_policy"])
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    def warm_up(self) -> None:
        """Load the model and open the table."""
        self.document_store.warm_up()

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters | None = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """Search.

        Args:
            query: the question or keywords.
            filters: beside or instead of the component's own, as its ``filter_policy`` says.
            top_k: instead of the component's own.

        Returns:
            ``documents``, best first.

        Raises InputError for an empty query and ``top_k`` below 1, FilterError for filters that Haystack cannot read.
        """
        found = self.document_store.late_interaction_retrieval(
            query,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
            score=self.score,
            recall=self.recall,
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: Filters | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


@component
class TansakuRanker:
    """Puts documents that any store has found in the order of MaxSim.

    Documents whose ids are in the index ``table`` are scored by its codes, without encoding: their content is taken to
    be what was indexed. The others are encoded, which takes some milliseconds each.

    Args:
        db: the database folder or URI of an index that has the documents; None encodes all of them.
        table: name of its table.
        model: an encoder bundle's folder; None is the model that ships inside.
        top_k: how many documents are returned.
        score: of the documents returned: "mean" (a mean cosine), "raw" or "logit"; see `Reranker.rerank`.
        meta_fields_to_embed: fields of the metadata, such as a title, that are encoded before the content.

    Raises InputError for ``top_k`` below 1, and for a database without a table or a table without a database.
    """

    def __init__(
        self,
        db: str | Path | None = None,
        table: str | None = None,
        *,
        model: str | Path | None = None,
        top_k: int = 10,
        score: ScoreMode = "mean",
        meta_fields_to_embed: list[str] | None = None,
    ) -> None:
        if (db is None) != (table is None):
            raise InputError("an index is a database and a table; give both, or neither to encode all documents")
        self.db = None if db is None else str(db)
        self.table = table
        self.model = None if model is None else str(model)
        self.top_k = _checked_top_k(top_k)
        self.score: ScoreMode = score
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self._latest = None if db is None or table is None else latest_searcher(str(db), table, self.model)
        self._kept: Reranker | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the component was made with."""
        return default_to_dict(
            self,
            db=self.db,
            table=self.table,
            model=self.model,
            top_k=self.top_k,
            score=self.score,
            meta_fields_to_embed=self.meta_fields_to_embed,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TansakuRanker:
        """The component that `to_dict` has described."""
        return default_from_dict(cls, data)

    def warm_up(self) -> None:
        """Load the model and open the table."""
        self._reranker()

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank.

        Args:
            query: the question or keywords.
            documents: in any order; of those with the same id the first counts. They are not changed.
            top_k: instead of the component's own.

        Returns:
            ``documents``, copies with their new scores, best first. One that has no content and is not in the index
            cannot be scored; it is left out, and a warning logged.

        Raises InputError for an empty query and ``top_k`` below 1, TableNotFoundError if the index is not there.
        """
        top_k = _checked_top_k(self.top_k if top_k is None else top_k)
        by_id: dict[str, Document] = {}
        for document in documents:
            by_id.setdefault(document.id, document)
        different = list(by_id.values())
        if not different:
            return {"documents": []}
        ranked = self._reranker().rerank(
            query,
            [self._text(document) for document in different],
            ids=list(by_id),
            k=top_k,
            score=self.score,
        )
        if ranked.missing:
            _log.warning(
                "%d of %d documents have neither content nor a place in the index and were left out",
                len(ranked.missing),
                len(different),
            )
        return {"documents": [replace(different[r.index], score=r.score) for r in ranked]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def _reranker(self) -> Reranker:
        searcher = None if self._latest is None else self._latest.or_none()
        if self._latest is not None and searcher is None:
            raise TableNotFoundError(f"table {self.table!r}: not in {self.db}; index the documents before ranking them")
        kept = self._kept
        if kept is None or kept.searcher is not searcher:
            kept = Reranker(searcher=searcher) if searcher is not None else Reranker(shared_encoder(self.model))
            self._kept = kept  # it remembers the vectors of queries
        return kept

    def _text(self, document: Document) -> str | None:
        title = title_of(document, self.meta_fields_to_embed)
        return f"{title} {document.content}" if title and document.content else document.content


def _checked_top_k(top_k: int) -> int:
    if top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be 1 or more")
    return top_k

"""Components for Haystack: a retriever over a `TansakuDocumentStore`, and a ranker for documents of any store."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....indexer.errors import TableNotFoundError
from ....onnx_export.encode.bundle import check_weight
from ....onnx_export.errors import InputError, MissingExtraError
from ....onnx_export.kinds import check_whole
from ...rerank.reranker import Reranker
from ...search.choices import Recall, ScoreMode, SourceName
from ...search.plan import SearchOptions
from ...search.scores import check_mode
from .._framework_search import options_but_k, rerank
from .filters import Filters
from .location import Location, StorageOptions, as_path, read_options, shared_encoder, written_options
from .store import TansakuDocumentStore, title_of

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.document_stores.types import FilterPolicy, apply_filter_policy
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack") from error

__all__ = ["TansakuDocumentStore", "TansakuRanker", "TansakuRetriever"]

_logger = logging.getLogger(__name__)


@component
class TansakuRetriever:
    """Finds documents of a `TansakuDocumentStore` by late interaction.

    Args:
        document_store: the store.
        filters: only documents that match this filter of Haystack's are found.
        top_k: number of documents.
        filter_policy: whether filters given to `run` replace these or are added to them.
        score: scale of the documents' scores: "mean" (a mean cosine), "raw" or "logit"; see `Reranker.rerank`.
        recall: how much of the index is examined: "fast", "balanced", "exact" or a number; see `SearchOptions`, as for
            the arguments that follow.
        where: condition over the table's columns, such as ``"year < 1950"``; for tables that the store has not made.
        ids: only these documents are found; the number of unknown ids is logged.
        passages: whether each passage is found on its own, in an index of passages; False finds documents.
        source: where candidates come from.
        bm25_weight: weight given to the BM25 score, which is added to MaxSim.
        phrase_weight: weight given to the similarity of neighbouring tokens.
        nprobe: number of centroids probed for each query token.
        candidates: number of documents that may be scored by their codes.
        fields: what is read of each document found: ``title``, ``text`` and columns; None reads all, as the metadata of
            documents that the store has written needs.

    Raises:
        InputError: an option that cannot be used, or another document store.
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
        where: str | None = None,
        ids: list[str] | None = None,
        passages: bool = False,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        fields: list[str] | None = None,
    ) -> None:
        if not isinstance(document_store, TansakuDocumentStore):
            raise InputError(f"document_store is {type(document_store).__name__}; give a TansakuDocumentStore")
        self.document_store = document_store
        self.filters = filters
        self.filter_policy = filter_policy
        self.score: ScoreMode = check_mode(score)
        self.options = SearchOptions(
            k=check_whole("top_k", top_k),
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

    def to_dict(self) -> dict[str, Any]:
        """The arguments of the component, as Haystack writes them down."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.options.k,
            filter_policy=self.filter_policy.value,
            score=self.score,
            **options_but_k(self.options),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TansakuRetriever:
        """The component that `to_dict` has described."""
        parameters = dict(data.get("init_parameters", {}))
        if isinstance(parameters.get("document_store"), dict):
            # Not by Haystack, which would import the class that is named, if it is allowed to.
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
            filters: a filter that replaces the component's own or is added to it, as ``filter_policy`` says.
            top_k: number of documents; None is the component's own.

        Returns:
            ``documents``, best first.

        Raises:
            InputError: an empty query, ``top_k`` below 1, or a condition that cannot be used.
            FilterError: Haystack cannot read the filters.
        """
        found = self.document_store.late_interaction_retrieval(
            query,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.options.k if top_k is None else top_k,
            score=self.score,
            **options_but_k(self.options),
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

    Documents whose ids are in the index are scored by its codes, without encoding: their content is taken to be what
    was indexed. The others are encoded, which takes some milliseconds each.

    Args:
        db: database folder or URI of an index that has the documents; None encodes all of them.
        table: name of its table.
        model: folder of an encoder bundle; None is the model that ships inside.
        threads: number of threads that encode; None is the number of usable cores.
        top_k: number of documents returned.
        score: scale of the documents' scores: "mean" (a mean cosine), "raw" or "logit"; see `Reranker.rerank`.
        phrase_weight: weight given to the similarity of neighbouring tokens; see `SearchOptions`.
        meta_fields_to_embed: fields of the metadata, such as a title, that are encoded before the content.
        storage_options: LanceDB's options for object stores; as in `TansakuDocumentStore`.

    Raises:
        InputError: an option that cannot be used, or only one of database and table.
    """

    def __init__(
        self,
        db: str | Path | None = None,
        table: str | None = None,
        *,
        model: str | Path | None = None,
        threads: int | None = None,
        top_k: int = 10,
        score: ScoreMode = "mean",
        phrase_weight: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        storage_options: StorageOptions | None = None,
    ) -> None:
        if (db is None) != (table is None):
            raise InputError("an index is a database and a table; give both, or neither to encode all documents")
        self.db = as_path(db)
        self.table = table
        self.model = as_path(model)
        self.threads = threads
        self.top_k = check_whole("top_k", top_k)
        self.score: ScoreMode = check_mode(score)
        self.phrase_weight = None if phrase_weight is None else check_weight("phrase_weight", phrase_weight)
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self.storage_options = storage_options
        self._latest = None
        if db is not None and table is not None:
            self._latest = Location(str(db), table, self.model, threads, storage_options).latest_searcher()
        self._kept: Reranker | None = None

    def to_dict(self) -> dict[str, Any]:
        """The arguments of the component, as Haystack writes them down."""
        return default_to_dict(
            self,
            db=self.db,
            table=self.table,
            model=self.model,
            threads=self.threads,
            top_k=self.top_k,
            score=self.score,
            phrase_weight=self.phrase_weight,
            meta_fields_to_embed=self.meta_fields_to_embed,
            storage_options=written_options(self.storage_options),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TansakuRanker:
        """The component that `to_dict` has described."""
        parameters = dict(data.get("init_parameters", {}))
        if "storage_options" in parameters:
            parameters["storage_options"] = read_options(parameters["storage_options"])
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    def warm_up(self) -> None:
        """Load the model and open the table."""
        self._reranker()

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank.

        Args:
            query: the question or keywords.
            documents: documents in any order; the first counts of those with the same id. They are not changed.
            top_k: number of documents returned; None is the component's own.

        Returns:
            ``documents``, copies with their new scores, best first. A document that has no content and is not in the
            index cannot be scored: it is left out, and a warning is logged.

        Raises:
            InputError: an empty query, or ``top_k`` below 1.
            TableNotFoundError: the index does not exist.
        """
        top_k = check_whole("top_k", self.top_k if top_k is None else top_k)
        by_id: dict[str, Document] = {}
        for document in documents:
            by_id.setdefault(document.id, document)
        different = list(by_id.values())
        if not different:
            return {"documents": []}
        texts = [self._text(document) for document in different]
        ranked = rerank(self._reranker(), query, texts, list(by_id), k=top_k, score=self.score)
        if ranked.missing:
            _logger.warning(
                "%d of %d documents have neither content nor an entry in the index and were left out",
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
            encoder = shared_encoder(self.model, self.threads) if searcher is None else None
            kept = Reranker(encoder, searcher=searcher, phrase_weight=self.phrase_weight)
            self._kept = kept  # it remembers the vectors of queries
        return kept

    def _text(self, document: Document) -> str | None:
        title = title_of(document, self.meta_fields_to_embed)
        return f"{title} {document.content}" if title and document.content else document.content

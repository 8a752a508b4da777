"""LlamaIndex: a vector store in a tansaku index.

```python
from llama_index.core import MockEmbedding, VectorStoreIndex
from tansaku.plugin.hosts.llama_index import TansakuVectorStore
store = TansakuVectorStore("db", "nodes")
index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(embed_dim=1))
```
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....indexer.index import Index
from ....indexer.table.conditions import Condition
from ....indexer.table.database import Database
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError, MissingExtraError

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
except ImportError as error:
    raise MissingExtraError("llama-index-core", "llama-index") from error

from ...search.plan import SearchOptions
from .._framework_search import refuse_unknown, search
from .._framework_table import FrameworkTable
from .filters import matches
from .nodes import OWN_COLUMNS, REF_DOC_COLUMN, as_record, metadata_of, node_of

# Where candidates come from in the modes that LlamaIndex has names for.
_SOURCES = {
    VectorStoreQueryMode.DEFAULT: {},
    VectorStoreQueryMode.TEXT_SEARCH: {"source": "text"},
    VectorStoreQueryMode.HYBRID: {"source": "fused"},
}

_logger = logging.getLogger(__name__)


class TansakuVectorStore(BasePydanticVectorStore):
    """Nodes in a tansaku index, searched by MaxSim with tansaku's own model; embeddings of nodes are not used.

    LlamaIndex asks for an embedding model all the same, and stores only nodes that have an embedding: give it
    ``MockEmbedding(embed_dim=1)``.

    The first nodes added make the index and train its codec; when many more have been added, call
    ``store.index.rebuild()``, which trains it again. Every call sees what other stores and processes have written.
    Nodes come back whole, with metadata and relationships. What is searched is what LlamaIndex would embed.

    Filters mean what they mean in LlamaIndex's in-memory store, whose code evaluates them, also where they are nested.
    This reads the metadata of all nodes. Conditions over ``columns`` do not, for large tables:
    ``index.as_retriever(vector_store_kwargs={"where": "year < 1950"})``.

    A store can be pickled, and is opened again where it lies.

    Args:
        db: a database folder (made if missing), a URI or a LanceDB connection.
        table: name of the table; a table that exists must have been made by such a store.
        encoder: the model; None takes the table's own, and for a new table the one that ships inside.
        columns: metadata keys that have columns of their own, for conditions. The first nodes settle the type of each.
        nbits: bits per dimension of a residual in a new table: 1, 2 or 4.
        fulltext: index the texts of a new table for full text search, for the query modes ``hybrid`` and
            ``text_search``.
        storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.

    Raises:
        InputError: a name that cannot be used; raised by methods too, for a table that was not made by a store or does
            not have one of ``columns``.
        ModelMismatchError: raised by methods, for a table made with another model.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _table: FrameworkTable = PrivateAttr()

    def __init__(
        self,
        db: Database,
        table: str,
        *,
        encoder: Encoder | None = None,
        columns: Sequence[str] = (),
        nbits: int = 2,
        fulltext: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(stores_text=True, is_embedding_query=False)
        self._table = FrameworkTable(
            db,
            table,
            store="TansakuVectorStore",
            own=OWN_COLUMNS,
            columns=columns,
            encoder=encoder,
            nbits=nbits,
            fulltext=fulltext,
            storage_options=storage_options,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_table, (self._table,)

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name for the class."""
        return "TansakuVectorStore"

    @property
    def client(self) -> Index | None:
        """The index underneath, as `index`."""
        return self.index

    @property
    def index(self) -> Index | None:
        """The index underneath, to `rebuild`, `optimize` or describe it; None before the first nodes."""
        return self._table.index

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Not offered: pickle keeps where the table is.

        Raises:
            InputError: always.
        """
        raise InputError("a TansakuVectorStore is not written down as a dict; open it again with its db and table")

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes: all of them, or after an error none. A node whose id is there replaces the earlier one.

        Args:
            nodes: the nodes, none of them empty.
            kwargs: none; LlamaIndex's signature has them.

        Returns:
            The ids of the nodes.

        Raises:
            InputError: a node without text, with an id that came before, or that JSON cannot keep; or an unknown
                argument.
        """
        refuse_unknown(kwargs, ("nodes",))
        if nodes:
            self._table.write(
                [({**as_record(node), REF_DOC_COLUMN: node.ref_doc_id or ""}, node.metadata) for node in nodes]
            )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document; one that is not there is passed over.

        Args:
            ref_doc_id: id of the document.
            delete_kwargs: none; LlamaIndex's signature has them.

        Raises:
            InputError: an unknown argument.
        """
        refuse_unknown(delete_kwargs, ("ref_doc_id",))
        if ref_doc_id:
            self._table.delete(where=_part_of([ref_doc_id]))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, by filters, or those of ``node_ids`` that meet the filters.

        Args:
            node_ids: ids of nodes; unknown ones are passed over.
            filters: filters of the metadata.
            delete_kwargs: none; LlamaIndex's signature has them.

        Raises:
            InputError: neither ids nor filters are given, a filter cannot be applied, or an unknown argument.
        """
        refuse_unknown(delete_kwargs, ("node_ids", "filters"))
        if node_ids is None and not (filters and filters.filters):
            raise InputError("give node_ids or filters; clear() deletes all nodes")
        self._table.delete(self._selected(node_ids, filters))

    def clear(self) -> None:
        """Delete all nodes; the table and its codec stay."""
        self._table.delete(where="true")

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, by filters, or those of ``node_ids`` that meet the filters; without either, all nodes.

        Args:
            node_ids: ids of nodes; unknown ones are left out.
            filters: filters of the metadata.

        Returns:
            The nodes, in the order of ``node_ids``.

        Raises:
            InputError: a filter cannot be applied.
        """
        searcher = self._table.searcher.or_none()
        if searcher is None:
            return []
        return [node_of(row) for row in searcher.read(self._selected(node_ids, filters)) if row is not None]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes for a query by MaxSim.

        Args:
            query: its text, ``similarity_top_k``, ``filters``, ``node_ids``, ``doc_ids`` (of documents that nodes are
                parts of) and ``mode`` count: ``default``, or ``hybrid`` and ``text_search`` for candidates from full
                text. An embedding is ignored.
            kwargs: other options of the search, by the names of `SearchOptions`, such as ``where`` and ``recall``.

        Returns:
            Nodes, ids and scores, best first. A score is MaxSim divided by the number of query tokens.

        Raises:
            InputError: no text, a mode that needs one vector for a text, an unknown option or one that cannot be used.
        """
        if not query.query_str:
            raise InputError("the query has no text (query_str), which tansaku searches by")
        if query.mode not in _SOURCES:
            raise InputError(
                f"vector_store_query_mode {query.mode.value!r} needs one vector for a text; use default, hybrid or "
                "text_search"
            )
        options = SearchOptions.of({"k": query.similarity_top_k, **_SOURCES[query.mode], **kwargs})
        searcher = self._table.searcher.or_none()
        if searcher is None:
            _logger.warning("table %r does not exist yet; the first nodes added make it", self._table.name)
            return VectorStoreQueryResult(nodes=[], similarities=[], ids=[])
        # LlamaIndex gives an empty list where it asks for no particular nodes.
        if query.node_ids or query.doc_ids or (query.filters and query.filters.filters):
            chosen = self._selected(query.node_ids or None, query.filters, query.doc_ids)
            among = set(chosen if options.ids is None else options.ids)
            options = replace(options, ids=[node_id for node_id in chosen if node_id in among])
        hits = search(searcher, query.query_str, options)
        return VectorStoreQueryResult(
            nodes=[node_of(hit) for hit in hits], similarities=hits.scores(), ids=[hit.id for hit in hits]
        )

    def _selected(
        self, node_ids: Sequence[str] | None, filters: MetadataFilters | None, doc_ids: Sequence[str] | None = None
    ) -> list[str]:
        """Ids of the nodes that are named, meet the filters and are parts of the documents."""
        asks = filters is not None and bool(filters.filters)
        if node_ids is not None and not asks and not doc_ids:
            return list(dict.fromkeys(node_ids))
        index = self.index
        rows = () if index is None else index.documents(where=_part_of(doc_ids) if doc_ids else None)
        found = [row["id"] for row in rows if filters is None or matches(filters, metadata_of(row))]
        if node_ids is None:
            return found
        there = set(found)
        return [node_id for node_id in dict.fromkeys(node_ids) if node_id in there]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add` in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes` in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """`clear` in a thread."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _part_of(doc_ids: Sequence[str]) -> Condition:
    return Condition(f"{REF_DOC_COLUMN} IN $documents", documents=list(doc_ids))


def _with_table(table: FrameworkTable) -> TansakuVectorStore:
    store = TansakuVectorStore.model_construct(stores_text=True, is_embedding_query=False)
    store._table = table
    return store

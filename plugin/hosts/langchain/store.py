"""LangChain: a vector store in a tansaku index.

```python
from tansaku.plugin.hosts.langchain import TansakuVectorStore
store = TansakuVectorStore("db", "docs")
store.add_texts(["金閣寺は京都の寺院。"])
documents = store.similarity_search("京都の寺")
```
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import uuid4

from ....indexer.index import Index
from ....indexer.read.documents import Document as StoredDocument
from ....indexer.table.database import Database
from ....indexer.table.ids import checked_ids
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError, MissingExtraError

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
except ImportError as error:
    raise MissingExtraError("langchain-core", "langchain") from error

from ...search.plan import SearchOptions
from ...search.results import Hit
from .._framework_search import refuse_unknown, search
from .._framework_table import FrameworkTable
from .filters import as_function
from .metadata import METADATA, plain_metadata, stored_metadata

__all__ = ["TansakuVectorStore"]

# Options that LangChain takes out itself, by its type of search.
_OF_SEARCH_TYPES = {"similarity_score_threshold": ("score_threshold",)}
_NO_VECTOR = (
    "TansakuVectorStore does not offer {}: a document is not one vector here, but one for each token; use "
    "similarity_search, or TansakuCompressor over another store"
)

_logger = logging.getLogger(__name__)


class TansakuVectorStore(VectorStore):
    """Documents in a tansaku index, searched by MaxSim with tansaku's own model: no embedding is needed.

    The first documents added make the index and train its codec; when many more have been added, call
    ``store.index.rebuild()``, which trains it again. Every call sees what other stores and processes have written.

    Metadata is kept as JSON. Dates and times come back as text in ISO form, UUIDs as text, NumPy's numbers as numbers,
    tuples as lists; other values that JSON would change are refused. Keys named in ``columns`` have a column of their
    own as well, for conditions: ``similarity_search(query, where="year < 1950")``.

    Scores are MaxSim divided by the number of query tokens: a mean cosine, 1 at best. Maximal marginal relevance and
    search by vector are not offered, because a document is not one vector here.

    Args:
        db: a database folder (made if missing), a URI or a LanceDB connection.
        table: name of the table; a table that exists must have been made by such a store.
        encoder: the model; None takes the table's own, also after `Index.rebuild` has changed it, and for a new table
            the one that ships inside.
        columns: metadata keys to search by. The first documents settle the type of each column; a table that exists
            keeps the columns it has.
        nbits: bits per dimension of a residual in a new table: 1, 2 or 4.
        fulltext: index the texts of a new table for full text search, for ``source="fused"`` and ``source="text"``.
        storage_options: LanceDB's options for object stores, such as credentials, endpoint and region.
        skip_blank: leave out texts without a character, such as blank pages of a PDF file, and log their number; False
            refuses them.

    Raises:
        InputError: a name that cannot be used; raised by methods too, for a table that was not made by a store or does
            not have one of ``columns``.
        ModelMismatchError: raised by methods, for a table made with another model.
    """

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
        skip_blank: bool = False,
    ) -> None:
        self._skip_blank = skip_blank
        self._table = FrameworkTable(
            db,
            table,
            store="TansakuVectorStore",
            own=(METADATA,),
            columns=columns,
            encoder=encoder,
            nbits=nbits,
            fulltext=fulltext,
            storage_options=storage_options,
        )

    @property
    def encoder(self) -> Encoder:
        """The model that the table had last."""
        return self._table.encoder

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> TansakuVectorStore:
        """A store with texts in it.

        Args:
            texts: see `add_texts`.
            embedding: not used, with a warning in the log; LangChain asks for one.
            metadatas: see `add_texts`.
            ids: see `add_texts`.
            kwargs: the arguments of the class, at least ``db`` and ``table``.

        Returns:
            The store.

        Raises:
            InputError: as the class and `add_texts` do.
        """
        if embedding is not None:
            _logger.warning("the embedding is ignored: documents are encoded by tansaku's own model (encoder=)")
        store = cls(**kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_documents(
        cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any
    ) -> TansakuVectorStore:
        """A store with documents in it; the arguments are those of `from_texts`."""
        return super().from_documents(documents, embedding, **kwargs)  # type: ignore[arg-type] - LangChain passes it on

    @classmethod
    async def afrom_documents(
        cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any
    ) -> TansakuVectorStore:
        """`from_documents` in a thread."""
        return await super().afrom_documents(documents, embedding, **kwargs)  # type: ignore[arg-type] - as above

    @property
    def index(self) -> Index | None:
        """The index underneath, to `rebuild`, `optimize` or describe it; None before the first documents."""
        return self._table.index

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts: all of them, or after an error none.

        Args:
            texts: the texts, none of them empty without ``skip_blank``.
            metadatas: metadata of each text.
            ids: id of each text; it replaces a document that has the id already. None makes up an id.
            kwargs: ``batch_size``, which LangChain's indexing passes and is not used; nothing else.

        Returns:
            The ids, without those of texts that were left out.

        Raises:
            InputError: a text, id or metadata that cannot be used, an id given twice, or an unknown argument.
        """
        refuse_unknown(kwargs, ("texts", "metadatas", "ids", "batch_size"))
        if isinstance(texts, str):
            raise InputError("texts is one string; give a list")
        texts = list(texts)
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(texts):
                raise InputError(f"there are {len(texts)} texts and {len(given)} {name}; give one for each text")
        names = [str(uuid4()) if doc_id is None else doc_id for doc_id in ids or [None] * len(texts)]
        records: list[tuple[dict[str, Any], Mapping[str, Any]]] = []
        for i, (name, text, metadata) in enumerate(zip(names, texts, metadatas or [{}] * len(texts), strict=True)):
            if isinstance(text, str) and not text.strip():
                if self._skip_blank:
                    continue
                raise InputError(f"text {i} is blank; leave it out, or give the store skip_blank=True")
            plain = plain_metadata(name, metadata)
            # Columns keep dates as dates, which conditions compare as such.
            columns = {key: metadata[key] if isinstance(metadata[key], date) else plain[key] for key in plain}
            content = json.dumps(plain, ensure_ascii=False)
            records.append(({"id": name, "text": text, METADATA: content}, columns))
        if blank := len(texts) - len(records):
            _logger.warning("%d of %d texts are blank and were left out", blank, len(texts))
        if records:
            self._table.write(records)
        return [fields["id"] for fields, _ in records]

    def delete(self, ids: list[str] | None = None, *, where: str | None = None, **kwargs: Any) -> bool:
        """Delete documents: those with an id, those that meet a condition, or all if neither is given.

        Args:
            ids: ids of documents; unknown ids are passed over.
            where: condition over the table's columns, such as ``"year < 1950"``.
            kwargs: none; LangChain's signature has them.

        Returns:
            True.

        Raises:
            InputError: both ``ids`` and ``where``, a condition that cannot be used, or an unknown argument.
        """
        refuse_unknown(kwargs, ("ids", "where"))
        self._table.delete(ids, "true" if ids is None and where is None else where)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in the order of ``ids``, each once; unknown ids are left out.

        Raises:
            InputError: ``ids`` is one string.
        """
        searcher = self._table.searcher.or_none()
        wanted = list(dict.fromkeys(checked_ids(ids)))
        found = [] if searcher is None else searcher.read(wanted)
        return [_document(row) for row in found if row is not None]

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever over the store, as LangChain's own stores give it.

        Args:
            kwargs: ``search_type``, ``search_kwargs`` (``k`` and the other options of `similarity_search`), and the
                fields of every retriever of LangChain's, such as ``tags`` and ``metadata``.

        Returns:
            The retriever.

        Raises:
            InputError: an unknown argument or search option. LangChain drops the former, so that
                ``as_retriever(where="year < 1950")`` would search everything.
        """
        refuse_unknown(kwargs, (name for name in VectorStoreRetriever.model_fields if name != "vectorstore"))
        options = dict(kwargs.get("search_kwargs") or {})
        for name in _OF_SEARCH_TYPES.get(kwargs.get("search_type", "similarity"), ()):
            options.pop(name, None)
        if (chosen := options.pop("filter", None)) is not None:
            as_function(chosen)
        SearchOptions.of(options)
        return super().as_retriever(**kwargs)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The best documents for a query.

        Args:
            query: the question or keywords.
            k: number of documents; 4 by default, as in LangChain's own stores.
            kwargs: ``filter``, a dict of metadata that documents must have, or a function of the document, which reads
                the metadata of all of them; ``where`` does not, for large tables. And other options of the search, by
                the names of `SearchOptions`, such as ``recall``.

        Returns:
            At most ``k`` documents, best first.

        Raises:
            InputError: an empty query, an unknown option, or one that cannot be used.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """`similarity_search`, each document with its score: higher is better.

        Args:
            query: the question or keywords.
            k: number of documents.
            kwargs: as in `similarity_search`.

        Returns:
            At most ``k`` pairs of document and score, best first.

        Raises:
            InputError: as in `similarity_search`.
        """
        chosen = kwargs.pop("filter", None)
        wanted = None if chosen is None else as_function(chosen)
        options = SearchOptions.of({"k": k, **kwargs})
        searcher = self._table.searcher.or_none()
        if searcher is None:
            _logger.warning("table %r does not exist yet; the first documents added make it", self._table.name)
            return []
        if wanted is not None:
            options = replace(options, ids=self._matching(wanted, options.ids))
        hits = search(searcher, query, options)
        return list(zip(map(_document, hits), hits.scores(), strict=True))

    def _matching(self, wanted: Callable[[Document], bool], among: Sequence[str] | None) -> list[str]:
        """Ids of the documents that a filter lets through, of those in ``among`` if it is given."""
        index = self.index
        rows = () if index is None else index.documents()
        documents = (Document(row["text"], id=row["id"], metadata=stored_metadata(row) or {}) for row in rows)
        found = [str(document.id) for document in documents if wanted(document)]
        return found if among is None else sorted({*found} & {*among})

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Not offered: raises NotImplementedError, which says what to use."""
        raise NotImplementedError(_NO_VECTOR.format("similarity_search_by_vector"))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Not offered: raises NotImplementedError, which says what to use."""
        raise NotImplementedError(_NO_VECTOR.format("max_marginal_relevance_search (search_type='mmr')"))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # LangChain wants 0 to 1; a cosine below 0 means no more than 0 does.
        return lambda score: min(max(score, 0.0), 1.0)


def _document(row: Hit | StoredDocument) -> Document:
    # A document that something else added to the table has none.
    return Document(row.text, id=row.id, metadata=stored_metadata(row.fields) or {})

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
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from ....indexer.errors import TableExistsError, TableNotFoundError
from ....indexer.index import Index
from ....indexer.read.documents import RESERVED_FIELDS
from ....indexer.read.documents import Document as StoredDocument
from ....indexer.table.database import Database, connect
from ....indexer.table.ids import checked_ids
from ....indexer.table.model import Models
from ....indexer.table.schema import user_fields
from ....indexer.table.table import IndexTable, check_table_name, open_index_table
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError, MissingExtraError

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
except ImportError as error:
    raise MissingExtraError("langchain-core", "langchain") from error

from ....onnx_export.counts import named
from ...search.latest_searcher import LatestSearcher
from ...search.plan import SearchOptions
from ...search.results import Hit
from ...search.searcher import Searcher
from .._framework_search import refuse_unknown, search

__all__ = ["TansakuVectorStore"]

# Options that LangChain takes out itself, by its type of search.
_OF_SEARCH_TYPES = {"similarity_score_threshold": ("score_threshold",)}
METADATA = "metadata"  # the column with a document's metadata, JSON

_logger = logging.getLogger(__name__)


class TansakuVectorStore(VectorStore):
    """Documents in a tansaku index, searched by MaxSim with tansaku's own model: no embedding is needed.

    The first documents added make the index and train its codec; when many more have been added, call
    ``store.index.rebuild()``, which trains it again. Every call sees what other stores and processes have written.

    Metadata is kept as JSON, so that it comes back as it was; a value that JSON would change is refused. Keys named in
    ``columns`` have a column of their own as well, for conditions: ``similarity_search(query, where="year < 1950")``.

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

    Attributes:
        encoder: the model that the table had last.

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
    ) -> None:
        check_table_name(table)
        if isinstance(columns, str):
            raise InputError("columns is one string; give a list of metadata keys")
        for name in columns:
            if name in (*RESERVED_FIELDS, METADATA):
                raise InputError(f"columns has {name!r}, a name that the index itself uses; rename the metadata key")
        self._database = connect(db, create=True, storage_options=storage_options)
        self._models = Models(encoder)
        self.encoder = self._models.find_by_name(self._database, table)
        self._name = table
        self._columns = list(columns)
        self._layout = {"nbits": nbits, "fulltext": fulltext}
        self._latest = LatestSearcher(lambda: Searcher(self._open(), self._models))
        self._writing = threading.Lock()

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

    @property
    def index(self) -> Index | None:
        """The index underneath, to `rebuild`, `optimize` or describe it; None before the first documents."""
        table = self._opened()
        return None if table is None else Index(self._name, table, self._models)

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
            texts: the texts, none of them empty.
            metadatas: metadata of each text.
            ids: id of each text; it replaces a document that has the id already. None makes up an id.
            kwargs: ``batch_size``, which LangChain's indexing passes and is not used; nothing else.

        Returns:
            The ids.

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
        if not texts:
            return []
        names = [str(uuid4()) if doc_id is None else doc_id for doc_id in ids or [None] * len(texts)]
        records = [
            {"id": name, "text": text, METADATA: metadata}
            for name, text, metadata in zip(names, texts, metadatas or [{}] * len(texts), strict=True)
        ]
        with self._writing:
            report = self._write(records).last_build
        if report and report.truncated:
            _logger.warning(
                "%d of %d texts are longer than the model reads, and their ends are not searched (%s); split them",
                report.truncated,
                report.rows,
                named(report.truncated_ids, report.truncated),
            )
        return names

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
        with self._writing:
            index = self.index
            if index is not None:
                index.delete(ids, where="true" if ids is None and where is None else where)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in the order of ``ids``, each once; unknown ids are left out.

        Raises:
            InputError: ``ids`` is one string.
        """
        searcher = self._latest.or_none()
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
        SearchOptions.of(options)
        return super().as_retriever(**kwargs)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The best documents for a query.

        Args:
            query: the question or keywords.
            k: number of documents; 4 by default, as in LangChain's own stores.
            kwargs: other options of the search, by the names of `SearchOptions`, such as ``where`` and ``recall``.

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
        options = SearchOptions.of({"k": k, **kwargs})
        searcher = self._latest.or_none()
        if searcher is None:
            _logger.warning("table %r does not exist yet; the first documents added make it", self._name)
            return []
        hits = search(searcher, query, options)
        return list(zip(map(_document, hits), hits.scores(), strict=True))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # LangChain wants 0 to 1; a cosine below 0 means no more than 0 does.
        return lambda score: min(max(score, 0.0), 1.0)

    def _write(self, records: list[dict[str, Any]]) -> Index:
        table = self._opened()
        if table is None:
            try:
                made = _with_columns(records, self._columns)
                options: dict[str, Any] = {**self._layout, "encoder": self.encoder, "resume": False}
                return Index.create(self._database, self._name, made, **options)
            except TableExistsError:  # another process was faster
                table = self._opened()
                if table is None:
                    raise
        index = Index(self._name, table, self._models)
        index.upsert(_with_columns(records, _columns(table)), resume=False)  # later writes are of other documents
        return index

    def _opened(self) -> IndexTable | None:
        """The table as it is now; None if it is not there."""
        try:
            return self._open()
        except TableNotFoundError:
            return None

    def _open(self) -> IndexTable:
        table = open_index_table(self._database, self._name)
        self.encoder = self._models.find(table)
        names = {field.name for field in user_fields(table.table.schema, table.header)}
        if METADATA not in names or table.header.passage_tokens:
            raise InputError(
                f"{table.place()} was not made by TansakuVectorStore; search it with TansakuRetriever, or choose "
                "another name"
            )
        absent = [name for name in self._columns if name not in names]
        if absent:
            raise InputError(
                f"{table.place()} has no column {absent[0]!r}; columns are settled when the table is made: add its "
                "documents to a new one"
            )
        return table


def _document(row: Hit | StoredDocument) -> Document:
    # A document that something else added to the table has none.
    return Document(row.text, id=row.id, metadata=json.loads(row.fields[METADATA] or "{}"))


def _columns(table: IndexTable) -> list[str]:
    return [f.name for f in user_fields(table.table.schema, table.header) if f.name != METADATA]


def _with_columns(records: list[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**record, METADATA: _as_json(record), **{name: record[METADATA].get(name) for name in columns}}
        for record in records
    ]


def _as_json(record: dict[str, Any]) -> str:
    """Metadata as JSON; raises InputError, naming document and key, for what would not come back as it is."""
    metadata = record[METADATA]
    if not isinstance(metadata, dict):
        raise InputError(f"document {record['id']!r}: its metadata is {type(metadata).__name__}, not a dict")
    for key, value in metadata.items():
        try:
            reason = "" if json.loads(json.dumps({key: value}, allow_nan=False)) == {key: value} else "it would change"
        except (TypeError, ValueError, RecursionError) as error:
            reason = str(error)
        if reason:
            raise InputError(
                f"document {record['id']!r}: metadata key {key!r} has a {type(value).__name__} that JSON cannot keep "
                f"({reason}); keys must be strings, values strings, numbers, booleans, None, lists or dicts of these"
            )
    return json.dumps(metadata, ensure_ascii=False)

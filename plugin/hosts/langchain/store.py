"""LangChain: a vector store in a tansaku index."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

from ....indexer.errors import TableExistsError, TableNotFoundError
from ....indexer.index import Index
from ....indexer.read.documents import RESERVED_FIELDS
from ....indexer.read.documents import Document as StoredDocument
from ....indexer.table.database import Database, connect
from ....indexer.table.model import open_with_model
from ....indexer.table.schema import user_fields
from ....indexer.table.table import IndexTable, check_name
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError, MissingExtraError

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ImportError as error:
    raise MissingExtraError("langchain-core", "langchain") from error

from ...search.filters import checked_ids
from ...search.latest import LatestSearcher
from ...search.results import Hit
from ...search.searcher import Searcher
from .retriever import search

__all__ = ["TansakuVectorStore"]

METADATA = "metadata"  # the column with a document's metadata, JSON

_logger = logging.getLogger(__name__)


class TansakuVectorStore(VectorStore):
    """Documents in a tansaku index, searched by MaxSim with tansaku's own model: no embedding is needed.

    The index is made by the first documents added, and its codec is trained on them; when many more have come, call
    ``store.index.rebuild()``, which trains it anew. Every call sees what other stores and processes have written.

    Metadata is kept as JSON, so that it comes back as it was; a value that JSON would change is refused. Keys named in
    ``columns`` have a column of their own as well, for conditions: ``similarity_search(query, where="year < 1950")``.

    Scores are MaxSim divided by the number of query tokens: a mean cosine, 1 at best. Maximal marginal relevance and
    search by vector are not offered: a document here is no single vector.

    Args:
        db: a database folder (made if missing), a URI or a LanceDB connection.
        table: name of the table; one that exists must have been made by a store.
        encoder: the model; None takes the one that ships inside.
        columns: metadata keys to search by. The first documents settle the type of each column; a table that exists
            keeps the columns it has.
        nbits: bits per dimension of a residual in a new table: 1, 2 or 4.
        fulltext: give a new table full text, for searches with ``source="fused"`` or ``"text"``.

    Attributes:
        encoder: the model.

    Raises InputError for names that cannot be used. Methods raise InputError too for a table that no store has made or
    that lacks one of ``columns``, ModelMismatchError for one made with another model.
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
    ) -> None:
        check_name(table)
        if isinstance(columns, str):
            raise InputError("columns is one string; give a list of metadata keys")
        for name in columns:
            if name in (*RESERVED_FIELDS, METADATA):
                raise InputError(f"columns has {name!r}, which the index needs for itself; rename the metadata key")
        self.encoder = encoder or Encoder.load()
        self._database = connect(db, create=True)
        self._name = table
        self._columns = list(columns)
        self._options = {"nbits": nbits, "fulltext": fulltext}
        self._latest = LatestSearcher(lambda: Searcher(self._open(), self.encoder))
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
        """A store with ``texts`` in it; ``kwargs`` are those of the class, ``db`` and ``table`` at least.

        ``embedding`` is there because LangChain passes one; it is not used.
        """
        store = cls(**kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def index(self) -> Index | None:
        """The index underneath, to `rebuild`, `optimize` or describe it; None before the first documents."""
        table = self._opened()
        return None if table is None else Index(self._name, table, self.encoder)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, all of them or after an error none; returns their ids.

        Args:
            texts: none of them empty.
            metadatas: one for each text.
            ids: one for each text; a document that has it already is replaced. None makes one up.
            kwargs: what LangChain's own callers pass on (``batch_size``); not used.

        Raises InputError for texts, ids or metadata that cannot be used, and for an id that is there twice.
        """
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
                "%d of %d texts are longer than the model reads, and their ends are not searched; split them",
                report.truncated,
                report.documents,
            )
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, those that are not there silently; without ids all. Returns True."""
        with self._writing:
            index = self.index
            if index is not None and ids is None:
                index.delete(where="true")
            elif index is not None:
                index.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in the order of ``ids``, each once; those that are not there are left out."""
        searcher = self._latest.or_none()
        wanted = list(dict.fromkeys(checked_ids(ids)))
        found = [] if searcher is None else searcher.read(wanted)
        return [_document(row) for row in found if row is not None]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The ``k`` best documents for ``query``, best first; ``kwargs`` are `SearchOptions`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """`similarity_search`, with scores: higher is better.

        Raises InputError for an empty query and for options that cannot be used.
        """
        searcher = self._latest.or_none()
        if searcher is None:
            _logger.warning("table %r is not there; it is made by the first documents added", self._name)
            return []
        hits = search(searcher, query, k, kwargs)
        return list(zip(map(_document, hits), hits.scores(), strict=True))

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        # LangChain wants 0 to 1; below 0 a cosine says no more than 0 does.
        return lambda score: min(max(score, 0.0), 1.0)

    def _write(self, records: list[dict[str, Any]]) -> Index:
        table = self._opened()
        if table is None:
            try:
                options = {**self._options, "encoder": self.encoder, "resume": False}
                made = _with_columns(records, self._columns)
                return Index.create(self._database, self._name, made, **options)
            except TableExistsError:  # another process was faster
                table = self._opened()
                if table is None:
                    raise
        index = Index(self._name, table, self.encoder)
        index.upsert(_with_columns(records, _columns(table)), resume=False)  # later writes are of other documents
        return index

    def _opened(self) -> IndexTable | None:
        """The table as it is now; None if it is not there."""
        try:
            return self._open()
        except TableNotFoundError:
            return None

    def _open(self) -> IndexTable:
        table, _ = open_with_model(self._database, self._name, self.encoder)
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
    return Document(row.text, id=row.id, metadata=json.loads(row.fields[METADATA]))


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

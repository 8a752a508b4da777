"""A document store for Haystack that is an index of ours: what is written can be searched by late interaction."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lancedb.expr import col

from ....indexer.errors import TableExistsError, TableNotFoundError
from ....indexer.index import Index
from ....indexer.table.codec_table import codec_table
from ....indexer.table.database import connect, database_exists, drop_table, storage_errors
from ....indexer.table.schema import user_fields
from ....indexer.table.table import IndexTable, open_index_table
from ....onnx_export.encode.encoder import Encoder
from ....onnx_export.errors import InputError, MissingExtraError
from ...search.latest import LatestSearcher
from ...search.plan import Recall
from ...search.query_encoder import check_query
from ...search.scores import ScoreMode, check_mode
from ...search.searcher import Searcher
from .filters import Filters, MetadataQuestions, check_filters, matches, named_fields

try:
    from haystack import Document, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack") from error

# Columns of a table that the store has made, both JSON: metadata may be nested and differ from document to document.
META_COLUMN = "haystack_meta"
OTHER_COLUMN = "haystack_other"  # what else Haystack's `Document` has: embeddings, blob, score
_OTHER = ("blob", "score", "embedding", "sparse_embedding")
_IDS_TOGETHER = 10_000

_log = logging.getLogger(__name__)


@lru_cache(maxsize=4)
def shared_encoder(model: str | None) -> Encoder:
    """The encoder in the bundle folder ``model`` (None: the one that ships inside), one for all components."""
    return Encoder.load(model)


def title_of(document: Document, meta_fields: Sequence[str]) -> str:
    """What is encoded before the content: the metadata in these fields, one space between."""
    values = (document.meta.get(name) for name in meta_fields)
    return " ".join(str(value) for value in values if value is not None and str(value).strip())


def latest_searcher(db: str, table: str, model: str | None) -> LatestSearcher:
    """Follows a table that others may change, replace, or have yet to make; the model is loaded with it."""
    return LatestSearcher(lambda: Searcher.open(db, table, encoder=shared_encoder(model)))


class TansakuDocumentStore(MetadataQuestions):
    """Documents in an index of ours, for pipelines with a `TansakuRetriever`.

    The table is made at the first write, and its codec trained on the documents of that write: let it be a large one,
    or call ``Index.open(db, table).rebuild()`` when many others have come. A table that tansaku has made otherwise can
    be read too: its columns are then the documents' metadata.

    Every document needs content: it is what is indexed. Metadata, embeddings and blobs come back as JSON gives them: a
    tuple as a list, the keys of a dict as strings. Filters mean what they mean to Haystack's in-memory store, whose
    code answers them; the metadata of all documents is read for it.

    Args:
        db: a database folder (made at the first write) or a URI that LanceDB knows.
        table: name of the table.
        model: an encoder bundle's folder; None is the model that ships inside.
        nbits: bits per dimension of a residual, in a table that the store makes: 1, 2 or 4.
        meta_fields_to_embed: fields of the metadata, such as a title, that are encoded before the content.
    """

    def __init__(
        self,
        db: str | Path,
        table: str = "documents",
        *,
        model: str | Path | None = None,
        nbits: int = 2,
        meta_fields_to_embed: list[str] | None = None,
    ) -> None:
        self.db = str(db)
        self.table = table
        self.model = None if model is None else str(model)
        self.nbits = nbits
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self._latest = latest_searcher(self.db, table, self.model)
        self._writing = threading.Lock()

    def to_dict(self) -> dict[str, Any]:
        """Where the documents lie and how they are indexed; not the documents."""
        return default_to_dict(
            self,
            db=self.db,
            table=self.table,
            model=self.model,
            nbits=self.nbits,
            meta_fields_to_embed=self.meta_fields_to_embed,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TansakuDocumentStore:
        """The store that `to_dict` has described."""
        return default_from_dict(cls, data)

    def warm_up(self) -> None:
        """Load the model and open the table, if it is there."""
        shared_encoder(self.model)
        self._latest.or_none()

    def count_documents(self) -> int:
        """How many documents there are."""
        opened = self._opened()
        return 0 if opened is None else opened.table.count_rows()

    def count_documents_by_filter(self, filters: Filters) -> int:
        """How many documents there are for which ``filters`` hold."""
        return len(self._ids(filters))

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """The documents for which ``filters`` hold, in the order of their first writing; FilterError as Haystack's."""
        return list(self._matching(filters, whole=True))

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Index documents; all of them, or after an error none.

        Args:
            documents: with content. They are not changed.
            policy: for ids that are there already: SKIP leaves the new document out, OVERWRITE the old one; FAIL, and
                NONE too, raises.

        Returns:
            How many were written; with OVERWRITE as many as were given.

        Raises:
            DuplicateDocumentError: an id is there already, or is given twice.
            InputError: (a ValueError) something that is no document, one without content, one whose metadata is not
                JSON.
        """
        policy = DuplicatePolicy(policy)
        overwrite = policy is DuplicatePolicy.OVERWRITE
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            raise InputError(f"documents is {type(documents).__name__}; give a list of haystack Documents")
        documents = list(documents)
        for i, document in enumerate(documents):
            if not isinstance(document, Document):
                raise InputError(f"document {i} is {type(document).__name__}, not a haystack Document")
        with self._writing:
            stored = set() if overwrite else self._stored([document.id for document in documents])
            chosen: dict[str, Document] = {}
            for document in documents:
                if not overwrite and (document.id in stored or document.id in chosen):
                    if policy is DuplicatePolicy.SKIP:
                        continue
                    raise DuplicateDocumentError(
                        f"document {document.id!r} is there already; choose DuplicatePolicy.SKIP or OVERWRITE"
                    )
                chosen[document.id] = document
            self._write([self._record(document) for document in chosen.values()], overwrite=overwrite)
        return len(documents) if overwrite else len(chosen)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents by id; ids that are not there are passed over."""
        with self._writing:
            if self._opened() is not None:
                self._index().delete(document_ids)

    def delete_by_filter(self, filters: Filters) -> int:
        """Remove the documents for which ``filters`` hold; returns how many."""
        self.delete_documents(ids := self._ids(filters))
        return len(ids)

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """Remove all documents; with ``recreate_index`` the table too, so that the next write trains a new codec."""
        with self._writing:
            if self._opened() is None:
                return
            if not recreate_index:
                self._index().delete(where="id IS NOT NULL")
                return
            for name in (self.table, codec_table(self.table)):
                drop_table(connect(self.db), name)

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set fields of the metadata where ``filters`` hold; returns in how many documents.

        They are encoded anew, which takes as long as writing them.
        """
        found = self.filter_documents(filters)
        changed = [replace(document, meta={**document.meta, **meta}) for document in found]
        return self.write_documents(changed, DuplicatePolicy.OVERWRITE)

    def late_interaction_retrieval(
        self,
        query: str,
        filters: Filters | None = None,
        top_k: int = 10,
        score: ScoreMode = "mean",
        recall: Recall = "balanced",
    ) -> list[Document]:
        """The ``top_k`` best documents for ``query`` by MaxSim, best first; what other processes have written too.

        Args:
            query: the question or keywords.
            filters: only documents for which they hold are found.
            top_k: how many.
            score: of the documents returned; see `Reranker.rerank`.
            recall: how much the search looks at; see `SearchOptions`.

        Raises InputError for an empty query and ``top_k`` below 1, FilterError for filters that Haystack cannot read.
        """
        if top_k < 1:
            raise InputError(f"top_k is {top_k}; it must be 1 or more")
        check_mode(score)
        check_query(query)
        check_filters(filters)
        ids = self._ids(filters) if filters else None
        searcher = self._latest.or_none()
        if searcher is None or ids == []:
            return []
        hits = searcher.search(query, top_k, ids=ids, recall=recall)
        return [
            replace(_as_document(hit.id, hit.title, hit.text, hit.fields), score=value)
            for hit, value in zip(hits, hits.scores(score), strict=True)
        ]

    async def count_documents_async(self) -> int:
        """`count_documents` in a thread."""
        return await asyncio.to_thread(self.count_documents)

    async def count_documents_by_filter_async(self, filters: Filters) -> int:
        """`count_documents_by_filter` in a thread."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def filter_documents_async(self, filters: Filters | None = None) -> list[Document]:
        """`filter_documents` in a thread."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """`write_documents` in a thread."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """`delete_documents` in a thread."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_by_filter_async(self, filters: Filters) -> int:
        """`delete_by_filter` in a thread."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def delete_all_documents_async(self, recreate_index: bool = False) -> None:
        """`delete_all_documents` in a thread."""
        await asyncio.to_thread(self.delete_all_documents, recreate_index)

    async def update_by_filter_async(self, filters: Filters, meta: dict[str, Any]) -> int:
        """`update_by_filter` in a thread."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    def _opened(self) -> IndexTable | None:
        """The table at its latest version; None if it is not there yet."""
        if not database_exists(self.db):
            return None
        try:
            opened = open_index_table(connect(self.db), self.table)
        except TableNotFoundError:
            return None
        if opened.header.passage_tokens:
            raise InputError(
                f"{opened.place()} holds passages of divided documents; a Haystack store needs whole ones: divide them "
                "with Haystack's DocumentSplitter and write them to a new table"
            )
        return opened

    def _index(self) -> Index:
        return Index.open(self.db, self.table, encoder=shared_encoder(self.model))

    def _write(self, records: list[dict[str, Any]], *, overwrite: bool) -> None:
        if not records:
            return
        index = None
        if self._opened() is None:
            encoder = shared_encoder(self.model)
            with contextlib.suppress(TableExistsError):  # another process has just made it
                index = Index.create(self.db, self.table, records, encoder=encoder, nbits=self.nbits, resume=False)
        if index is None:
            index = self._index()
            write = index.upsert if overwrite else index.add
            write(records, resume=False)  # later writes are of other documents
        if index.last_build is not None and index.last_build.truncated:
            _log.warning(
                "%d of %d documents are longer than the model reads and were indexed without their ends; "
                "divide them with Haystack's DocumentSplitter",
                index.last_build.truncated,
                len(records),
            )

    def _record(self, document: Document) -> dict[str, Any]:
        if document.content is None or not document.content.strip():
            raise InputError(f"document {document.id!r} has no content to be indexed; leave it out")
        whole = document.to_dict(flatten=False)
        try:
            meta = json.dumps(whole["meta"])
            other = json.dumps({name: whole[name] for name in _OTHER if whole[name] is not None})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"document {document.id!r} holds what is not JSON ({error}); turn it into text or numbers"
            ) from error
        title = title_of(document, self.meta_fields_to_embed)
        return {"id": document.id, "title": title, "text": document.content, META_COLUMN: meta, OTHER_COLUMN: other}

    def _stored(self, ids: Sequence[str]) -> set[str]:
        opened = self._opened()
        stored: set[str] = set()
        if opened is not None:
            for start in range(0, len(ids), _IDS_TOGETHER):
                some = list(ids[start : start + _IDS_TOGETHER])
                with storage_errors(opened.place()):
                    found = opened.table.search().where(col("id").isin(some)).select(["id"]).to_arrow()
                stored.update(found["id"].to_pylist())
        return stored

    def _ids(self, filters: Filters | None) -> list[str]:
        return [document.id for document in self._matching(filters, whole=False)]

    def _matching(self, filters: Filters | None, *, whole: bool) -> Iterator[Document]:
        """The documents for which ``filters`` hold; unless ``whole`` only as far as they are needed for that."""
        check_filters(filters)
        opened = self._opened()
        if opened is None:
            return
        named = set(named_fields(filters))
        columns = [field.name for field in user_fields(opened.table.schema, opened.header)]
        if not whole and not named & set(_OTHER):
            columns = [name for name in columns if name != OTHER_COLUMN]
        texts = ["text"] if whole or "content" in named else []
        with storage_errors(opened.place()):
            query = opened.table.search().select(["id", "title", *texts, *columns]).with_row_id(True)
            rows = query.to_arrow().sort_by("_rowid")  # row ids ascend as rows are added, and stay
        for batch in rows.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                fields = {name: row[name] for name in columns}
                document = _as_document(row["id"], row["title"], row.get("text", ""), fields)
                if matches(filters, document):
                    yield document


def _as_document(doc_id: str, title: str, text: str, fields: Mapping[str, Any]) -> Document:
    """A row as Haystack has it. Where the store has not made the table, its columns are the metadata."""
    if META_COLUMN not in fields:
        return Document(id=doc_id, content=text, meta={**({"title": title} if title else {}), **fields})
    other = json.loads(fields.get(OTHER_COLUMN) or "{}")
    return Document.from_dict({"id": doc_id, "content": text, "meta": json.loads(fields[META_COLUMN]), **other})

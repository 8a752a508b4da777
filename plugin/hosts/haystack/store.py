"""A document store for Haystack that is an index of ours: what is written can be searched by late interaction."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lancedb.expr import col

from ....indexer.errors import TableExistsError, TableNotFoundError
from ....indexer.index import Index
from ....indexer.table.codec_table import codec_table
from ....indexer.table.database import drop_table, storage_errors
from ....indexer.table.schema import user_fields
from ....indexer.table.table import IndexTable, open_index_table
from ....onnx_export.errors import InputError, MissingExtraError
from ....onnx_export.kinds import check_whole
from ...search.choices import ScoreMode
from ...search.plan import SearchOptions
from ...search.query_encoder import check_query
from ...search.scores import check_mode
from .._framework_search import search
from .._framework_table import warn_of_cuts
from .filters import Filters, MetadataReports, check_filters, check_some, matches, named_fields
from .location import Location, StorageOptions, as_path, read_options, written_options

try:
    from haystack import Document, default_from_dict, default_to_dict
    from haystack.document_stores.errors import DuplicateDocumentError
    from haystack.document_stores.types import DuplicatePolicy
except ImportError as error:
    raise MissingExtraError("haystack-ai", "haystack") from error

# Columns of a table that the store makes, both JSON: metadata may be nested and differ from document to document.
META_COLUMN = "haystack_meta"
OTHER_COLUMN = "haystack_other"  # what else Haystack's `Document` has: embeddings, blob, score
_OTHER = ("blob", "score", "embedding", "sparse_embedding")
_IDS_PER_QUERY = 10_000


def title_of(document: Document, meta_fields: Sequence[str]) -> str:
    """What is encoded before the content: the metadata in these fields, one space between."""
    values = (document.meta.get(name) for name in meta_fields)
    return " ".join(str(value) for value in values if value is not None and str(value).strip())


class TansakuDocumentStore(MetadataReports):
    """Documents in a tansaku index, for pipelines with a `TansakuRetriever`.

    The first write makes the table and trains its codec: write many documents at first, or call
    ``Index.open(db, table).rebuild()`` when many others have been written. The store can also read a table that was
    made without it: the table's columns are then the documents' metadata.

    Every document needs content, which is what is indexed. Metadata, embeddings and blobs come back as JSON has them: a
    tuple as a list, the keys of a dict as strings. Filters mean what they mean in Haystack's in-memory store, whose
    code evaluates them; this reads the metadata of all documents.

    Args:
        db: a database folder (made at the first write) or a URI that LanceDB knows.
        table: name of the table.
        model: folder of an encoder bundle; None is the model that ships inside.
        threads: number of threads that encode; None is the number of usable cores.
        nbits: bits per dimension of a residual, in a table that the store makes: 1, 2 or 4.
        fulltext: index the texts of a table that the store makes for full text search, for ``source="fused"`` and
            ``source="text"``.
        meta_fields_to_embed: fields of the metadata, such as a title, that are encoded before the content.
        storage_options: LanceDB's options for object stores, such as credentials, endpoint and region. A value may be a
            Haystack ``Secret``: `to_dict` writes down the name of its environment variable, and other values as they
            are.
    """

    def __init__(
        self,
        db: str | Path,
        table: str = "documents",
        *,
        model: str | Path | None = None,
        threads: int | None = None,
        nbits: int = 2,
        fulltext: bool = False,
        meta_fields_to_embed: list[str] | None = None,
        storage_options: StorageOptions | None = None,
    ) -> None:
        self.location = Location(str(db), table, as_path(model), threads, storage_options)
        self.nbits = nbits
        self.fulltext = fulltext
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self._latest = self.location.latest_searcher()
        self._writing = threading.Lock()

    def to_dict(self) -> dict[str, Any]:
        """The arguments of the store, as Haystack writes them down; not the documents."""
        return default_to_dict(
            self,
            db=self.location.db,
            table=self.location.table,
            model=self.location.model,
            threads=self.location.threads,
            nbits=self.nbits,
            fulltext=self.fulltext,
            meta_fields_to_embed=self.meta_fields_to_embed,
            storage_options=written_options(self.location.storage_options),
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TansakuDocumentStore:
        """The store that `to_dict` has described."""
        parameters = dict(data.get("init_parameters", {}))
        if "storage_options" in parameters:
            parameters["storage_options"] = read_options(parameters["storage_options"])
        return default_from_dict(cls, {**data, "init_parameters": parameters})

    def __reduce__(self) -> tuple[Any, ...]:
        return TansakuDocumentStore.from_dict, (self.to_dict(),)

    def warm_up(self) -> None:
        """Load the model and open the table, if it is there."""
        self.location.encoder()
        self._latest.or_none()

    def count_documents(self) -> int:
        """Number of documents."""
        opened = self._opened()
        return 0 if opened is None else opened.table.count_rows()

    def count_documents_by_filter(self, filters: Filters) -> int:
        """Number of documents that match ``filters``; raises FilterError as `filter_documents` does."""
        return len(self._ids(filters))

    def filter_documents(self, filters: Filters | None = None) -> list[Document]:
        """The documents that match ``filters``, in the order of their first writing.

        Args:
            filters: a filter of Haystack's; None or an empty one matches all documents.

        Returns:
            The documents.

        Raises:
            FilterError: Haystack cannot read the filter, or it compares values that cannot be compared.
        """
        return list(self._matching(filters, whole=True))

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Index documents: all of them, or after an error none.

        Args:
            documents: documents with content. They are not changed.
            policy: what to do with a document whose id is stored already: SKIP leaves it out, OVERWRITE replaces the
                stored one, FAIL and NONE raise.

        Returns:
            Number of documents written; with OVERWRITE the number given.

        Raises:
            DuplicateDocumentError: an id is stored already, or is given twice.
            InputError: (a ValueError) something that is not a document, a document without content, or metadata that
                is not JSON.
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
                        f"document {document.id!r} is stored already; choose DuplicatePolicy.SKIP or OVERWRITE"
                    )
                chosen[document.id] = document
            self._write([self._record(document) for document in chosen.values()], overwrite=overwrite)
        return len(documents) if overwrite else len(chosen)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Remove documents by id; unknown ids are passed over."""
        with self._writing:
            if self._opened() is not None:
                self.location.index().delete(document_ids)

    def delete_by_filter(self, filters: Filters) -> int:
        """Remove the documents that match ``filters``; returns their number.

        Raises as `filter_documents` does, and FilterError for an empty filter.
        """
        check_some(filters, "delete", "call delete_all_documents")
        self.delete_documents(ids := self._ids(filters))
        return len(ids)

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        """Remove all documents; with ``recreate_index`` also the table, so that the next write trains a new codec."""
        with self._writing:
            if self._opened() is None:
                return
            if not recreate_index:
                self.location.index().delete(where="id IS NOT NULL")
                return
            for name in (self.location.table, codec_table(self.location.table)):
                drop_table(self.location.database(), name)

    def update_by_filter(self, filters: Filters, meta: dict[str, Any]) -> int:
        """Set fields of the metadata in the documents that match ``filters``; returns their number.

        They are encoded again, which takes as long as writing them. Raises as `filter_documents` and `write_documents`
        do, and FilterError for an empty filter.
        """
        check_some(filters, "update", "give one that matches them, or write them anew with write_documents")
        found = self.filter_documents(filters)
        changed = [replace(document, meta={**document.meta, **meta}) for document in found]
        return self.write_documents(changed, DuplicatePolicy.OVERWRITE)

    def late_interaction_retrieval(
        self,
        query: str,
        filters: Filters | None = None,
        top_k: int = 10,
        score: ScoreMode = "mean",
        **options: Any,
    ) -> list[Document]:
        """The best documents for a query by MaxSim, among them those that other processes have written.

        Args:
            query: the question or keywords.
            filters: only documents that match this filter of Haystack's are found.
            top_k: number of documents.
            score: scale of the documents' scores; see `Reranker.rerank`.
            options: other options of the search, by the names of `SearchOptions`; ``k`` is called ``top_k``.

        Returns:
            At most ``top_k`` documents, best first.

        Raises:
            InputError: an empty query, an unknown option, or one that cannot be used.
            FilterError: Haystack cannot read the filter.
        """
        check_whole("top_k", top_k)
        if "k" in options:
            raise InputError("unknown search option 'k'; use top_k")
        asked = SearchOptions.of({"k": top_k, **options})
        check_mode(score)
        check_query(query)
        check_filters(filters)
        if filters:
            matching = self._ids(filters)
            asked = replace(asked, ids=matching if asked.ids is None else sorted({*matching} & {*asked.ids}))
        searcher = self._latest.or_none()
        if searcher is None:
            return []
        hits = search(searcher, query, asked)
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
        try:
            opened = open_index_table(self.location.database(), self.location.table)
        except TableNotFoundError:
            return None
        if opened.header.passage_tokens:
            raise InputError(
                f"{opened.place()} holds passages of divided documents; a Haystack store needs whole ones: divide them "
                "with Haystack's DocumentSplitter and write them to a new table"
            )
        return opened

    def _write(self, records: list[dict[str, Any]], *, overwrite: bool) -> None:
        if not records:
            return
        index = None
        if self._opened() is None:
            with contextlib.suppress(TableExistsError):  # another process has just made it
                index = Index.create(
                    self.location.db,
                    self.location.table,
                    records,
                    encoder=self.location.encoder(),
                    nbits=self.nbits,
                    fulltext=self.fulltext,
                    resume=False,  # later writes are of other documents
                    storage_options=self.location.plain_options(),
                )
        if index is None:
            index = self.location.index()
            write = index.upsert if overwrite else index.add
            write(records, resume=False)
        warn_of_cuts(index, "divide them with Haystack's DocumentSplitter")

    def _record(self, document: Document) -> dict[str, Any]:
        if document.content is None or not document.content.strip():
            raise InputError(f"document {document.id!r} has no content to index; leave it out")
        whole = document.to_dict(flatten=False)
        try:
            meta = json.dumps(whole["meta"])
            other = json.dumps({name: whole[name] for name in _OTHER if whole[name] is not None})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"document {document.id!r} holds a value that JSON cannot keep ({error}); use text or numbers"
            ) from error
        title = title_of(document, self.meta_fields_to_embed)
        return {"id": document.id, "title": title, "text": document.content, META_COLUMN: meta, OTHER_COLUMN: other}

    def _stored(self, ids: Sequence[str]) -> set[str]:
        opened = self._opened()
        stored: set[str] = set()
        if opened is not None:
            for start in range(0, len(ids), _IDS_PER_QUERY):
                some = list(ids[start : start + _IDS_PER_QUERY])
                with storage_errors(opened.place()):
                    found = opened.table.search().where(col("id").isin(some)).select(["id"]).to_arrow()
                stored.update(found["id"].to_pylist())
        return stored

    def _ids(self, filters: Filters | None) -> list[str]:
        return [document.id for document in self._matching(filters, whole=False)]

    def _matching(self, filters: Filters | None, *, whole: bool) -> Iterator[Document]:
        """The documents that match ``filters``; unless ``whole``, only with the parts that the filters need."""
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
    """A row as Haystack has it. Of a row that the store has not written, the columns are the metadata."""
    if fields.get(META_COLUMN) is None:
        columns = {name: value for name, value in fields.items() if name not in (META_COLUMN, OTHER_COLUMN)}
        return Document(id=doc_id, content=text, meta={**({"title": title} if title else {}), **columns})
    other = json.loads(fields.get(OTHER_COLUMN) or "{}")
    return Document.from_dict({"id": doc_id, "content": text, "meta": json.loads(fields[META_COLUMN]), **other})

"""`Searcher`: a query in, MaxSim-ranked hits out.

The path of a query: encode → filter → tables → probe → gather → prune → refine → fetch. The first and the last are
here, the others in `rank`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from lancedb.expr import col, lit
from lancedb.table import Table

from ...indexer.derived.arrays import load_arrays
from ...indexer.errors import StorageError
from ...indexer.read.documents import Document
from ...indexer.table.database import Database, connect, find_table, storage_errors
from ...indexer.table.fulltext import FULLTEXT_FIELD
from ...indexer.table.schema import CODE_FIELDS, RESERVED_FIELDS, build_column, user_fields
from ...indexer.table.table import IndexTable, open_with_model
from ...onnx_export.cores import usable_cores
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.retry import retrying
from .explain import Explanation, explain_hit
from .filters import checked_ids
from .pipeline import rank, score_ids
from .plan import Recall, SearchOptions, SourceName
from .query_encoder import QueryEncoder, check_query
from .results import Hit, Hits, Ranking, Stopwatch
from .stored_codes import Codes

T = TypeVar("T")


class Searcher:
    """Searches one version of an index until it is refreshed; open one with `Searcher.open`.

    Several threads may search at once, also while one refreshes.

    Attributes:
        encoder: the model that queries are encoded with.
    """

    def __init__(self, table: IndexTable, encoder: Encoder, *, derived: bool = True) -> None:
        self.encoder = encoder
        self._derived = derived
        self._codes = self._read(table)
        self._encode = QueryEncoder(encoder)

    @classmethod
    def open(
        cls,
        db: Database,
        table: str,
        *,
        encoder: Encoder | None = None,
        derived: bool = True,
        storage_options: Mapping[str, str] | None = None,
    ) -> Searcher:
        """Open an index for searching.

        Args:
            db: a database folder, a URI or a LanceDB connection.
            table: name of the table.
            encoder: the model the index was made with; None takes the one that ships inside.
            derived: memory-map arrays that are kept on disk beside the table and made first if they are not there.
                False writes nothing and reads only the centroid ids of all documents, and the residuals of each
                query's candidates from the table: for short-lived readers; slower, with the same hits.
            storage_options: LanceDB's own options for an object store (credentials, endpoint, region).

        Raises:
            TableNotFoundError: no such database or table.
            NotAnIndexError: the table was not made by tansaku, or has another format version.
            ModelMismatchError: the index was made with another model.
            StorageError: the database cannot be read.
        """
        options = None if storage_options is None else dict(storage_options)
        return cls(*open_with_model(connect(db, storage_options=options), table, encoder), derived=derived)

    @property
    def version(self) -> int:
        """Version of the table that is searched."""
        return self._codes.index.table.version

    @property
    def phrase_weight(self) -> float:
        """What counts in a search that does not say, see `SearchOptions`: the model's, 0 where vectors were pooled."""
        return self._codes.phrase_weight

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return len(self._codes)

    def refresh(self) -> bool:
        """Bring the search to the latest version of the table; returns whether there was a later one.

        Raises as `open` does; the search then stays as it was.
        """
        before = self._codes.index
        with storage_errors(before.place()):
            table = find_table(before.database, before.name)
        # The names of the columns tell one build of a table from another, and little is read for them.
        if table is not None and _state(table) == _state(before.table):
            return False
        self._codes = self._read(self._latest(before))
        return True

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: str | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
    ) -> Hits:
        """The ``k`` best documents for ``query``, best first; fewer if the index holds fewer.

        Args:
            query: Question or keywords.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns, in LanceDB's SQL.
            ids: Only these documents are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score beside its MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.

        Raises:
            InputError: An empty query, an option that `SearchOptions` refuses, or a condition that cannot be used.
        """
        options = SearchOptions(
            k=k,
            recall=recall,
            where=where,
            ids=ids,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
        )
        watch = Stopwatch()
        with watch.stage("encode"):
            query_vectors = self._encode(query)
        return self._found(query, query_vectors, options, watch)

    def search_vectors(
        self,
        query_vectors: np.ndarray,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: str | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
    ) -> Hits:
        """`search` for a query that is encoded already.

        Args:
            query_vectors: float32 (query tokens, dim); the length of each vector is the weight of its token.
            k: Number of hits.
            recall: How much of the index is examined.
            where: Condition over the table's columns, in LanceDB's SQL.
            ids: Only these documents are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score beside its MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.

        Raises:
            InputError: As `search`, and for vectors of another shape or with numbers that are not finite.
        """
        options = SearchOptions(
            k=k,
            recall=recall,
            where=where,
            ids=ids,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
        )
        return self._found(None, query_vectors, options, Stopwatch())

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: str | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        threads: int | None = None,
    ) -> list[Hits]:
        """`search` for many queries, several at once; the hits of each, in the order of the queries.

        Args:
            queries: Questions or keywords.
            k: Number of hits for each query.
            recall: How much of the index is examined.
            where: Condition over the table's columns, in LanceDB's SQL.
            ids: Only these documents are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score beside its MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            threads: Number of queries searched at once; None: one for each core that this process may use.

        Raises:
            InputError: As `search`.
        """
        options = SearchOptions(
            k=k,
            recall=recall,
            where=where,
            ids=ids,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
        )
        vectors = self.encoder.encode_queries([check_query(query) for query in queries])
        with ThreadPoolExecutor(threads or usable_cores()) as pool:
            found = pool.map(lambda text, query: self._found(text, query, options, Stopwatch()), queries, vectors)
            return list(found)

    def explain(self, query: str, row_id: str, *, phrase_weight: float | None = None) -> Explanation:
        """Why the document ``row_id`` (in an index of passages: the passage) scores as it does for ``query``.

        ``phrase_weight`` is as in `SearchOptions`. Raises InputError for an empty query, for an id that the index has
        not, and for a phrase weight that cannot be used.
        """
        vectors = self._encode(query)

        def explained(codes: Codes) -> Explanation:
            with storage_errors(codes.index.place()):
                rows = codes.index.table.search().where(col("id") == lit(row_id)).select(["title", "text"])
                found = rows.with_row_id(True).to_arrow()
            numbers = codes.numbers(found["_rowid"].to_numpy())
            if not len(numbers):
                raise InputError(f"{codes.index.place()} has no document with the id {row_id!r}")
            row = Document(row_id, found["text"][0].as_py(), found["title"][0].as_py())
            weight = codes.phrase_weight_for(phrase_weight)
            return explain_hit(self.encoder, codes, query, vectors, int(numbers[0]), row_id, row.encoded_text, weight)

        return self._on_what_is_there(explained)

    def score(self, query: str, ids: Sequence[str], *, phrase_weight: float | None = None) -> np.ndarray:
        """MaxSim of stored documents, given by id, with ``query``: float32 (ids,), in their order.

        NaN for an id that the index has not. In an index of passages a document's score is its best passage's.
        ``phrase_weight`` is as in `SearchOptions`. Raises InputError for an empty query.
        """
        return self.score_vectors(self._encode(query), ids, phrase_weight=phrase_weight)

    def score_vectors(self, query: np.ndarray, ids: Sequence[str], *, phrase_weight: float | None = None) -> np.ndarray:
        """`score` for a query that is encoded already, as in `search_vectors`."""
        return self._on_what_is_there(lambda codes: score_ids(codes, query, ids, phrase_weight))

    def rank_vectors(
        self,
        query_vectors: np.ndarray,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: str | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        query_text: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search_vectors` without fetching the rows of the hits.

        Args:
            query_vectors: float32 (query tokens, dim); the length of each vector is the weight of its token.
            k: Number of hits.
            recall: How much of the index is examined.
            where: Condition over the table's columns, in LanceDB's SQL.
            ids: Only these documents are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score beside its MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            query_text: The query's text, for ``source`` "text" or "fused".

        Returns:
            Row numbers, int64 (hits,), and scores, float32 (hits,), best first. The numbers hold until the next
            refresh.

        Raises:
            InputError: As `search_vectors`.
        """
        options = SearchOptions(
            k=k,
            recall=recall,
            where=where,
            ids=ids,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
        )
        codes = self._codes
        ranking = rank(codes, query_text, query_vectors, options, Stopwatch())
        return ranking.documents, ranking.scores

    def ids(self, documents: np.ndarray) -> list[str]:
        """Ids of documents given by number."""
        return _rows(self._codes, documents, ["id"])["id"].to_pylist()

    def read(self, ids: Sequence[str]) -> list[Document | None]:
        """Whole documents by id, in the order given; None for an id that the index has not.

        In an index of passages a document's text is its passages, one a line: the white space that stood between
        them is not kept. Raises InputError for ids that are one string.
        """
        wanted = checked_ids(ids)
        return self._on_what_is_there(lambda codes: _read(codes, wanted))

    def _found(self, text: str | None, query: np.ndarray, options: SearchOptions, watch: Stopwatch) -> Hits:
        def found(codes: Codes) -> Hits:
            ranking = rank(codes, text, query, options, watch)
            with watch.stage("fetch"):
                hits = _fetch(codes, ranking)
            return Hits(
                hits,
                ranking=ranking,
                stages=watch.stages,
                version=codes.index.table.version,
                query_tokens=len(query),
            )

        return self._on_what_is_there(found)

    def _on_what_is_there(self, action: Callable[[Codes], T]) -> T:
        """``action`` on the version that is open, or on the latest where `optimize` has given up that one."""
        while True:
            codes = self._codes
            try:
                return action(codes)
            except StorageError:
                self.refresh()
                if codes is self._codes:
                    raise

    def _latest(self, index: IndexTable) -> IndexTable:
        return retrying(StorageError)(lambda: open_with_model(index.database, index.name, self.encoder)[0])

    def _read(self, index: IndexTable) -> Codes:
        """The codes of ``index``, or of a later version where `optimize` gives up that one while it is read."""
        try:
            return self._codes_of(index)
        except StorageError:
            return retrying(StorageError)(lambda: self._codes_of(self._latest(index)))

    def _codes_of(self, index: IndexTable) -> Codes:
        return Codes(index, load_arrays(index, derived=self._derived), self.encoder.bundle.phrase_weight)


def _state(table: Table) -> tuple[int, list[str]]:
    return table.version, table.schema.names


def _fetch(codes: Codes, ranking: Ranking) -> list[Hit]:
    header = codes.index.header
    ours = (*CODE_FIELDS, build_column(header), *((FULLTEXT_FIELD,) if header.fulltext else ()))
    columns = [name for name in codes.index.table.schema.names if name not in ours]
    rows = _rows(codes, ranking.documents, columns).to_pylist()
    return [
        Hit(
            id=row["id"],
            score=float(score),
            title=row["title"],
            text=row["text"],
            fields={name: row[name] for name in columns if name not in RESERVED_FIELDS},
        )
        for row, score in zip(rows, ranking.scores, strict=True)
    ]


def _read(codes: Codes, ids: list[str]) -> list[Document | None]:
    header = codes.index.header
    fields = [field.name for field in user_fields(codes.index.table.schema, header)]
    different = list(dict.fromkeys(ids))
    positions, numbers = codes.by_id.find(different)
    order = ["passage"] if header.passage_tokens else []
    parts: dict[str, list[dict[str, Any]]] = {}
    for position, row in zip(
        positions.tolist(), _rows(codes, numbers, ["title", "text", *order, *fields]).to_pylist(), strict=True
    ):
        parts.setdefault(different[position], []).append(row)
    if order:
        for rows in parts.values():
            rows.sort(key=lambda row: row["passage"])
    documents = {
        doc_id: Document(
            doc_id, "\n".join(row["text"] for row in rows), rows[0]["title"], {name: rows[0][name] for name in fields}
        )
        for doc_id, rows in parts.items()
    }
    return [documents.get(doc_id) for doc_id in ids]


def _rows(codes: Codes, documents: np.ndarray, columns: list[str]) -> pa.Table:
    index = codes.index
    if not len(documents):
        return index.table.schema.empty_table().select(columns)
    row_ids = codes.row_ids[documents].tolist()
    with storage_errors(index.place()):
        found = index.table.take_row_ids(row_ids).select(columns).with_row_id().to_arrow()
    # LanceDB returns rows in an order of its own, and leaves out what it does not find.
    position = {row_id: i for i, row_id in enumerate(found["_rowid"].to_pylist())}
    if len(position) < len(row_ids):
        raise StorageError(f"{index.place()}: version {index.table.version} has been removed; refresh and search again")
    return found.take([position[row_id] for row_id in row_ids]).drop_columns(["_rowid"])

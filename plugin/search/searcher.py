"""`Searcher`: a query in, hits ranked by MaxSim out.

It encodes the query, `pipeline.rank` finds and ranks the rows, and `fetch` reads them from the table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from lancedb.table import Table

from ...indexer.codec.codec import OUTGROWN_REMEDY
from ...indexer.derived.arrays import load_arrays
from ...indexer.derived.check import CheckReport, check_index
from ...indexer.errors import StorageError
from ...indexer.forks import check_process
from ...indexer.read.documents import Document
from ...indexer.table.conditions import Where
from ...indexer.table.database import Database, DBConnection, connect, find_table, location_of, storage_errors
from ...indexer.table.model import open_with_model
from ...indexer.table.table import IndexTable
from ...onnx_export.cores import usable_cores
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.progress import Progress, no_progress
from ...onnx_export.retry import retrying
from .explain import Explanation, explain_hit
from .fetch import fetch_hits, read_documents, take_rows
from .filters import checked_ids
from .pipeline import rank, score_ids
from .plan import Recall, SearchOptions, SourceName
from .query_encoder import EncodedQuery, QueryEncoder, check_query
from .results import Hits, Stopwatch
from .stored_codes import StoredCodes

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class Searcher:
    """Searches one version of an index until it is refreshed; open one with `Searcher.open`.

    May be used from several threads at the same time, also while one of them refreshes. A process that is forked from
    the one that opened the searcher cannot use it (ForkedProcessError). Pickled, it is its encoder and the place of its
    index: who unpickles it opens the latest version there. The pickle holds the storage options and their credentials.

    Attributes:
        encoder: The model that queries are encoded with.

    Example:
        >>> from tansaku import Index, Searcher
        >>> documents = [
        ...     {"id": "kyoto", "text": "京都は794年から都だった。"},
        ...     {"id": "dog", "text": "犬は嗅覚が鋭い動物である。"},
        ... ]
        >>> index = Index.create(folder, "docs", documents)
        >>> searcher = Searcher.open(folder, "docs")
        >>> [hit.id for hit in searcher.search("昔の首都はどこ？", k=1)]
        ['kyoto']
        >>> [hit.id for hit in searcher.search("昔の首都はどこ？", ids=["dog"], recall="exact")]
        ['dog']
    """

    def __init__(self, table: IndexTable, encoder: Encoder, *, derived: bool = True) -> None:
        self.encoder = encoder
        self._derived = derived
        self._codes = self._read(table)
        self._say_if_outgrown()
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
            db: Database folder, URI or LanceDB connection.
            table: Name of the table.
            encoder: The model that the index was made with; None: the model inside tansaku.
            derived: Whether to memory-map arrays kept on disk next to the table, and to make them first if they are not
                there. False writes nothing: it reads only the centroid ids of all documents, and reads the residuals of
                each query's candidates from the table. Searches are then slower, with the same hits; for readers that
                answer few queries.
            storage_options: LanceDB's own options for an object store (credentials, endpoint, region); not used with a
                connection.

        Raises:
            TableNotFoundError: No such database or table.
            NotAnIndexError: The table was not made by tansaku, or has another format version.
            ModelMismatchError: The index was made with another model.
            StorageError: The database cannot be read.
        """
        database = connect(db, storage_options=storage_options)
        return cls(*open_with_model(database, table, encoder), derived=derived)

    def __reduce__(self) -> tuple[Any, ...]:
        index = self._codes.index
        return _open_again, (*location_of(index.database), index.name, self.encoder, self._derived)

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
    ) -> Hits:
        """The ``k`` best documents for ``query``, best first; fewer if fewer are allowed.

        Args:
            query: Question or keywords.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents; only these are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.

        Raises:
            InputError: An empty query, an option that `SearchOptions` refuses, a condition that cannot be used, or
                full text asked of an index made without it.
            StorageError: The database cannot be read.
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
            encoded = self._encode(query)
        return self._search(query, encoded, options, watch)

    def search_vectors(
        self,
        query_vectors: np.ndarray,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
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
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents; only these are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.

        Raises:
            InputError: As `search`; also for vectors of another shape or with numbers that are not finite, and for
                ``source`` "text" and "fused", which need the query's text.
            StorageError: The database cannot be read.
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
        return self._search(None, EncodedQuery(query_vectors, truncated=False), options, Stopwatch())

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        threads: int | None = None,
    ) -> list[Hits]:
        """`search` for many queries, several at a time.

        Args:
            queries: Questions or keywords.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents; only these are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            threads: Number of queries searched at a time; None: one for each core that this process may use.

        Returns:
            The hits of each query, in the order of the queries.

        Raises:
            InputError: As `search`.
            StorageError: The database cannot be read.
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
        texts = [check_query(query) for query in queries]
        vectors, tokenized = self.encoder.encode_queries(texts), self.encoder.tokenize_queries(texts)
        encoded = [EncodedQuery(one, text.truncated) for one, text in zip(vectors, tokenized, strict=True)]
        with ThreadPoolExecutor(threads or usable_cores()) as pool:
            found = pool.map(lambda text, one: self._search(text, one, options, Stopwatch()), texts, encoded)
            return list(found)

    def _search(self, query_text: str | None, query: EncodedQuery, options: SearchOptions, watch: Stopwatch) -> Hits:
        def on_version(codes: StoredCodes) -> Hits:
            ranked = rank(codes, query_text, query.vectors, options, watch)
            with watch.stage("fetch"):
                hits = fetch_hits(codes, ranked)
            return Hits(
                hits,
                ranked=ranked,
                stages=watch.stages,
                version=codes.index.table.version,
                query_tokens=len(query.vectors),
                truncated=query.truncated,
            )

        return self._on_open_version(on_version)

    def rank_vectors(
        self,
        query_vectors: np.ndarray,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        query_text: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search_vectors` without reading the hits from the table.

        Args:
            query_vectors: float32 (query tokens, dim); the length of each vector is the weight of its token.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents; only these are found.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            query_text: The query's text; needed for ``source`` "text" and "fused".

        Returns:
            Row numbers, int64 (hits,), and scores, float32 (hits,), best first. `ids` gives the rows' ids; the numbers
            hold until the next refresh.

        Raises:
            InputError: As `search_vectors`.
            StorageError: The database cannot be read.
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
        # Not by `_on_open_version`: row numbers of another version would not be those of the caller's other calls.
        ranked = rank(self._codes, query_text, query_vectors, options, Stopwatch())
        return ranked.rows, ranked.scores

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of rows given by number, as `rank_vectors` returns them.

        Args:
            rows: int64 (rows,).
        """
        return take_rows(self._codes, rows, ["id"])["id"].to_pylist()

    def document_ids(self, rows: np.ndarray) -> list[str]:
        """The ids of the documents that rows belong to: of passages, those of the whole documents.

        Args:
            rows: int64 (rows,), row numbers as `rank_vectors` returns them.
        """
        column = "parent_id" if self.has_passages else "id"
        return take_rows(self._codes, rows, [column])[column].to_pylist()

    @property
    def has_passages(self) -> bool:
        """Whether the rows are passages of documents."""
        return self._codes.index.header.passage_tokens is not None

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those ids, of documents, that are not in the index.

        Args:
            ids: Ids of documents.

        Raises:
            InputError: One string in place of ids.
            StorageError: The database cannot be read.
        """
        wanted = checked_ids(ids)
        positions, _ = self._on_open_version(lambda codes: codes.by_id.find(wanted))
        known = set(positions.tolist())
        return [doc_id for position, doc_id in enumerate(wanted) if position not in known]

    def score(self, query: str, ids: Sequence[str], *, phrase_weight: float | None = None) -> np.ndarray:
        """MaxSim of stored documents with a query.

        Args:
            query: Question or keywords.
            ids: Ids of documents; in an index of passages, a document's score is that of its best passage.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Returns:
            float32 (ids,), in the order of ``ids``; NaN for an id that is not in the index.

        Raises:
            InputError: An empty query, one string in place of ids, or a phrase weight that cannot be used.
            StorageError: The database cannot be read.
        """
        return self.score_vectors(self._encode(query).vectors, ids, phrase_weight=phrase_weight)

    def score_vectors(
        self, query_vectors: np.ndarray, ids: Sequence[str], *, phrase_weight: float | None = None
    ) -> np.ndarray:
        """`score` for a query that is encoded already.

        Args:
            query_vectors: float32 (query tokens, dim); the length of each vector is the weight of its token.
            ids: Ids of documents.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Returns:
            float32 (ids,), in the order of ``ids``; NaN for an id that is not in the index.

        Raises:
            InputError: As `score`, and for vectors of another shape or with numbers that are not finite.
            StorageError: The database cannot be read.
        """
        return self._on_open_version(lambda codes: score_ids(codes, query_vectors, ids, phrase_weight))

    def explain(self, query: str, doc_id: str, *, phrase_weight: float | None = None) -> Explanation:
        """Why a document scores as it does for a query: which of its tokens each query token met.

        Args:
            query: Question or keywords.
            doc_id: Id of the document; in an index of passages, of the passage.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Raises:
            InputError: An empty query, an id that is not in the index, or a phrase weight that cannot be used.
            StorageError: The database cannot be read.
        """
        query_vectors = self._encode(query).vectors
        return self._on_open_version(
            lambda codes: explain_hit(self.encoder, codes, query, query_vectors, doc_id, phrase_weight)
        )

    def read(self, ids: Sequence[str]) -> list[Document | None]:
        """Whole documents by id.

        Args:
            ids: Ids of documents.

        Returns:
            The documents in the order of ``ids``; None for an id that is not in the index. In an index of passages a
            document's text is its passages, one a line: the whitespace between them is not kept.

        Raises:
            InputError: One string in place of ids.
            StorageError: The database cannot be read.
        """
        wanted = checked_ids(ids)
        return self._on_open_version(lambda codes: read_documents(codes, wanted))

    @property
    def location(self) -> tuple[DBConnection, str]:
        """Database and table that are searched."""
        return self._codes.index.database, self._codes.index.name

    @property
    def version(self) -> int:
        """Version of the table that is searched."""
        check_process(self._codes.index.place())
        return self._codes.index.table.version

    @property
    def phrase_weight(self) -> float:
        """Phrase weight of a search that gives none: the model's, or 0 in an index of pooled vectors."""
        return self._codes.phrase_weight

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return len(self._codes)

    def refresh(self) -> bool:
        """Bring the search to the latest version of the table.

        Returns:
            Whether there was a later version.

        Raises:
            TableNotFoundError: The table is no longer there; as after the other errors, the search stays as it was.
            NotAnIndexError: The table is no longer one of tansaku.
            ModelMismatchError: The table was made again with another model.
            StorageError: The database cannot be read.
        """
        before = self._codes.index
        with storage_errors(before.place()):
            table = find_table(before.database, before.name)
        # The column names differ between two builds of a table, and reading them costs little.
        if table is not None and _state(table) == _state(before.table):
            return False
        outgrown = self._codes.outgrown
        self._codes = self._read(self._latest(before))
        self._say_if_outgrown(outgrown)
        return True

    def check(self, progress: Progress | None = None) -> CheckReport:
        """`Index.check` of the table at its latest version; searches continue meanwhile.

        Args:
            progress: Called as the work proceeds.

        Raises:
            TableNotFoundError: The table is no longer there.
            StorageError: The table is damaged, or cannot be read.
        """
        return check_index(self._latest(self._codes.index), progress or no_progress)

    def _on_open_version(self, action: Callable[[StoredCodes], T]) -> T:
        """``action`` on the version that is open, or on the latest if `optimize` has removed that one."""
        check_process(self._codes.index.place())
        while True:
            codes = self._codes
            try:
                return action(codes)
            except StorageError:
                self.refresh()
                if codes is self._codes:
                    raise

    def _read(self, index: IndexTable) -> StoredCodes:
        """The codes of ``index``, or of a later version if `optimize` removes that one while it is read."""
        try:
            return self._codes_of(index)
        except StorageError:
            return retrying(StorageError)(lambda: self._codes_of(self._latest(index)))

    def _say_if_outgrown(self, before: bool = False) -> None:
        if self._codes.outgrown and not before:
            _logger.warning("%s %s", self._codes.index.place(), OUTGROWN_REMEDY)

    def _latest(self, index: IndexTable) -> IndexTable:
        return retrying(StorageError)(lambda: open_with_model(index.database, index.name, self.encoder)[0])

    def _codes_of(self, index: IndexTable) -> StoredCodes:
        arrays = load_arrays(index, derived=self._derived)
        return StoredCodes(index, arrays, self.encoder.bundle.phrase_weight)


def _open_again(
    db: str, storage_options: Mapping[str, str] | None, table: str, encoder: Encoder, derived: bool
) -> Searcher:
    return Searcher.open(db, table, encoder=encoder, derived=derived, storage_options=storage_options)


def _state(table: Table) -> tuple[int, list[str]]:
    return table.version, table.schema.names

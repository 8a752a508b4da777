"""`Searcher`: a query in, hits ranked by MaxSim out.

It encodes the query, `pipeline.rank` finds and ranks the rows, and `fetch` reads them from the table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any, NamedTuple, TypeVar

import numpy as np
from lancedb.table import Table

from ...indexer.codec.codec import OUTGROWN_REMEDY
from ...indexer.derived.check import CheckReport, check_index
from ...indexer.errors import StorageError
from ...indexer.forks import check_process
from ...indexer.read.documents import Document
from ...indexer.table.conditions import Where
from ...indexer.table.database import Database, DBConnection, connect, find_table, location_of, storage_errors
from ...indexer.table.ids import checked_ids
from ...indexer.table.model import Models
from ...indexer.table.table import IndexTable, open_index_table
from ...onnx_export.cores import usable_cores
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind, check_whole
from ...onnx_export.progress import Progress, no_progress
from .calibration import Calibration
from .choices import Recall, SourceName
from .explain import Explanation, explain_hit
from .fetch import chosen_columns, fetch_hits, read_documents
from .many import QUERIES_AT_ONCE, ManyQueries
from .opened_version import OpenedVersion, latest
from .pipeline import rank, score_ids
from .plan import SearchOptions
from .query_encoder import EncodedQuery, QueryEncoder, check_query
from .results import Hits, Scores, Stopwatch
from .snippets import SNIPPET_CHARS, Snippet, snippets_of
from .stored_codes import StoredCodes

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class ScoredQuery(NamedTuple):
    """Scores of stored documents, and what other texts are scored with beside them.

    Attributes:
        scores: MaxSim of each document.
        query_vectors: float32 (query tokens, dim).
        encoder: The model that they come from.
        phrase_weight: The phrase weight of the scores.
    """

    scores: Scores
    query_vectors: np.ndarray
    encoder: Encoder
    phrase_weight: float


class Searcher:
    """Searches one version of an index until it is refreshed; open one with `Searcher.open`.

    May be used from several threads at the same time, also while one of them refreshes. A process that is forked from
    the one that opened the searcher cannot use it (ForkedProcessError). Pickled, it is its encoder and the place of its
    index: who unpickles it opens the latest version there. The pickle holds the storage options and their credentials.

    A searcher that was opened without a model finds the table's own. When `refresh` finds that the table was encoded
    again with another model (`Index.rebuild`), it loads that one, and answers in the earlier version meanwhile.

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

    def __init__(self, table: IndexTable, encoder: Encoder | Models | None, *, derived: bool = True) -> None:
        check_kind("table", table, IndexTable, "open the index with Searcher.open(db, table)")
        self._models = Models.of(encoder)
        self._derived = derived
        self._opened = OpenedVersion.read(table, self._models, derived=derived)
        self._say_if_outgrown()

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
            encoder: The model that the index was made with, and always will be; None finds the index's own: the one
                inside tansaku, or one in a folder of ``TANSAKU_MODELS``.
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
        return cls(open_index_table(database, table), encoder, derived=derived)

    def __reduce__(self) -> tuple[Any, ...]:
        index = self._codes.index
        return _open_again, (*location_of(index.database), index.name, self._models, self._derived)

    @property
    def encoder(self) -> Encoder:
        """The model that queries are encoded with."""
        return self._opened.encode.encoder

    def search(
        self,
        query: str,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        passages: bool = False,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> Hits:
        """The ``k`` best documents for ``query``, best first; fewer if fewer are allowed.

        Args:
            query: Question or keywords.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents or passages; only these are found.
            passages: Whether each passage is a hit of its own.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            fields: What is read of each hit; None reads all, an empty list nothing.

        Raises:
            InputError: An empty query, an option that `SearchOptions` refuses, a condition that cannot be used, a field
                that hits do not have, or full text asked of an index made without it.
            StorageError: The database cannot be read.
        """
        options = SearchOptions(
            k=k,
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
        return self._search(query, lambda encode: encode(query), options)

    def search_vectors(
        self,
        query_vectors: np.ndarray,
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        passages: bool = False,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> Hits:
        """`search` for a query that is encoded already.

        Args:
            query_vectors: float32 (query tokens, dim); the length of each vector is the weight of its token.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents or passages; only these are found.
            passages: Whether each passage is a hit of its own.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            fields: What is read of each hit; None reads all, an empty list nothing.

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
            passages=passages,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
            fields=fields,
        )
        return self._search(None, lambda _: EncodedQuery(query_vectors, truncated=False), options)

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        recall: Recall = "balanced",
        where: Where | None = None,
        ids: Sequence[str] | None = None,
        passages: bool = False,
        source: SourceName = "lists",
        bm25_weight: float = 0.0,
        phrase_weight: float | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        fields: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> list[Hits]:
        """`search` for many queries: the same hits in less time.

        Up to 256 queries are encoded in one batch and their hits read together. A query that is given several times is
        searched once. In `Hits.stages`, "encode", "filter" and "fetch" are a query's equal share of what was done for
        all.

        Args:
            queries: Questions or keywords.
            k: Number of hits; `SearchOptions` describes this and the other options in full.
            recall: How much of the index is examined.
            where: Condition over the table's columns: text, or a `Condition` with parameters.
            ids: Ids of documents or passages; only these are found.
            passages: Whether each passage is a hit of its own.
            source: Where candidates come from.
            bm25_weight: Weight given to a hit's BM25 score, which is added to MaxSim.
            phrase_weight: Weight given to the similarity of neighbouring tokens.
            nprobe: Number of centroids probed for each query token.
            candidates: Number of documents that may be scored by their codes.
            fields: What is read of each hit; None reads all, an empty list nothing.
            threads: Number of queries searched at a time; None: one for each core that this process may use.

        Returns:
            The hits of each query, in the order of the queries.

        Raises:
            InputError: As `search`, and for ``threads`` below 1.
            StorageError: The database cannot be read.
        """
        options = SearchOptions(
            k=k,
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
        if isinstance(queries, str):
            raise InputError("queries is one string; give a list of queries, or use `search`")
        if threads is not None:
            check_whole("threads", threads)
        texts = [check_query(query) for query in queries]
        distinct = list(dict.fromkeys(texts))
        found: dict[str, Hits] = {}
        with ThreadPoolExecutor(threads or usable_cores()) as pool:
            many = ManyQueries(options, pool)
            for start in range(0, len(distinct), QUERIES_AT_ONCE):
                chunk = distinct[start : start + QUERIES_AT_ONCE]
                hits = self._on_open_version(
                    lambda opened, chunk=chunk: many.search(opened.codes, opened.encode, opened.calibrator, chunk)
                )
                found.update(zip(chunk, hits, strict=True))
        # What is found for a query is the caller's to change, so a query that is given again gets a copy.
        first = {text: position for position, text in reversed(list(enumerate(texts)))}
        return [found[text] if first[text] == i else deepcopy(found[text]) for i, text in enumerate(texts)]

    def _search(
        self, query_text: str | None, encoded: Callable[[QueryEncoder], EncodedQuery], options: SearchOptions
    ) -> Hits:
        watch = Stopwatch()

        def on_version(opened: OpenedVersion) -> Hits:
            codes = opened.codes
            columns = chosen_columns(codes, options.fields)
            with watch.stage("encode"):
                query = encoded(opened.encode)
            settled, level = opened.calibrator.settled(options)
            ranked = rank(codes, query_text, query.vectors, settled, watch, level=level)
            with watch.stage("fetch"):
                hits = fetch_hits(codes, ranked, columns, passages=options.passages)
            return Hits(
                hits,
                ranked=ranked,
                stages=watch.stages,
                version=codes.version,
                query_tokens=len(query.vectors),
                truncated=query.truncated,
                recall=opened.calibrator.expected(settled, level, ranked),
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
        passages: bool = False,
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
            ids: Ids of documents or passages; only these are found.
            passages: Whether each passage is a hit of its own.
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
            passages=passages,
            source=source,
            bm25_weight=bm25_weight,
            phrase_weight=phrase_weight,
            nprobe=nprobe,
            candidates=candidates,
        )
        # Not by `_on_open_version`: row numbers of another version would not be those of the caller's other calls.
        opened = self._opened
        options, level = opened.calibrator.settled(options)
        ranked = rank(opened.codes, query_text, query_vectors, options, Stopwatch(), level=level)
        return ranked.rows, ranked.scores

    def calibrate(self, queries: Sequence[str] | None = None) -> Calibration | None:
        """Measure which share of exact MaxSim's ten best the searches of this index find.

        A number as ``recall`` relies on it, and `Hits.recall` tells it. The first search with such a number measures if
        nothing has; that takes seconds, in a large index some ten. The result is kept next to the derived arrays until
        the index has grown by half or shrunk by a third, or has another codec or other routing points. Without such
        arrays it is kept in memory. Other searchers that are open see it when they are refreshed.

        The queries are 64 stored documents, cut to 24 of their tokens. Your own queries are better: the estimate is
        then for such queries.

        Args:
            queries: Questions or keywords, best some hundred. Stored documents make up what they lack to 64.

        Returns:
            What was measured; None if the index is so small that all documents are scored anyway.

        Raises:
            InputError: An empty query, or one string in place of queries.
            StorageError: The database cannot be read.
        """
        if isinstance(queries, str):
            raise InputError("queries is one string; give a list of queries")
        texts = [check_query(query) for query in queries or ()]

        def on_version(opened: OpenedVersion) -> Calibration | None:
            vectors = opened.encode.encoder.encode_queries(texts) if texts else []
            return opened.calibrator.measure(vectors)

        return self._on_open_version(on_version)

    def ids(self, rows: np.ndarray) -> list[str]:
        """The ids of rows given by number, as `rank_vectors` returns them.

        Args:
            rows: int64 (rows,).
        """
        return self._codes.ids(rows, of_passages=True)

    def document_ids(self, rows: np.ndarray) -> list[str]:
        """The ids of the documents that rows belong to: of passages, those of the whole documents.

        Args:
            rows: int64 (rows,), row numbers as `rank_vectors` returns them.
        """
        return self._codes.ids(rows)

    @property
    def has_passages(self) -> bool:
        """Whether the rows are passages of documents."""
        return self._codes.index.header.passage_tokens is not None

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those ids that are not in the index.

        Args:
            ids: Ids of documents or passages.

        Raises:
            InputError: One string in place of ids.
            StorageError: The database cannot be read.
        """
        wanted = checked_ids(ids)
        positions, _ = self._on_open_version(lambda opened: opened.codes.find_ids(wanted))
        known = set(positions.tolist())
        return [doc_id for position, doc_id in enumerate(wanted) if position not in known]

    def score(self, query: str, ids: Sequence[str], *, phrase_weight: float | None = None) -> Scores:
        """MaxSim of stored documents with a query.

        Args:
            query: Question or keywords.
            ids: Ids of documents or passages; a document's score is that of its best passage.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Returns:
            float32 (ids,), in the order of ``ids``; NaN for an id that is not in the index. Its ``truncated`` says
            whether the query was cut.

        Raises:
            InputError: An empty query, one string in place of ids, or a phrase weight that cannot be used.
            StorageError: The database cannot be read.
        """
        return self._score_and_encode(query, ids, phrase_weight=phrase_weight).scores

    def _score_and_encode(self, query: str, ids: Sequence[str], *, phrase_weight: float | None = None) -> ScoredQuery:
        """`score`, with the query's vectors and the model of the same moment, to score texts beside the documents.

        Args:
            query: Question or keywords.
            ids: Ids of documents.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Raises:
            InputError: As `score`.
            StorageError: The database cannot be read.
        """

        def on_version(opened: OpenedVersion) -> ScoredQuery:
            encoded = opened.encode(query)
            scores = Scores.of(score_ids(opened.codes, encoded.vectors, ids, phrase_weight), encoded.truncated)
            weight = opened.codes.phrase_weight_for(phrase_weight)
            return ScoredQuery(scores, encoded.vectors, opened.encode.encoder, weight)

        return self._on_open_version(on_version)

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
        return self._on_open_version(lambda opened: score_ids(opened.codes, query_vectors, ids, phrase_weight))

    def explain(self, query: str, doc_id: str, *, phrase_weight: float | None = None) -> Explanation:
        """Why a document scores as it does for a query: which of its tokens each query token met.

        Args:
            query: Question or keywords.
            doc_id: Id of the document, of which the best passage is explained, or of a passage.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Raises:
            InputError: An empty query, an id that is not in the index, or a phrase weight that cannot be used.
            StorageError: The database cannot be read.
        """
        return self._on_open_version(
            lambda opened: explain_hit(
                opened.encode.encoder, opened.codes, query, opened.encode(query), doc_id, phrase_weight
            )
        )

    def snippets(
        self, query: str, ids: Sequence[str], *, chars: int = SNIPPET_CHARS, phrase_weight: float | None = None
    ) -> list[Snippet]:
        """The parts of documents that match most of a query, and the words in them that match.

        Args:
            query: Question or keywords.
            ids: Ids of documents, of which the best passage is shown, or of passages: those of the hits.
            chars: Largest number of characters of a snippet.
            phrase_weight: Weight given to the similarity of neighbouring tokens, as in `SearchOptions`.

        Returns:
            One for each id, in their order.

        Raises:
            InputError: An empty query, an id that is not in the index, or a number below 1.
            StorageError: The database cannot be read.
        """
        check_whole("chars", chars)
        wanted = checked_ids(ids)
        return self._on_open_version(
            lambda opened: snippets_of(
                opened.encode.encoder,
                opened.codes,
                query,
                opened.encode(query),
                wanted,
                chars=chars,
                phrase_weight=phrase_weight,
            )
        )

    def read(self, ids: Sequence[str]) -> list[Document | None]:
        """Whole documents by id, or passages.

        Args:
            ids: Ids of documents or passages.

        Returns:
            The documents in the order of ``ids``; None for an id that is not in the index. In an index of passages a
            document's text is its passages, one a line: the whitespace between them is not kept.

        Raises:
            InputError: One string in place of ids.
            StorageError: The database cannot be read.
        """
        wanted = checked_ids(ids)
        return self._on_open_version(lambda opened: read_documents(opened.codes, wanted))

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
        """Bring the search to the latest version of the table, and to its model if that is another one.

        Searches in other threads are answered in the earlier version until the new one is open.

        Returns:
            Whether there was a later version.

        Raises:
            TableNotFoundError: The table is no longer there; as after the other errors, the search stays as it was.
            NotAnIndexError: The table is no longer one of tansaku.
            ModelMismatchError: The table was made again with another model than the one given to `open`, or with one
                that is not known here.
            StorageError: The database cannot be read.
        """
        before = self._codes.index
        with storage_errors(before.place()):
            table = find_table(before.database, before.name)
        # The column names differ between two builds of a table, and reading them costs little.
        if table is not None and _state(table) == _state(before.table):
            return False
        outgrown = self._codes.outgrown
        self._opened = OpenedVersion.read(latest(before), self._models, derived=self._derived, before=self._opened)
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
        return check_index(latest(self._codes.index), progress or no_progress)

    @property
    def _codes(self) -> StoredCodes:
        return self._opened.codes

    def _on_open_version(self, action: Callable[[OpenedVersion], T]) -> T:
        """``action`` on the version that is open, or on the latest if `optimize` has removed that one."""
        check_process(self._codes.index.place())
        while True:
            opened = self._opened
            try:
                return action(opened)
            except StorageError:
                self.refresh()
                if opened is self._opened:
                    raise

    def _say_if_outgrown(self, before: bool = False) -> None:
        if self._codes.outgrown and not before:
            _logger.warning("%s %s", self._codes.index.place(), OUTGROWN_REMEDY)


def _open_again(
    db: str, storage_options: Mapping[str, str] | None, table: str, models: Models, derived: bool
) -> Searcher:
    index = open_index_table(connect(db, storage_options=storage_options), table)
    return Searcher(index, models, derived=derived)


def _state(table: Table) -> tuple[int, list[str]]:
    return table.version, table.schema.names

"""`ShardedSearcher`: the verbs of `Searcher` over shards, which may be in other processes and on other machines.

It encodes the query once, asks all shards for their best at one version of the table, and merges what they give.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ...indexer.derived.check import CheckReport
from ...indexer.errors import StorageError
from ...indexer.read.documents import Document
from ...indexer.table.database import Database, DBConnection, connect, location_of
from ...indexer.table.ids import checked_ids
from ...indexer.table.model import Models
from ...indexer.table.shard import Shard
from ...indexer.table.table import IndexTable, open_index_table
from ...onnx_export.encode.encoder import Encoder
from ...onnx_export.errors import InputError, TansakuError
from ...onnx_export.kinds import check_whole
from ...onnx_export.progress import Progress, no_progress
from ..search.calibration import Calibration
from ..search.explain import Explanation, explain_vectors
from ..search.fetch import joined
from ..search.plan import SearchOptions
from ..search.query_encoder import EncodedQuery, QueryEncoder
from ..search.results import Hits, RankedRows, Scores
from ..search.searcher import ScoredQuery, Searcher
from ..search.snippets import SNIPPET_CHARS, Snippet, snippet_of
from .merge import best_hits, expected_recall, missing_everywhere
from .server import Place, ShardServer, StaleVersionError, Version

T = TypeVar("T")

_TRIES = 3  # of a request whose version is no longer open, because of a refresh meanwhile


class ShardLostError(TansakuError):
    """A shard does not answer, on no replica. The message names it."""


class ShardClient(Protocol):
    """Asks one shard: in this process, or elsewhere."""

    def ask(self, verb: str, *given: Any) -> Any:
        """What the verb of `ShardServer` returns.

        Raises:
            ShardLostError: no replica answers.
            TansakuError: what the shard raises.
        """
        ...


class LocalShard:
    """A shard in this process."""

    def __init__(self, server: ShardServer) -> None:
        self._server = server

    def ask(self, verb: str, *given: Any) -> Any:
        """See `ShardClient.ask`."""
        return getattr(self._server, verb)(*given)


@dataclass(frozen=True)
class _Whole:
    """The version that is searched, the model, and the number of rows of each shard."""

    index: IndexTable
    encode: QueryEncoder
    rows: tuple[int, ...]

    @property
    def version(self) -> Version:
        return version_of(self.index, self.encode.encoder)


class ShardedSearcher(Searcher):
    """Searches an index whose rows are divided among shards; open one with `ShardedSearcher.open_local`.

    It has the verbs of `Searcher`, but for those that give row numbers (`rank_vectors`, `ids`, `document_ids`) and
    `calibrate`. ``exact`` gives the hits of one `Searcher`. With other recalls each shard looks for candidates among
    its own rows, so that more documents are scored than in one index. BM25 scores are those of the whole table.

    All shards answer at one version of the table. `refresh` opens the next one on all of them before any request asks
    for it; if one cannot open it, all stay at the present one.

    Args:
        database: the database of the index.
        table: its name.
        shards: one client for each shard, in their order.
        encoder: as in `Searcher.open`.
        partial: leave out shards that do not answer, and name them in `Hits.lost`; False: raise `ShardLostError`.
        on_close: called by `close`.

    Example:
        >>> from tansaku import Index, ShardedSearcher
        >>> documents = [{"id": str(i), "text": f"京都の第{i}の寺。"} for i in range(20)]
        >>> index = Index.create(folder, "temples", documents)
        >>> searcher = ShardedSearcher.open_local(folder, "temples", shards=2)
        >>> len(searcher.search("寺", k=3))
        3
    """

    def __init__(
        self,
        database: DBConnection,
        table: str,
        shards: Sequence[ShardClient],
        *,
        encoder: Encoder | Models | None = None,
        partial: bool = False,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        if not shards:
            raise InputError("there are no shards; give one or more")
        self._database, self._name = database, table
        self._shards = list(shards)
        self._partial = partial
        self._on_close = on_close
        self._models = Models.of(encoder)
        self._pool = ThreadPoolExecutor(4 * len(self._shards), thread_name_prefix="tansaku-shard")
        self._whole = self._opened_everywhere(open_index_table(database, table), None)

    @classmethod
    def open_local(
        cls,
        db: Database,
        table: str,
        *,
        shards: int,
        encoder: Encoder | None = None,
        derived: bool = True,
        storage_options: dict[str, str] | None = None,
    ) -> ShardedSearcher:
        """Open all shards of an index in this process.

        Args:
            db: as in `Searcher.open`.
            table: name of the table.
            shards: number of shards, 1 or more.
            encoder: as in `Searcher.open`.
            derived: as in `Searcher.open`.
            storage_options: as in `Searcher.open`.

        Raises:
            TansakuError: as `Searcher.open`.
        """
        check_whole("shards", shards)
        database = connect(db, storage_options=storage_options)
        place = place_of(database, table)
        servers = [ShardServer(place, Shard(i, shards), derived=derived) for i in range(shards)]
        return cls(database, table, [LocalShard(server) for server in servers], encoder=encoder)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a ShardedSearcher cannot be pickled; open it again where it is needed")

    def __copy__(self) -> ShardedSearcher:
        made = object.__new__(ShardedSearcher)
        made.__dict__.update(self.__dict__)
        return made

    @property
    def encoder(self) -> Encoder:
        """The model that queries are encoded with."""
        return self._whole.encode.encoder

    def search_many(self, queries: Sequence[str], k: int = 10, **options: Any) -> list[Hits]:
        """`search` for each of many queries, several at a time.

        Args:
            queries: questions or keywords.
            k: number of hits.
            options: as `search` takes them, and ``threads``, the number of queries at a time.

        Raises:
            InputError: as `search`.
            StorageError: the database cannot be read.
        """
        if isinstance(queries, str):
            raise InputError("queries is one string; give a list of queries, or use `search`")
        threads = options.pop("threads", None)
        with ThreadPoolExecutor(threads or 2 * len(self._shards)) as pool:
            return list(pool.map(lambda query: self.search(query, k, **options), queries))

    def _search(
        self, query_text: str | None, encoded: Callable[[QueryEncoder], EncodedQuery], options: SearchOptions
    ) -> Hits:
        def on_version(whole: _Whole) -> Hits:
            started = time.perf_counter()
            query = encoded(whole.encode)
            after_encoding = time.perf_counter()
            found, lost = self._ask_all("search", whole.version, query_text, query.vectors, options)
            after_shards = time.perf_counter()
            stages = {"encode": 1000 * (after_encoding - started), "shards": 1000 * (after_shards - after_encoding)}
            hits = best_hits(found, options.k, passages=options.passages)
            missing = missing_everywhere(found) if not lost else ()
            scored = sum(shard.scored for shard in found)
            made = Hits(
                hits,
                ranked=RankedRows(np.empty(0, np.int64), np.empty(0, np.float32), scored, missing),
                stages=stages,
                version=whole.version.number,
                query_tokens=len(query.vectors),
                truncated=query.truncated,
                recall=None if lost else expected_recall(found, hits),
            )
            made.lost = lost
            return made

        return self._on_version(on_version)

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Those ids that are not in the index; as `Searcher.unknown`."""
        wanted = checked_ids(ids)
        found, _ = self._on_version(lambda whole: self._ask_all("known", whole.version, wanted, partial=False))
        known = set().union(*found)
        return [doc_id for position, doc_id in enumerate(wanted) if position not in known]

    def _score_and_encode(self, query: str, ids: Sequence[str], *, phrase_weight: float | None = None) -> ScoredQuery:
        def on_version(whole: _Whole) -> ScoredQuery:
            encoded = whole.encode(query)
            scores = self._scores(whole, encoded.vectors, ids, phrase_weight)
            weight = self.phrase_weight if phrase_weight is None else phrase_weight
            return ScoredQuery(Scores.of(scores, encoded.truncated), encoded.vectors, whole.encode.encoder, weight)

        return self._on_version(on_version)

    def score_vectors(
        self, query_vectors: np.ndarray, ids: Sequence[str], *, phrase_weight: float | None = None
    ) -> np.ndarray:
        """MaxSim of stored documents; as `Searcher.score_vectors`."""
        return self._on_version(lambda whole: self._scores(whole, query_vectors, ids, phrase_weight))

    def _scores(
        self, whole: _Whole, vectors: np.ndarray, ids: Sequence[str], phrase_weight: float | None
    ) -> np.ndarray:
        found, _ = self._ask_all("score", whole.version, vectors, checked_ids(ids), phrase_weight, partial=False)
        return np.fmax.reduce(found)

    def explain(self, query: str, doc_id: str, *, phrase_weight: float | None = None) -> Explanation:
        """Why a document scores as it does for a query; as `Searcher.explain`."""

        def on_version(whole: _Whole) -> Explanation:
            encoded = whole.encode(query)
            ((document, vectors),) = self._best_passages(whole, encoded.vectors, [doc_id], phrase_weight)
            weight = self.phrase_weight if phrase_weight is None else phrase_weight
            text = document.encoded_text
            return explain_vectors(whole.encode.encoder, query, encoded, doc_id, text, vectors, weight)

        return self._on_version(on_version)

    def snippets(
        self, query: str, ids: Sequence[str], *, chars: int = SNIPPET_CHARS, phrase_weight: float | None = None
    ) -> list[Snippet]:
        """The parts of documents that match most of a query; as `Searcher.snippets`."""
        check_whole("chars", chars)
        wanted = checked_ids(ids)

        def on_version(whole: _Whole) -> list[Snippet]:
            encoded = whole.encode(query)
            passages = self._best_passages(whole, encoded.vectors, wanted, phrase_weight)
            weight = self.phrase_weight if phrase_weight is None else phrase_weight
            encoder = whole.encode.encoder
            return [snippet_of(encoder, query, encoded, *passage, weight, chars) for passage in passages]

        return self._on_version(on_version)

    def _best_passages(
        self, whole: _Whole, vectors: np.ndarray, ids: Sequence[str], phrase_weight: float | None
    ) -> list[tuple[Document, np.ndarray]]:
        """Of each document the best passage and its vectors, from the shard that has it."""
        scores, _ = self._ask_all("score", whole.version, vectors, ids, phrase_weight, partial=False)
        table = np.stack(scores)
        absent = np.isnan(table).all(axis=0)
        if absent.any():
            doc_id = ids[int(np.argmax(absent))]
            raise InputError(f"table {self._name!r} has no document with the id {doc_id!r}")
        of_each = np.nanargmax(table, axis=0)
        found: dict[int, tuple[Document, np.ndarray]] = {}
        for number in np.unique(of_each).tolist():
            places = np.flatnonzero(of_each == number).tolist()
            given = whole.version, vectors, [ids[place] for place in places], phrase_weight
            found.update(zip(places, self._shards[number].ask("best_passages", *given), strict=True))
        return [found[place] for place in range(len(ids))]

    def read(self, ids: Sequence[str]) -> list[Document | None]:
        """Whole documents by id, or passages; as `Searcher.read`."""
        wanted = checked_ids(ids)
        found, _ = self._on_version(lambda whole: self._ask_all("parts", whole.version, wanted, partial=False))
        parts: dict[str, list[dict[str, Any]]] = {}
        for of_shard in found:
            for doc_id, of_document in of_shard.items():
                parts.setdefault(doc_id, []).extend(of_document)
        documents = joined(parts)
        return [documents.get(doc_id) for doc_id in wanted]

    def rank_vectors(self, *_: Any, **__: Any) -> tuple[np.ndarray, np.ndarray]:
        """Not for shards: a row has no number in the whole index.

        Raises:
            InputError: always; `search_vectors` gives ids.
        """
        raise InputError("an index in shards has no row numbers; use search_vectors with fields=[]")

    def ids(self, rows: np.ndarray) -> list[str]:
        """Not for shards, as `rank_vectors`."""
        self.rank_vectors(rows)
        return []

    def document_ids(self, rows: np.ndarray) -> list[str]:
        """Not for shards, as `rank_vectors`."""
        return self.ids(rows)

    def calibrate(self, queries: Sequence[str] | None = None) -> Calibration | None:
        """Not for shards: each measures for itself when a search asks for a recall.

        Raises:
            InputError: always.
        """
        raise InputError("shards measure for themselves when a search asks for a number as recall; leave out calibrate")

    @property
    def has_passages(self) -> bool:
        """Whether the rows are passages of documents."""
        return self._whole.index.header.passage_tokens is not None

    @property
    def location(self) -> tuple[DBConnection, str]:
        """Database and table that are searched."""
        return self._database, self._name

    @property
    def version(self) -> int:
        """Version of the table that is searched."""
        return self._whole.version.number

    @property
    def phrase_weight(self) -> float:
        """Phrase weight of a search that gives none."""
        return 0.0 if self._whole.index.header.pool > 1 else self.encoder.bundle.phrase_weight

    @property
    def shards(self) -> tuple[int, ...]:
        """Number of rows of each shard."""
        return self._whole.rows

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return sum(self._whole.rows)

    def refresh(self) -> bool:
        """Bring all shards to the latest version of the table, or none.

        Returns:
            Whether there was a later version.

        Raises:
            ShardLostError: a shard does not answer; all stay at the present version, as after the other errors.
            TansakuError: as `Searcher.refresh`.
        """
        index = open_index_table(self._database, self._name)
        before = self._whole
        if (index.table.version, index.header) == (before.version.number, before.index.header):
            return False
        self._whole = self._opened_everywhere(index, before)
        return True

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Check every shard where it is, as `Index.check`: no process reads the whole table.

        Args:
            progress: called before and after the work.

        Returns:
            The sums of the shards' reports. Files of a table in a folder are counted by each shard.

        Raises:
            ShardLostError: a shard does not answer.
            TansakuError: as `Index.check`.
        """
        progress = progress or no_progress
        progress("check rows", 0, len(self), 0)
        reports, _ = self._on_version(lambda whole: self._ask_all("check", whole.version, partial=False))
        progress("check rows", len(self), len(self), 0)
        return CheckReport(
            sum(report.files for report in reports),
            sum(report.bytes for report in reports),
            sum(report.rows for report in reports),
            any(report.rebuilt for report in reports),
        )

    def close(self) -> None:
        """End the threads that ask the shards, and the shards that were started for this searcher."""
        self._pool.shutdown(cancel_futures=True)
        self._on_close()

    def _opened_everywhere(self, index: IndexTable, before: _Whole | None) -> _Whole:
        encoder = self._models.find(index)
        rows, _ = self._ask_all("open", version_of(index, encoder), partial=False)
        encode = before.encode if before is not None and before.encode.encoder is encoder else QueryEncoder(encoder)
        return _Whole(index, encode, tuple(rows))

    def _on_version(self, action: Callable[[_Whole], T]) -> T:
        """``action`` at the version that is searched; again if that was replaced or removed meanwhile."""
        for attempt in range(_TRIES):
            whole = self._whole
            try:
                return action(whole)
            except StaleVersionError:  # two refreshes since the request began, or a shard that was started again
                if self._whole is whole:
                    self._whole = self._opened_everywhere(whole.index, whole)
                if attempt == _TRIES - 1:
                    raise
            except StorageError:
                if not self.refresh() or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _ask_all(self, verb: str, *given: Any, partial: bool | None = None) -> tuple[list[Any], tuple[int, ...]]:
        """What all shards answer, in their order, and the numbers of those that did not."""
        futures = [self._pool.submit(shard.ask, verb, *given) for shard in self._shards]
        allowed = self._partial if partial is None else partial
        answers: list[Any] = []
        lost: list[int] = []
        problem: ShardLostError | None = None
        for number, future in enumerate(_all_done(futures)):
            try:
                answers.append(future.result())
            except ShardLostError as error:
                lost.append(number)
                problem = error
        if problem is not None and (not allowed or not answers):
            raise problem
        return answers, tuple(lost)


def allowing(searcher: Searcher, *, partial: bool) -> Searcher:
    """The searcher, for a caller who allows answers without the shards that do not answer.

    Args:
        searcher: any searcher; one that has no shards stays as it is.
        partial: whether the caller allows it.
    """
    if not partial or not isinstance(searcher, ShardedSearcher):
        return searcher
    allowed = copy.copy(searcher)  # of the version that is searched now
    allowed._partial = True
    return allowed


def version_of(index: IndexTable, encoder: Encoder) -> Version:
    """What shards are asked for.

    Args:
        index: the open table.
        encoder: its model.
    """
    return Version(index.table.version, index.header.build_id, encoder.bundle.phrase_weight)


def place_of(database: DBConnection, table: str) -> Place:
    """Where shards find an index.

    Args:
        database: its database.
        table: its name.

    Raises:
        InputError: other processes cannot open the database.
    """
    folder, options = location_of(database)
    return Place(folder, table, options)


def _all_done(futures: Sequence[Future[Any]]) -> Iterator[Future[Any]]:
    """The futures, once all of them have ended: an error of one must not leave others at work."""
    for future in futures:
        with suppress(Exception):
            future.result()
    yield from futures

"""`Service`: the model and the indexes, and the work that the endpoints ask for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...indexer.errors import ModelMismatchError, StorageError
from ...indexer.table.contents import index_names
from ...indexer.table.database import Database, DBConnection, connect
from ...indexer.table.model import Models
from ...indexer.table.table import open_index_table
from ...onnx_export.cores import usable_cores
from ...onnx_export.encode.encoder import Encoder
from ..rerank.reranker import Reranker, RerankResult
from ..search.choices import ScoreMode
from ..search.explain import Explanation
from ..search.results import Hits
from ..search.searcher import Searcher
from ..serving.workers import Workers, check_abandoned
from ..shards.searcher import ShardLostError
from .errors import ServiceError
from .observability import Metrics
from .pace import Pace
from .settings import Settings

T = TypeVar("T")

_WARM_UP_TEXT = "暖機運転"


class Service:
    """The model, the indexes and the workers behind the endpoints.

    Args:
        settings: Settings of the service.
        encoder: The model; None takes the searchers', or loads the one of the settings.
        searchers: Name → searcher of each index; None opens those of the settings.

    Attributes:
        ready: Whether everything is loaded.
        draining: Whether the service is about to stop.
        failed: Whether the model or an index could not be loaded.
        pace: How fast texts are encoded.
        given: The model and the searchers that were given, or None for each.
        work_folder: Folder of jobs and uploads, once it is known.
        outdated: Names of the indexes whose latest version has a model that is not known here; their earlier version is
            searched.
    """

    def __init__(
        self, settings: Settings, *, encoder: Encoder | None = None, searchers: Mapping[str, Searcher] | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.workers = Workers(settings.slots, settings.deadline_seconds)
        self.metrics.watch(self.workers)
        self.searchers: dict[str, Searcher] = dict(searchers or {})
        self.ready = False
        self.draining = False
        self.failed = False
        self.pace = Pace(settings.deadline_seconds)
        self.outdated: set[str] = set()
        self.given = encoder, searchers
        self.work_folder: Path | None = None
        self._models = Models(encoder)
        self._index_rerankers: dict[str, Reranker] = {}
        self._text_reranker: Reranker | None = None

    def load(self) -> None:
        """Load the model, open the indexes, and do each kind of work once, so that no client waits for that.

        Raises:
            TansakuError: as `Encoder.load` and `Searcher.open` do.
        """
        encoder, searchers = self.given
        settings = self.settings
        if encoder is None and settings.model is not None and not searchers:
            encoder = Encoder.load(settings.model, threads=settings.threads)
        self._models = models = Models(encoder, threads=settings.threads)
        if searchers is None:
            self.searchers = {name: self._searcher(db, table) for name, (db, table) in settings.indexes.items()}
            if settings.database is not None:
                database = connect(settings.database, create=settings.write, storage_options=settings.storage_options)
                for name in index_names(database):
                    self.searchers.setdefault(name, self._searcher(database, name))
        self._model_is_given = encoder is not None
        if encoder is None:
            encoder = next(iter(self.searchers.values())).encoder if self.searchers else models.default()
        self._rank_texts_with(encoder)
        for name, searcher in self.searchers.items():
            self._warm_up(name, searcher)
        self.ready = True

    def open_index(self, name: str, db: Database, table: str) -> None:
        """Serve another index.

        Args:
            name: Its name here.
            db: Its database.
            table: Its table.

        Raises:
            TansakuError: as `Searcher.open` does.
        """
        searcher = self._searcher(db, table)
        self._warm_up(name, searcher)
        self.searchers = {**self.searchers, name: searcher}  # a new one: others go through it at this moment

    def close_index(self, name: str) -> None:
        """Serve an index no longer. Requests under way are answered."""
        self.searchers = {other: searcher for other, searcher in self.searchers.items() if other != name}
        self._index_rerankers.pop(name, None)
        self.outdated.discard(name)
        self.metrics.forget(name)

    def _searcher(self, db: Database, table: str) -> Searcher:
        settings = self.settings
        options = None if isinstance(db, DBConnection) else settings.storage_options
        if settings.shards is not None:
            from ..shards.on_ray import open_on_ray

            return open_on_ray(
                db,
                table,
                shards=settings.shards,
                replicas=settings.replicas,
                shard_cpus=settings.shard_cpus,
                address=settings.ray_address,
                encoder=self._models,
                storage_options=options,
            )
        return Searcher(open_index_table(connect(db, storage_options=options), table), self._models)

    def _warm_up(self, name: str, searcher: Searcher) -> None:
        weight = self.settings.phrase_weight
        self._index_rerankers[name] = Reranker(searcher=searcher, phrase_weight=weight)
        searcher.search(_WARM_UP_TEXT, k=1, phrase_weight=weight)
        self._warm_up_ids(name, searcher)

    def _rank_texts_with(self, encoder: Encoder) -> None:
        reranker = Reranker(encoder, phrase_weight=self.settings.phrase_weight)
        reranker.rerank(_WARM_UP_TEXT, [_WARM_UP_TEXT])
        self.pace.measure(encoder, self.settings.threads or usable_cores())
        self._text_reranker = reranker

    @property
    def encoder(self) -> Encoder:
        """The model that ranks and encodes the texts of requests: the one given, or that of the first index."""
        return self._for_texts().encoder

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.encoder.bundle.name

    async def run(self, task: Callable[[], T], started: Callable[[], None] = lambda: None) -> T:
        """Run ``task`` in a worker; see `Workers.run`."""
        return await self.workers.run(task, started)

    def refresh(self, name: str) -> bool:
        """Bring an index to its latest version, and to the model of that; returns whether there was a newer one.

        Raises:
            ModelMismatchError: its model is not the one given, or not known here. The earlier version is searched.
            TansakuError: the errors of `Searcher.refresh`.
        """
        searcher = self.searchers[name]
        try:
            newer = searcher.refresh()
        except ModelMismatchError:
            self.outdated.add(name)
            raise
        self.outdated.discard(name)
        if newer:
            self._warm_up_ids(name, searcher)
            is_first = searcher is next(iter(self.searchers.values()))
            if is_first and not self._model_is_given and searcher.encoder is not self.encoder:
                self._rank_texts_with(searcher.encoder)
        return newer

    def rerank(
        self,
        query: str,
        documents: Sequence[str | None],
        *,
        ids: Sequence[str | None] | None = None,
        index: str | None = None,
        k: int | None = None,
        score: ScoreMode,
    ) -> RerankResult:
        """`Reranker.rerank`, with texts cut at the limit; in a worker it stops when nobody waits for it any more.

        Args:
            query: The question or keywords.
            documents: Texts of the documents; None for a document that is scored by its id alone.
            ids: Ids of the documents in ``index``, one for each; None if all are given by their texts.
            index: Name of the index; None is the first.
            k: Number of documents to return; None returns all.
            score: Scale of the scores.

        Raises:
            ServiceError: As `search`; 413, the texts cannot be encoded within the deadline.
        """
        limit = self.settings.max_text_chars
        texts = [text if text is None else text[:limit] for text in documents]
        reranker = self.reranker(index, by_id=ids is not None)
        to_encode = texts if ids is None else (t for t, doc_id in zip(texts, ids, strict=True) if doc_id is None)
        self.pace.check(reranker.encoder, (text for text in to_encode if text is not None), check_abandoned)
        start = time.perf_counter()
        with _reading():
            result = reranker.rerank(query, texts, ids=ids, k=k, score=score, before_batch=check_abandoned)
        self.metrics.scored(stored=result.stored, encoded=result.encoded)
        self.pace.saw(result.tokens, time.perf_counter() - start)
        return result

    def reranker(self, index: str | None, *, by_id: bool) -> Reranker:
        """What ranks documents: by id that of an index (None is the first), else that of texts alone.

        Raises:
            ServiceError: 404, the index is unknown.
        """
        if not by_id:
            return self._for_texts()
        name, searcher = self.searcher(index)
        return self._index_rerankers.get(name) or Reranker(searcher=searcher, phrase_weight=self.settings.phrase_weight)

    def embed(self, texts: Sequence[str], *, queries: bool) -> tuple[list[np.ndarray], list[int]]:
        """Token vectors of each text, float32 (tokens, dim), and the positions of texts that the model cut.

        Texts are cut at the limit before.
        """
        given = [text[: self.settings.max_text_chars] for text in texts]
        if queries:
            tokenized = self.encoder.tokenize_queries(given)
            vectors = self.encoder.encode_query_tokens(tokenized)
        else:
            tokenized = self.encoder.tokenize_documents(given)
            vectors = self.encoder.encode_tokens(tokenized)
        self.metrics.scored(encoded=len(texts))
        return vectors, [i for i, text in enumerate(tokenized) if text.truncated]

    def too_long(self, texts: Sequence[str], *, queries: bool) -> list[int]:
        """Positions of the texts that have more tokens than the model reads."""
        tokenize = self.encoder.tokenize_queries if queries else self.encoder.tokenize_documents
        given = [(i, text) for i, text in enumerate(texts) if text.strip()]
        tokenized = tokenize([text for _, text in given])
        return [i for (i, _), text in zip(given, tokenized, strict=True) if text.truncated]

    def n_too_long(self, texts: Sequence[str | None]) -> int:
        """How many texts are longer than the limit."""
        return sum(text is not None and len(text) > self.settings.max_text_chars for text in texts)

    def searcher(self, index: str | None) -> tuple[str, Searcher]:
        """Name and searcher of an index; of the first one for None.

        Raises:
            ServiceError: 404, the index is unknown.
        """
        searchers = self.searchers
        if not searchers:
            raise ServiceError(404, "no index is served here; start tansaku serve with --db and --table", "index")
        name = next(iter(searchers)) if index is None else index
        if name not in searchers:
            raise ServiceError(404, f"unknown index; use {' or '.join(searchers)}", "index")
        return name, searchers[name]

    def search(self, index: str | None, ask: Callable[[Searcher], Hits]) -> tuple[str, Hits]:
        """Name of an index, and what ``ask`` finds in it.

        Raises:
            ServiceError: 404, the index is unknown; 503, it cannot be read, or its model is not known here.
        """
        name, hits = self.look(index, ask)
        self.metrics.scored(stored=hits.scored)
        return name, hits

    def search_many(self, index: str | None, ask: Callable[[Searcher], list[Hits]]) -> tuple[str, list[Hits]]:
        """`search` for many queries."""
        name, found = self.look(index, ask)
        self.metrics.scored(stored=sum(hits.scored for hits in found))
        return name, found

    def look(self, index: str | None, ask: Callable[[Searcher], T]) -> tuple[str, T]:
        """Name of an index, and what ``ask`` reads in it.

        Raises:
            ServiceError: As `search`.
        """
        name, searcher = self.searcher(index)
        with _reading():
            return name, ask(searcher)

    def explain(
        self, index: str | None, query: str, doc_id: str, *, phrase_weight: float | None
    ) -> tuple[str, Explanation]:
        """Name of an index, and how the score of one of its documents comes about.

        Raises:
            ServiceError: As `search`; 404, the index does not have the document.
        """
        name, searcher = self.searcher(index)
        with _reading():
            if searcher.unknown([doc_id]):
                raise ServiceError(404, f"the index {name!r} has no document with the id {doc_id!r}", "document")
            return name, searcher.explain(query, doc_id, phrase_weight=phrase_weight)

    def _for_texts(self) -> Reranker:
        if self._text_reranker is None:
            raise ServiceError(503, "the model is being loaded; try again", "loading")
        return self._text_reranker

    def _warm_up_ids(self, name: str, searcher: Searcher) -> None:
        """Have the table of ids made, which otherwise the first request by id would wait for."""
        searcher.score_vectors(np.full((1, searcher.encoder.dim), searcher.encoder.dim**-0.5, np.float32), [])
        self.metrics.index(name, documents=len(searcher), version=searcher.version)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Errors of an index as answers."""
    try:
        yield
    except StorageError as error:
        raise ServiceError(503, "the index cannot be read at the moment; try again", "storage") from error
    except ShardLostError as error:
        raise ServiceError(503, "a part of the index does not answer at the moment; try again", "shard") from error
    except ModelMismatchError as error:  # and the version that was open has been removed
        raise ServiceError(503, "the index has a new model, which is not known here", "model") from error

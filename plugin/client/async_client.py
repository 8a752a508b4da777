"""`AsyncClient`: an index behind `tansaku serve`, for code that awaits. Needs the extra `client`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from ...indexer.info import IndexInfo
from ...indexer.read.documents import Document, FieldNames
from ...indexer.read.rejects import Rejects
from ...indexer.table.changes import DeleteReport, OptimizeReport
from ...indexer.table.conditions import Where
from ...indexer.write.report import BuildReport
from ...onnx_export.kinds import check_whole
from ...onnx_export.progress import Progress
from ..search.choices import Recall, SourceName
from ..search.explain import Explanation
from ..search.plan import SearchOptions
from ..search.results import Hits
from .http import TIMEOUT, checked_address, headers_of, httpx, take_async
from .steps import Steps
from .verbs import Verbs, checked_queries

T = TypeVar("T")

_AT_A_TIME = 4  # queries of `search_many`


class AsyncClient:
    """`Client` for code that awaits: the same verbs, and the same results.

    `Client` describes the verbs and their arguments. `count` stands for ``len``.

    Args:
        url: Address of the service.
        token: Token that is sent as ``Authorization: Bearer``; None sends none.
        index: Name of the index; None takes the only one of the service, for searches the first one.
        timeout: Time limit of a request without its retries, in seconds.
        tries: Largest number of times that a request is sent.
        http: A client of httpx to send with, such as one with certificates or a proxy; None makes one.

    Raises:
        InputError: ``url`` is not an address, or ``tries`` is below 1.
        MissingExtraError: The extra ``client`` is not installed.

    Example:
        >>> from tansaku import AsyncClient
        >>> client = AsyncClient("http://127.0.0.1:8080", index="docs")
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        index: str | None = None,
        timeout: float = TIMEOUT,
        tries: int = 6,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._address = checked_address(url)
        self._headers = headers_of(token)
        self._verbs = Verbs(index, check_whole("tries", tries))
        self._is_own = http is None
        self._http = httpx.AsyncClient(timeout=timeout) if http is None else http

    async def search(
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
        """`Client.search`."""
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
        return await self._take(self._verbs.search(query, options))

    async def search_many(
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
        """`Client.search_many`."""
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
        texts = checked_queries(queries)
        free = asyncio.Semaphore(_AT_A_TIME if threads is None else check_whole("threads", threads))

        async def one(text: str) -> Hits:
            async with free:
                return await self._take(self._verbs.search(text, options))

        return list(await asyncio.gather(*map(one, texts)))

    async def explain(self, query: str, doc_id: str, *, phrase_weight: float | None = None) -> Explanation:
        """`Client.explain`."""
        return await self._take(self._verbs.explain(query, doc_id, phrase_weight))

    async def read(self, ids: Sequence[str]) -> list[Document | None]:
        """`Client.read`."""
        return await self._take(self._verbs.read(ids))

    async def add(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """`Client.add`."""
        return await self._take(self._verbs.write(documents, "add", names, rejects, progress))

    async def upsert(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """`Client.upsert`."""
        return await self._take(self._verbs.write(documents, "upsert", names, rejects, progress))

    async def delete(
        self, ids: Sequence[str] | None = None, *, where: Where | None = None, dry_run: bool = False
    ) -> DeleteReport:
        """`Client.delete`."""
        return await self._take(self._verbs.delete(ids, where, dry_run))

    async def optimize(self, keep: timedelta = timedelta(hours=1)) -> OptimizeReport:
        """`Client.optimize`."""
        return await self._take(self._verbs.optimize(keep))

    async def rebuild(self, *, nbits: int | None = None, progress: Progress | None = None) -> BuildReport:
        """`Client.rebuild`."""
        return await self._take(self._verbs.rebuild(nbits, progress))

    async def info(self) -> IndexInfo:
        """`Client.info`."""
        return await self._take(self._verbs.info())

    async def names(self) -> list[str]:
        """`Client.names`."""
        return await self._take(self._verbs.names())

    async def count(self, where: Where | None = None) -> int:
        """`Client.count`."""
        return await self._take(self._verbs.count(where))

    async def create(
        self,
        table: str,
        documents: Iterable[Any],
        *,
        nbits: int = 2,
        pool: int = 1,
        passage_tokens: int | None = None,
        fulltext: bool = False,
        names: FieldNames | None = None,
        overwrite: bool = False,
        rejects: Rejects | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """`Client.create`."""
        options = {
            "nbits": nbits,
            "pool": pool,
            "passage_tokens": passage_tokens,
            "fulltext": fulltext,
            "overwrite": overwrite,
        }
        return await self._take(self._verbs.create(table, documents, options, names, rejects, progress))

    async def drop(self, table: str) -> None:
        """`Client.drop`."""
        await self._take(self._verbs.drop(table))

    async def aclose(self) -> None:
        """Close the connections, if the client made them."""
        if self._is_own:
            await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _take(self, steps: Steps[T]) -> T:
        return await take_async(steps, self._http, self._address, self._headers)

"""`Client`: an index behind `tansaku serve`, used as one that is opened here. Needs the extra `client`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from .http import TIMEOUT, checked_address, headers_of, httpx, take
from .steps import Steps
from .verbs import Verbs, checked_queries

T = TypeVar("T")

_AT_A_TIME = 4  # queries of `search_many`


class Client:
    """An index behind `tansaku serve`, with the verbs and results of `Searcher` and `Index`.

    A program that opens an index becomes one that asks a service by the change of the line that opens it. Searches need
    the token of readers, writing that of writers and a service with ``--write``.

    Where the service is busy (429, 503) or the connection breaks, a request is sent again after a growing pause, or
    after the time that the service names. What may not be done twice, such as `add`, is sent again only if the service
    cannot have got it. May be used from several threads.

    Values come as JSON has them: dates and times of columns are texts.

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
        >>> from tansaku import Client
        >>> client = Client("http://127.0.0.1:8080", index="docs")  # in place of Searcher.open("./db", "docs")
        >>> client.close()
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        index: str | None = None,
        timeout: float = TIMEOUT,
        tries: int = 6,
        http: httpx.Client | None = None,
    ) -> None:
        self._address = checked_address(url)
        self._headers = headers_of(token)
        self._verbs = Verbs(index, check_whole("tries", tries))
        self._is_own = http is None
        self._http = httpx.Client(timeout=timeout) if http is None else http

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
        """The ``k`` best documents for ``query``, best first.

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
            InputError: An empty query, or an option or a condition that cannot be used.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
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
        return self._take(self._verbs.search(query, options))

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
        """`search` for many queries, several at a time.

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
            threads: Number of requests at a time; None: 4.

        Returns:
            The hits of each query, in the order of the queries.

        Raises:
            InputError: As `search`.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
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
        texts = checked_queries(queries)
        with ThreadPoolExecutor(_AT_A_TIME if threads is None else check_whole("threads", threads)) as pool:
            return list(pool.map(lambda text: self._take(self._verbs.search(text, options)), texts))

    def explain(self, query: str, doc_id: str, *, phrase_weight: float | None = None) -> Explanation:
        """Why a document scores as it does for a query: which of its tokens each query token met.

        Args:
            query: Question or keywords.
            doc_id: Id of the document, of which the best passage is explained, or of a passage.
            phrase_weight: Weight given to the similarity of neighbouring tokens.

        Raises:
            InputError: An empty query, or an id that is not in the index.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.explain(query, doc_id, phrase_weight))

    def read(self, ids: Sequence[str]) -> list[Document | None]:
        """Whole documents by id, or passages.

        Args:
            ids: Ids of documents or passages.

        Returns:
            The documents in the order of ``ids``; None for an id that is not in the index.

        Raises:
            InputError: One string in place of ids.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.read(ids))

    def add(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Add documents whose ids the index does not have.

        Args:
            documents: What `Index.add` takes: mappings, a path, a `Source`, a DataFrame, an Arrow table. They are read
                once and sent in parts of a megabyte. The values of CSV are sent as text, unless ``names`` has types.
            names: Names of the fields with id, text and title, and of the others; None takes those of `Index.create`.
            rejects: Collects documents that the service leaves out; None raises an error if there are any.
            progress: Called while documents are sent and written, in the stages "send" and those of the service.

        Returns:
            The counts of what was written.

        Raises:
            InputError: A document cannot be used; the others are written.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.write(documents, "add", names, rejects, progress))

    def upsert(
        self,
        documents: Iterable[Any],
        *,
        names: FieldNames | None = None,
        rejects: Rejects | None = None,
        progress: Progress | None = None,
    ) -> BuildReport:
        """Add documents, and replace those whose ids the index has.

        Args:
            documents: What `Index.add` takes: mappings, a path, a `Source`, a DataFrame, an Arrow table. They are read
                once and sent in parts of a megabyte. The values of CSV are sent as text, unless ``names`` has types.
            names: Names of the fields with id, text and title, and of the others; None takes those of `Index.create`.
            rejects: Collects documents that the service leaves out; None raises an error if there are any.
            progress: Called while documents are sent and written, in the stages "send" and those of the service.

        Returns:
            The counts of what was written.

        Raises:
            InputError: A document cannot be used; the others are written.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.write(documents, "upsert", names, rejects, progress))

    def delete(
        self, ids: Sequence[str] | None = None, *, where: Where | None = None, dry_run: bool = False
    ) -> DeleteReport:
        """Delete documents by id, or all rows that meet a condition.

        Args:
            ids: Ids of documents, which are deleted with all their passages, or of single passages.
            where: Condition over the table's columns.
            dry_run: Count the rows that would be deleted, and delete none.

        Raises:
            InputError: Both or neither of ``ids`` and ``where`` are given, or the condition is not valid.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.delete(ids, where, dry_run))

    def optimize(self, keep: timedelta = timedelta(hours=1)) -> OptimizeReport:
        """Merge small fragments and remove old versions of the table.

        Args:
            keep: Age up to which versions are kept.

        Raises:
            InputError: ``keep`` is negative.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.optimize(keep))

    def rebuild(self, *, nbits: int | None = None, progress: Progress | None = None) -> BuildReport:
        """Train a new codec on the current rows, and make all codes again.

        Args:
            nbits: Bits per dimension of a residual; None keeps the current number.
            progress: Called while the work proceeds.

        Raises:
            InputError: The index is empty, or was made from vectors.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.rebuild(nbits, progress))

    def info(self) -> IndexInfo:
        """Counts, sizes and settings of the index.

        Raises:
            InputError: No index is named, and the service has several.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.info())

    def names(self) -> list[str]:
        """The names of the indexes of the service, sorted.

        Raises:
            InputError: The service cannot list them.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.names())

    def count(self, where: Where | None = None) -> int:
        """Number of rows that meet a condition, or of all.

        Args:
            where: Condition over the table's columns.

        Raises:
            InputError: The condition is not valid.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        return self._take(self._verbs.count(where))

    def create(
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
        """Index documents into a new index of the service.

        Args:
            table: Name of the index.
            documents: What `add` takes.
            nbits: Bits per dimension of a residual: 1, 2 or 4.
            pool: Pooling factor of the token vectors; 1 keeps all.
            passage_tokens: Largest number of tokens of a passage; None does not divide documents.
            fulltext: Whether to store the text for full text search too.
            names: Names of the fields with id, text and title, and of the others; None takes those of `Index.create`.
            overwrite: Whether to replace an index of that name.
            rejects: Collects documents that the service leaves out; None raises an error if there are any.
            progress: Called while documents are sent and written.

        Returns:
            The counts of what was written.

        Raises:
            InputError: A document or an option cannot be used.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        options = {
            "nbits": nbits,
            "pool": pool,
            "passage_tokens": passage_tokens,
            "fulltext": fulltext,
            "overwrite": overwrite,
        }
        return self._take(self._verbs.create(table, documents, options, names, rejects, progress))

    def drop(self, table: str) -> None:
        """Remove an index of the service for good.

        Args:
            table: Name of the index.

        Raises:
            InputError: The name cannot be that of an index.
            TableNotFoundError: The service has no such index.
            ClientError: The service cannot be reached, is busy for too long, or does not let this client in.
        """
        self._take(self._verbs.drop(table))

    def __len__(self) -> int:
        """Number of rows: documents, or passages."""
        return self.count()

    def close(self) -> None:
        """Close the connections, if the client made them."""
        if self._is_own:
            self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, steps: Steps[T]) -> T:
        return take(steps, self._http, self._address, self._headers)

"""Many queries in one version of an index: what they have in common is done once for all of them."""

from __future__ import annotations

from concurrent.futures import Executor

from .calibrator import Calibrator
from .fetch import chosen_columns, fetch_many
from .filters import Allowed, allowed_rows
from .pipeline import rank
from .plan import SearchOptions
from .query_encoder import EncodedQuery, QueryEncoder
from .results import Hits, RankedRows, Stopwatch
from .stored_codes import StoredCodes

# Queries that are encoded together, and whose hits are read together: enough to fill the encoder's runs, few enough
# that their vectors and hits take some megabytes.
QUERIES_AT_ONCE = 256


class ManyQueries:
    """Searches for several queries at a time; the filters are resolved once for each version of the index.

    Args:
        options: The options of all searches.
        pool: Ranks the queries, one in each thread. The loops run without Python's lock.
    """

    def __init__(self, options: SearchOptions, pool: Executor) -> None:
        self._options = options
        self._pool = pool
        self._filtered: tuple[StoredCodes, Allowed] | None = None

    def search(self, codes: StoredCodes, encode: QueryEncoder, calibrator: Calibrator, texts: list[str]) -> list[Hits]:
        """The hits of each query.

        Args:
            codes: The index's codes.
            encode: The encoder of queries.
            calibrator: What is known of the index's recall.
            texts: The queries: encoded in one batch, ranked several at a time, and their hits are read together.

        Raises:
            InputError: As `Searcher.search`.
            StorageError: As `Searcher.search`.
        """
        options, together = self._options, Stopwatch()
        columns = chosen_columns(codes, options.fields)
        with together.stage("encode"):
            queries = encode.many(texts)
        with together.stage("filter"):
            allowed = self._allowed(codes)
        settled, level = calibrator.settled(options)

        def rank_one(text: str, query: EncodedQuery) -> tuple[RankedRows, Stopwatch]:
            watch = Stopwatch()
            return rank(codes, text, query.vectors, settled, watch, allowed, level), watch

        results = list(self._pool.map(rank_one, texts, queries))
        ranked, watches = [rows for rows, _ in results], [watch for _, watch in results]
        with together.stage("fetch"):
            hits = fetch_many(codes, ranked, columns, passages=options.passages)
        share = {name: value / len(texts) for name, value in together.stages.items()}
        first = {name: share[name] for name in ("encode", "filter")}
        return [
            Hits(
                hits_of_one,
                ranked=rows,
                stages={**first, **watch.stages, "fetch": share["fetch"]},
                version=codes.version,
                query_tokens=len(query.vectors),
                truncated=query.truncated,
                recall=calibrator.expected(settled, level, rows),
            )
            for hits_of_one, rows, watch, query in zip(hits, ranked, watches, queries, strict=True)
        ]

    def _allowed(self, codes: StoredCodes) -> Allowed:
        if self._filtered is None or self._filtered[0] is not codes:
            self._filtered = codes, allowed_rows(codes, self._options.where, self._options.ids)
        return self._filtered[1]

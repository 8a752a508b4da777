"""`RowSearch`: the nearest row vectors of a database, ranked by MaxSim over the codes in the same rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ...onnx_export.errors import InputError
from ...onnx_export.kinds import check_kind, check_whole
from .coder import CodedQuery, Coder

Where = TypeVar("Where")
"""A filter in the database's own terms."""

RowId = str | int

CANDIDATES = 500
"""Rows that a database is asked for: of 70,000 passages .95 of MaxSim's ten best are among them, see row-vectors.md."""


class FoundRow(NamedTuple):
    """A row that a database found.

    Attributes:
        id: its id, in the database's own type.
        codes: its codes; None if it has none.
        score: the database's inner product of the row vectors; NaN where it gives none.
        text: the text that was encoded; None if it was not asked for.
        fields: other columns that were asked for.
    """

    id: RowId
    codes: bytes | None
    score: float = np.nan
    text: str | None = None
    fields: Mapping[str, Any] = {}


class Nearest(NamedTuple):
    """What a database found.

    Attributes:
        rows: the rows, nearest first.
        exact: whether all row vectors were compared, without an index.
    """

    rows: list[FoundRow]
    exact: bool = False


@dataclass(frozen=True)
class RowHit:
    """A row found in a database, ranked by MaxSim.

    Attributes:
        id: Its id, in the database's own type.
        score: MaxSim divided by the number of query tokens: a mean cosine. NaN for a row without codes.
        row_rank: Its place by the row vectors, from 1; 0 for a row that has no codes and was found without them.
        row_score: The inner product of the row vectors; NaN where the database gives none.
        text: Its text, if it was asked for.
        fields: Its other columns that were asked for.
    """

    id: RowId
    score: float
    row_rank: int
    row_score: float
    text: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


class RowHits(list[RowHit]):
    """The hits of one search, best first; rows without codes come last.

    Attributes:
        candidates: Number of rows that the database gave and MaxSim ranked.
        exact: Whether the database compared all row vectors, without its index: because it was asked to, or because
            its index gave fewer rows than were asked for.
        uncoded: Number of rows that the filter allows and that have no codes, so that MaxSim cannot rank them; `fill`
            encodes them. None if they were not counted.
        truncated: Whether the query was longer than the model reads, so that its end was ignored.
        stages: Milliseconds of "encode", "database", and "maxsim".
    """

    candidates: int = 0
    exact: bool = False
    uncoded: int | None = None
    truncated: bool = False
    stages: Mapping[str, float] = {}


class RowSearch(Generic[Where]):
    """Search in any database that has row vectors and codes, by a function that asks it.

    May be used from several threads if the function may.

    Args:
        coder: Encodes queries and ranks codes; the same that made the rows.
        nearest: Function of a row vector, float32 (`Coder.row_dim`,), how many rows, and a filter in the database's
            own terms (None for no filter). It gives the rows with the highest inner products, best first: `FoundRow`s,
            or tuples of their fields, such as (id, codes). What it raises comes through.
        candidates: Number of rows that the database is asked for, 1 or more.

    Raises:
        InputError: ``candidates`` below 1, or a coder or function of a wrong kind.

    Example:
        >>> from tansaku import Coder, RowSearch
        >>> coder = Coder()
        >>> texts = {"dog": "犬は嗅覚が鋭い動物である。", "kyoto": "京都は794年から都だった。"}
        >>> rows = dict(zip(texts, coder.encode_documents(list(texts.values()))))
        >>> def nearest(vector, n, where):
        ...     best = sorted(rows, key=lambda row: -float(rows[row].row_vector @ vector))
        ...     return [(row, rows[row].codes) for row in best[:n]]
        >>> [hit.id for hit in RowSearch(coder, nearest).search("昔の首都はどこ？")]
        ['kyoto', 'dog']
    """

    def __init__(
        self,
        coder: Coder,
        nearest: Callable[[np.ndarray, int, Any], Iterable[FoundRow | tuple[Any, ...]]],
        *,
        candidates: int = CANDIDATES,
    ) -> None:
        check_kind("coder", coder, Coder, "give Coder()")
        if not callable(nearest):
            raise InputError(f"nearest is of type {type(nearest).__name__}; give a function of (vector, n, where)")
        self.coder = coder
        self.candidates = check_whole("candidates", candidates)
        self._find = nearest

    def search(
        self,
        query: str,
        k: int = 10,
        where: Where | None = None,
        *,
        candidates: int | None = None,
        exact: bool = False,
    ) -> RowHits:
        """The rows with the nearest row vectors, ranked by MaxSim.

        Args:
            query: Question or keywords.
            k: Number of hits, 1 or more. Fewer come only if the filter allows fewer.
            where: Filter in the database's own terms; None for no filter.
            candidates: Number of rows that the database is asked for; None: as the search was made. At least ``k``.
            exact: Compare all row vectors, without the database's index.

        Raises:
            InputError: An empty query, or a number below 1.
            CodesError: A row has damaged codes, or codes of another codec or model; the message names the row.
            HostError: The database cannot be reached, or refuses.
        """
        check_whole("k", k)
        wanted = max(k, self.candidates if candidates is None else check_whole("candidates", candidates))
        started = time.perf_counter()
        coded = self.coder.encode_query(query)
        encoded = time.perf_counter()
        nearest = self._nearest_rows(coded.row_vector, wanted, where, exact)
        uncoded, without = self._uncoded_rows(nearest, k, where)
        found = time.perf_counter()
        hits = self._ranked(coded, nearest, without, k)
        hits.exact, hits.uncoded, hits.truncated = nearest.exact, uncoded, coded.truncated
        ends = started, encoded, found, time.perf_counter()
        hits.stages = {
            stage: 1000 * (end - start)
            for stage, start, end in zip(("encode", "database", "maxsim"), ends, ends[1:], strict=False)
        }
        return hits

    async def asearch(self, query: str, k: int = 10, where: Where | None = None, **options: Any) -> RowHits:
        """`search` in a thread, for applications that run in an event loop."""
        return await asyncio.to_thread(self.search, query, k, where, **options)

    def search_many(
        self, queries: Iterable[str], k: int = 10, where: Where | None = None, **options: Any
    ) -> list[RowHits]:
        """`search` for each of several queries, in their order.

        Raises:
            InputError: One string in place of queries; else as `search`.
        """
        if isinstance(queries, str):
            raise InputError("queries is one string; give a list")
        return [self.search(query, k, where, **options) for query in queries]

    def _nearest_rows(self, vector: np.ndarray, n: int, where: Where | None, exact: bool) -> Nearest:
        """The ``n`` nearest rows, all rows that the filter allows if there are fewer."""
        if exact:
            raise InputError("exact is not known to a function; let it compare all row vectors, and leave out exact")
        found = self._find(vector, n, where)
        if not isinstance(found, Iterable):
            raise InputError(f"the database's function gave {found!r:.100}; let it return the rows")
        return Nearest([_row(one) for one in found][:n])

    def _uncoded_rows(self, nearest: Nearest, k: int, where: Where | None) -> tuple[int | None, list[FoundRow]]:
        """How many rows have no codes, and up to ``k`` of them."""
        without = [row for row in nearest.rows if row.codes is None]
        return len(without), without

    def _ranked(self, query: CodedQuery, nearest: Nearest, without: list[FoundRow], k: int) -> RowHits:
        coded = [(rank, row) for rank, row in enumerate(nearest.rows, 1) if row.codes is not None]
        ranked = self.coder.rank(
            query, [row.codes for _, row in coded if row.codes is not None], k, rows=[row.id for _, row in coded]
        )
        n_tokens = len(query.vectors)
        hits = RowHits(
            RowHit(row.id, score / n_tokens, rank, row.score, row.text, row.fields)
            for (rank, row), score in ((coded[position], score) for position, score in ranked)
        )
        hits += [RowHit(row.id, np.nan, 0, row.score, row.text, row.fields) for row in without[: k - len(hits)]]
        hits.candidates = len(coded)
        return hits


def _row(found: Any) -> FoundRow:
    try:
        return found if isinstance(found, FoundRow) else FoundRow(*found)
    except TypeError as error:
        raise InputError(
            f"the database's function gave {found!r:.100}; give FoundRows, or tuples (id, codes) or (id, codes, score)"
        ) from error

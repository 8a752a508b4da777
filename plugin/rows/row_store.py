"""`RowStore`: documents in a table of a database that the user runs, with row vectors and codes in the same rows.

A database is a subclass that says how its rows are read and written; the verbs, their checks and MaxSim are here.
`tansaku.plugin.hosts.rows` has one file for each database, and a suite of tests that every one passes.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ...indexer.read.given import as_records
from ...onnx_export.errors import InputError, TansakuError
from ...onnx_export.kinds import check_kind, check_whole
from ...onnx_export.progress import Progress, no_progress
from ..search.explain import Explanation
from ..search.query_encoder import check_query
from .code_bytes import CodesError
from .coder import Coder
from .columns import check_name, joined
from .row_search import CANDIDATES, FoundRow, Nearest, RowId, RowSearch, Where

_IDS_NAMED = 5


class CodedRow(NamedTuple):
    """A row to be written: its row vector and codes belong to the same text, and are written together or not at all.

    Attributes:
        id: its id.
        row_vector: float32 (`Coder.row_dim`,).
        codes: its codes.
        columns: the columns that the caller gave, those with the text among them, but for the id.
    """

    id: RowId
    row_vector: np.ndarray
    codes: bytes
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class RowReport:
    """What a write did.

    Attributes:
        written: number of rows that were written.
        cut: number of those whose texts are longer than the model reads; they are found by their beginnings.
        cut_ids: ids of the first five.
        unread: number of those with text that the model has no token for.
        unread_ids: ids of the first five.
        empty: number of rows that were left without codes because their text is empty (`RowStore.fill` alone).
    """

    written: int = 0
    cut: int = 0
    cut_ids: tuple[RowId, ...] = ()
    unread: int = 0
    unread_ids: tuple[RowId, ...] = ()
    empty: int = 0


@dataclass
class _Counts:
    written: int = 0
    cut: list[RowId] = field(default_factory=list)
    unread: list[RowId] = field(default_factory=list)
    empty: int = 0

    def report(self) -> RowReport:
        return RowReport(
            self.written,
            len(self.cut),
            tuple(self.cut[:_IDS_NAMED]),
            len(self.unread),
            tuple(self.unread[:_IDS_NAMED]),
            self.empty,
        )


class RowStore(RowSearch[Where], ABC):
    """Documents in a database's own table.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        id_column: name of the column with the ids.
        text_columns: names of the columns with the text; several are encoded joined by a space, without empty ones.
        vector_column: name of the column with the row vectors.
        codes_column: name of the column with the codes.
        fields: names of other columns that hits bring.
        with_text: hits bring their text.
        candidates: number of rows that the database is asked for in a search.
        count_uncoded: count the rows without codes in each search (`RowHits.uncoded`).

    Raises:
        InputError: a name that no column can have, no text column, or a number below 1.
    """

    def __init__(
        self,
        coder: Coder,
        *,
        id_column: str = "id",
        text_columns: Sequence[str] = ("text",),
        vector_column: str = "tansaku_vector",
        codes_column: str = "tansaku_codes",
        fields: Sequence[str] = (),
        with_text: bool = True,
        candidates: int = CANDIDATES,
        count_uncoded: bool = True,
    ) -> None:
        super().__init__(coder, self._refuse, candidates=candidates)
        for name, given in (("text_columns", text_columns), ("fields", fields)):
            if isinstance(given, str):
                raise InputError(f"{name} is one string; give a list of names")
        if not text_columns:
            raise InputError("text_columns is empty; give at least one name")
        self.id_column, self.vector_column, self.codes_column = map(
            check_name, (id_column, vector_column, codes_column)
        )
        self.text_columns = tuple(map(check_name, text_columns))
        self.fields = tuple(map(check_name, fields))
        self.with_text = with_text
        self.count_uncoded = count_uncoded

    # The verbs

    def add(self, documents: Any, *, batch: int = 128, progress: Progress = no_progress) -> RowReport:
        """Encode documents and write them as new rows.

        Args:
            documents: mappings with the id, the text columns and any other columns of the table; or whatever else
                `Index.create` takes: a path, a DataFrame, an Arrow table.
            batch: number of rows that are encoded and written at a time; a batch is written whole or not at all.
            progress: called for each batch.

        Returns:
            What was written.

        Raises:
            InputError: a record without an id or with an empty text, an id that occurs twice or is in the table. The
                message names the record and how many rows were written before it; `upsert` writes them again.
            HostError: the database cannot be reached, or refuses; as many rows as the message says were written.
        """
        return self._write(documents, batch, progress, replace=False)

    def upsert(self, documents: Any, *, batch: int = 128, progress: Progress = no_progress) -> RowReport:
        """Encode documents and write them, new ones and in place of those that have the same ids.

        Of a row that is there, the columns that a document gives are written, with its row vector and codes; others
        stay.

        Args:
            documents: see `add`.
            batch: see `add`.
            progress: see `add`.

        Raises:
            InputError: see `add`; an id may be in the table.
            HostError: see `add`.
        """
        return self._write(documents, batch, progress, replace=True)

    def fill(self, where: Where | None = None, *, batch: int = 128, progress: Progress = no_progress) -> RowReport:
        """Encode the rows that have no codes, such as those of a table that was there before, or that others wrote.

        It can be interrupted and called again: rows that have codes are left alone. A row whose text changes in the
        meantime keeps the codes of its earlier text; who changes a text sets its codes to NULL, or calls `upsert`.

        Args:
            where: encode only those that this filter allows; None: all.
            batch: see `add`.
            progress: called for each batch.

        Returns:
            What was written; rows with empty texts are counted and stay without codes.

        Raises:
            HostError: see `add`.
        """
        check_whole("batch", batch)
        counts, last = _Counts(), None
        total = self._count_uncoded(where)
        while rows := self._uncoded(batch, where, last):
            last = rows[-1].id
            with_text = [row for row in rows if row.text and row.text.strip()]
            counts.empty += len(rows) - len(with_text)
            coded = self._coded([(row.id, row.text or "", {}) for row in with_text], counts)
            self._fill_codes(coded)
            counts.written += len(coded)
            progress("encode", counts.written + counts.empty, total, 0)
        return counts.report()

    def delete(self, ids: Iterable[RowId] | None = None, *, where: Where | None = None) -> int:
        """Delete rows by their ids, or by a filter.

        Args:
            ids: their ids; those that are not in the table are passed over, and not counted.
            where: a filter in the database's own terms, in place of ids.

        Returns:
            Number of rows that were deleted.

        Raises:
            InputError: neither or both of the two, or one string in place of ids.
            HostError: the database cannot be reached, or refuses.
        """
        if (ids is None) == (where is None):
            raise InputError("give ids or where, one of the two")
        if where is not None:
            return self._delete_where(where)
        if isinstance(ids, str):
            raise InputError("ids is one string; give a list")
        wanted = list(dict.fromkeys(ids or ()))
        return self._delete_ids(wanted) if wanted else 0

    def count(self, where: Where | None = None) -> int:
        """Number of rows, also of those without codes.

        Args:
            where: count those that this filter allows; None: all.
        """
        return self._count(where)

    def count_without_codes(self, where: Where | None = None) -> int:
        """Number of rows that have no codes, which `fill` encodes.

        Args:
            where: count those that this filter allows; None: all.
        """
        return self._count_uncoded(where)

    def explain(self, query: str, id: RowId) -> Explanation:  # noqa: A002  the field's word
        """Why a row scores as it does: which of its tokens each query token met.

        Args:
            query: question or keywords.
            id: id of the row.

        Raises:
            InputError: an empty query, an id that is not in the table, or a row without codes.
            CodesError: see `search`.
        """
        check_query(query)
        rows = self._read([id])
        if not rows:
            raise InputError(f"{self.place} has no row with the id {id!r}")
        if rows[0].codes is None:
            raise InputError(f"{self.place}: the row {id!r} has no codes; encode it with fill()")
        return self.coder.explain(self.coder.encode_query(query), rows[0].codes, rows[0].text or "", row=id)

    async def aadd(self, documents: Any, **options: Any) -> RowReport:
        """`add` in a thread."""
        return await asyncio.to_thread(self.add, documents, **options)

    async def aupsert(self, documents: Any, **options: Any) -> RowReport:
        """`upsert` in a thread."""
        return await asyncio.to_thread(self.upsert, documents, **options)

    async def afill(self, where: Where | None = None, **options: Any) -> RowReport:
        """`fill` in a thread."""
        return await asyncio.to_thread(self.fill, where, **options)

    async def adelete(self, ids: Iterable[RowId] | None = None, *, where: Where | None = None) -> int:
        """`delete` in a thread."""
        return await asyncio.to_thread(self.delete, ids, where=where)

    async def acount(self, where: Where | None = None) -> int:
        """`count` in a thread."""
        return await asyncio.to_thread(self.count, where)

    async def aexplain(self, query: str, id: RowId) -> Explanation:  # noqa: A002
        """`explain` in a thread."""
        return await asyncio.to_thread(self.explain, query, id)

    def __len__(self) -> int:
        """Number of rows."""
        return self.count()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place})"

    # For moving rows from one database to another

    def coded_rows(self, batch: int = 1000, after: RowId | None = None) -> Iterator[list[CodedRow]]:
        """All rows that have codes, with their vectors, text columns and `fields`, some at a time, in a fixed order.

        Args:
            batch: number of rows at a time.
            after: begin after the row with this id; None: at the first.
        """
        while rows := self._scan(check_whole("batch", batch), after):
            after = rows[-1].id
            yield rows

    def ids_with_codes(self, ids: Sequence[RowId]) -> set[RowId]:
        """Those of some ids that are in the table with codes.

        Args:
            ids: ids of rows.
        """
        return {row.id for row in self._read(ids) if row.codes is not None}

    def write_coded(self, rows: Sequence[CodedRow]) -> None:
        """Write rows that are encoded already, new ones and in place of those that have the same ids.

        Raises:
            CodesError: codes are damaged, or of another codec or model; the message names the row.
            InputError: a row vector of another length, or one that is not finite; an id that occurs twice.
        """
        seen: set[RowId] = set()
        for row in rows:
            if row.id in seen:
                raise InputError(f"id {row.id!r} occurs twice; ids must be unique")
            seen.add(row.id)
            self.coder.check(row.codes, row.id)
            if len(row.row_vector) != self.coder.row_dim:
                raise InputError(
                    f"row {row.id!r}: a row vector of {len(row.row_vector)} dimensions, and the table has "
                    f"{self.coder.row_dim}"
                )
            if not np.isfinite(row.row_vector).all():
                raise InputError(f"row {row.id!r}: a row vector that is not finite")
        self._upsert(rows)

    # What a database is

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the rows are, for messages: the database's name, and the table's. Without a password."""

    @abstractmethod
    def _insert(self, rows: Sequence[CodedRow]) -> None:
        """Write new rows, all or none. Their ids are not in the table, but another writer may be faster: then raise.

        Raises:
            InputError: an id is in the table.
        """

    @abstractmethod
    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        """Write rows, all or none; of a row that is there only the columns that are given, the vector and the codes."""

    @abstractmethod
    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        """Write the vectors and codes of rows that are there; one that is there no longer is passed over."""

    @abstractmethod
    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        """Those of some ids that are in the table."""

    @abstractmethod
    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        """Delete rows; returns how many there were."""

    @abstractmethod
    def _delete_where(self, where: Where) -> int:
        """Delete rows by a filter; returns how many there were."""

    @abstractmethod
    def _nearest(self, vector: np.ndarray, n: int, where: Where | None, exact: bool) -> list[FoundRow]:
        """The ``n`` rows with the highest inner products, best first; ties by id. Rows without a vector are left out.

        Args:
            vector: float32 (`Coder.row_dim`,).
            n: number of rows.
            where: filter; it must hold before the nearest are chosen, not after.
            exact: compare all vectors. Otherwise the database's index may be used, with a width of 2 · ``n`` or more.
        """

    @abstractmethod
    def _uncoded(self, n: int, where: Where | None, after: RowId | None) -> list[FoundRow]:
        """The first ``n`` rows without codes or vector, in the order of ids, after the id ``after``; with text."""

    @abstractmethod
    def _count(self, where: Where | None) -> int:
        """Number of rows."""

    @abstractmethod
    def _count_uncoded(self, where: Where | None) -> int:
        """Number of rows without codes or without a vector."""

    @abstractmethod
    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        """Rows by their ids, with codes and text; those that are not there are left out."""

    @abstractmethod
    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        """The first ``n`` rows with codes, in the order of ids, after the id ``after``; with text and `fields`."""

    # The work that all share

    def _write(self, documents: Any, batch: int, progress: Progress, *, replace: bool) -> RowReport:
        check_whole("batch", batch)
        counts, seen = _Counts(), set()
        records = self._records(documents, seen)
        while True:
            try:
                at_once = list(islice(records, batch))
                if not at_once:
                    return counts.report()
                if not replace and (known := self._known([row_id for row_id, _, _ in at_once])):
                    names = ", ".join(map(repr, sorted(known, key=str)[:_IDS_NAMED]))
                    raise InputError(
                        f"{self.place} has {len(known)} of these ids ({names}); use upsert to write over them"
                    )
                coded = self._coded(at_once, counts)
                (self._upsert if replace else self._insert)(coded)
            except TansakuError as error:  # HostError too, which is the host's
                if counts.written:
                    error.args = (f"{error} ({counts.written:,} rows before it were written)",)
                raise
            counts.written += len(coded)
            progress("encode", counts.written, 0, 0)

    def _records(self, documents: Any, seen: set[RowId]) -> Iterator[tuple[RowId, str, dict[str, Any]]]:
        """Id, text and other columns of each record, checked."""
        for position, record in enumerate(as_records(documents)):
            has_place = isinstance(record, tuple) and len(record) == 2
            found: tuple[Any, Any] = record if has_place else (f"document {position}", record)
            place, content = found
            check_kind(str(place), content, Mapping, f"give mappings with {self.id_column!r} and the text")
            row_id = content.get(self.id_column)
            if not isinstance(row_id, (str, int)) or isinstance(row_id, bool) or row_id == "":
                raise InputError(
                    f"{place}: {self.id_column!r} is {row_id!r:.60}; give each document an id, a string or whole number"
                )
            if row_id in seen:
                raise InputError(f"{place}: id {row_id!r} occurs twice; ids must be unique")
            seen.add(row_id)
            texts = [content.get(name) for name in self.text_columns]
            for name, text in zip(self.text_columns, texts, strict=True):
                if text is not None and not isinstance(text, str):
                    raise InputError(f"{place}: {name!r} of {row_id!r} is {type(text).__name__}, not str")
            text = joined(texts)
            if not text.strip():
                raise InputError(f"{place}: {row_id!r} has no text in {', '.join(map(repr, self.text_columns))}")
            for reserved in (self.vector_column, self.codes_column):
                if reserved in content:
                    raise InputError(f"{place}: {reserved!r} is made here; leave it out, or write with write_coded")
            columns = {name: value for name, value in content.items() if name != self.id_column}
            for value in (row_id, *columns.values()):
                if isinstance(value, str) and _has_lone_surrogate(value):
                    raise InputError(
                        f"{place}: {row_id!r:.60} has half of a character (a lone surrogate); mend the text"
                    )
            yield row_id, text, columns

    def _coded(self, rows: Sequence[tuple[RowId, str, Mapping[str, Any]]], counts: _Counts) -> list[CodedRow]:
        found = self.coder.encode_documents([text for _, text, _ in rows])
        for (row_id, _, _), coded in zip(rows, found, strict=True):
            if coded.cut:
                counts.cut.append(row_id)
            if coded.unread:
                counts.unread.append(row_id)
        return [
            CodedRow(row_id, coded.row_vector, coded.codes, columns)
            for (row_id, _, columns), coded in zip(rows, found, strict=True)
        ]

    def _nearest_rows(self, vector: np.ndarray, n: int, where: Where | None, exact: bool) -> Nearest:
        rows = self._nearest(vector, n, where, exact)
        if len(rows) < n and not exact:  # an index ends early, without a word, above all under a filter
            exact, rows = True, self._nearest(vector, n, where, True)
        return Nearest(rows, exact)

    def _uncoded_rows(self, nearest: Nearest, k: int, where: Where | None) -> tuple[int | None, list[FoundRow]]:
        without = [row for row in nearest.rows if row.codes is None]
        n_coded = len(nearest.rows) - len(without)
        count = self._count_uncoded(where) if self.count_uncoded else None
        if n_coded < k and count != 0:
            known = {row.id for row in without}
            more = self._uncoded(k + len(known), where, None)
            without += [row for row in more if row.id not in known]
        return count, without

    def _check_origin(self, row_id: RowId, codes: Any) -> None:
        """Look at the codes of a row of a table that was just opened.

        Raises:
            CodesError: they are of another codec, model or row vectors. Of missing or damaged ones nothing is said: a
                search names their row, and the others can be read.
        """
        try:
            self.coder.read_header(codes, row_id)
        except CodesError:
            return
        self.coder.check(codes, row_id)

    def _refuse(self, *_: Any) -> list[FoundRow]:
        raise AssertionError("a database has a method of its own")


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False

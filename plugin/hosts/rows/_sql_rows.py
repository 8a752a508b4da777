"""What the SQL databases share: the statements of a `RowStore`, and the checks of a table when it is opened.

A database is a subclass that says how a transaction is made, how a value is named and which columns there are. Names
are quoted, values are parameters; only conditions are SQL of the application.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from typing import Any, ClassVar, Protocol

import numpy as np

from ....onnx_export.errors import InputError
from ...rerank.host_search import HostError
from ...rows.code_bytes import CodesError
from ...rows.coder import Coder
from ...rows.columns import check_name, joined
from ...rows.row_search import FoundRow, RowId
from ...rows.row_store import CodedRow, RowStore
from .._engine_source import SqlCondition

__all__ = ["Session", "SqlRows"]

_IDS_AT_ONCE = 500  # in one statement
_COLUMNS_NAMED = 20


class Session(Protocol):
    """A transaction. Its end commits it; an error undoes it."""

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        ...

    def change(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        """The number of rows that a statement changed."""
        ...

    def change_many(self, statement: str, values: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement for each of several values."""
        ...


class SqlRows(RowStore[SqlCondition]):
    """Documents in a table of an SQL database.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        table: name of the table.
        options: options of `RowStore`.
    """

    engine: ClassVar[str]
    """The database's name."""

    def __init__(self, coder: Coder, table: str, **options: Any) -> None:
        super().__init__(coder, **options)
        self.table = check_name(table)
        self._columns: dict[str, str] = {}

    # What a database is

    @abstractmethod
    def _session(self, *, writes: bool = False) -> AbstractContextManager[Session]:
        """A transaction; errors of the client become `HostError`, or `InputError` where a record is at fault."""

    @abstractmethod
    def _value(self, name: str) -> str:
        """The value ``name`` in a statement."""

    @abstractmethod
    def _table_columns(self, session: Session) -> dict[str, str]:
        """Name and type of each column; none if there is no such table."""

    @abstractmethod
    def _is_unique(self, session: Session) -> bool:
        """Whether no two rows of the table can have the same id."""

    @abstractmethod
    def _check_kinds(self, columns: Mapping[str, str]) -> None:
        """Raises `InputError` or `HostError` where the columns of row vectors and codes are of a wrong type."""

    @abstractmethod
    def _vector_value(self, vector: np.ndarray) -> Any:
        """A row vector as a value of a statement."""

    @abstractmethod
    def _read_vector(self, value: Any) -> np.ndarray:
        """A row vector as `_vector_expression` gives it."""

    @property
    def _table(self) -> str:
        """The table in a statement."""
        return self._quoted(self.table)

    @property
    def _id(self) -> str:
        """The ids in a statement."""
        return self._quoted(self.id_column)

    @property
    def _vector_expression(self) -> str:
        """The row vectors in a statement that reads them."""
        return self._vector

    def _lock(self, session: Session, ids: Sequence[RowId]) -> set[RowId]:
        """Those of some ids that are in the table, and stay until the end of the transaction."""
        return self._known_in(session, ids)

    def _id_value(self, row_id: RowId) -> Any:
        """An id as a value of a statement."""
        return row_id

    def _quoted(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def _same_name(self, name: str) -> str:
        """A column's name as the database compares it."""
        return name.lower()

    def _given_condition(self, condition: str) -> str:
        """A condition without parameters, in a statement that has some."""
        return condition

    # Opening

    def _check_table(self) -> None:
        """See that the table has the columns that are named, and codes of this codec and model."""
        with self._session() as session:
            self._check_given(session)
            for name in self._missing():
                raise HostError(
                    f"{self.place} has no column {name!r}; {type(self).__name__}.adopt(...) adds it to a table that "
                    "you have"
                )
            self._check_kinds(self._columns)
            self._check_stored(session)

    def _check_given(self, session: Session) -> None:
        """See that the table has the columns that the user made."""
        self._columns = self._read_columns(session)
        if not self._columns:
            raise HostError(f"{self.engine} has no table {self.table!r}; {type(self).__name__}.create(...) makes one")
        for name in (self.id_column, *self.text_columns, *self.fields):
            if self._same_name(name) not in self._columns:
                raise HostError(f"{self.place} has no column {name!r}; {self._known_columns()}")
        if not self._is_unique(session):
            raise HostError(
                f"{self.place}: two rows may have the same {self.id_column!r}; make it the primary key, or give it a "
                "unique index"
            )
        if session.rows(f"SELECT 1 FROM {self._table} WHERE {self._quoted(self.id_column)} IS NULL LIMIT 1"):  # noqa: S608
            raise HostError(f"{self.place}: a row has no {self.id_column!r}; give each row one")

    def _missing(self) -> list[str]:
        """Those of our two columns that the table has not."""
        names = (self.vector_column, self.codes_column)
        return [name for name in names if self._same_name(name) not in self._columns]

    def _check_stored(self, session: Session) -> None:
        found = session.rows(
            f"SELECT {self._id}, {self._codes} FROM {self._table} WHERE {self._codes} IS NOT NULL LIMIT 1"  # noqa: S608
        )
        for row_id, codes in found:
            try:
                self._check_origin(row_id, codes)
            except CodesError as error:
                raise CodesError(
                    f"{self.place}: {error} (set {self.codes_column!r} to NULL, and call fill())", row_id
                ) from error

    def _read_columns(self, session: Session) -> dict[str, str]:
        return {self._same_name(name): kind for name, kind in self._table_columns(session).items()}

    def _known_columns(self) -> str:
        names = list(self._columns)
        more = f" and {len(names) - _COLUMNS_NAMED} more" if len(names) > _COLUMNS_NAMED else ""
        return f"its columns are {', '.join(names[:_COLUMNS_NAMED])}{more}"

    # Parts of statements

    @property
    def _vector(self) -> str:
        return self._quoted(self.vector_column)

    @property
    def _codes(self) -> str:
        return self._quoted(self.codes_column)

    @property
    def _lacks(self) -> str:
        """The condition of rows that `fill` encodes."""
        return f"({self._codes} IS NULL OR {self._vector} IS NULL)"

    def _read_names(self, with_text: bool) -> str:
        """Text columns, if they are wanted, and fields, each after a comma."""
        names = (*(self.text_columns if with_text else ()), *self.fields)
        return "".join(f", {self._quoted(name)}" for name in names)

    def _condition(self, where: SqlCondition | None) -> tuple[str, dict[str, Any]]:
        """A filter as SQL, and its values."""
        if where is None:
            return "true", {}
        condition, values = where if isinstance(where, tuple) and len(where) == 2 else (where, None)
        if not isinstance(condition, str) or not condition.strip() or not isinstance(values, (Mapping, type(None))):
            raise InputError(
                f"where is {where!r:.100}; give SQL over the table's columns, or SQL with named parameters and a "
                "mapping of their values"
            )
        given = self._given_condition(condition) if values is None else condition
        return f"({given}\n)", dict(values or {})  # a comment at its end must not take what follows

    def _found(
        self, row_id: RowId, codes: Any, others: Sequence[Any], score: float = np.nan, *, with_text: bool
    ) -> FoundRow:
        n_texts = len(self.text_columns) if with_text else 0
        return FoundRow(
            row_id,
            None if codes is None else bytes(codes),
            score,
            joined(others[:n_texts]) if with_text else None,
            dict(zip(self.fields, others[n_texts:], strict=True)),
        )

    def _by_ids(
        self, session: Session, ids: Sequence[RowId], statement: Callable[[str], str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Statements over ids, some at a time, with their values."""
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[start : start + _IDS_AT_ONCE]
            values = {f"tansaku_{i}": self._id_value(row_id) for i, row_id in enumerate(some)}
            yield statement(f"{self._quoted(self.id_column)} IN ({', '.join(map(self._value, values))})"), values

    # Verbs

    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        with self._session() as session:
            return self._known_in(session, ids)

    def _known_in(self, session: Session, ids: Sequence[RowId], end: str = "") -> set[RowId]:
        found: set[RowId] = set()
        select = f"SELECT {self._id} FROM {self._table} WHERE "  # noqa: S608
        for statement, values in self._by_ids(session, ids, lambda among: f"{select}{among}{end}"):
            found.update(row_id for (row_id,) in session.rows(statement, values))
        return found

    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        delete = f"DELETE FROM {self._table} WHERE "  # noqa: S608
        with self._session(writes=True) as session:
            statements = self._by_ids(session, ids, lambda among: f"{delete}{among}")
            return sum(session.change(statement, values) for statement, values in statements)

    def _delete_where(self, where: SqlCondition) -> int:
        condition, values = self._condition(where)
        with self._session(writes=True) as session:
            return session.change(f"DELETE FROM {self._table} WHERE {condition}", values)  # noqa: S608

    def _count(self, where: SqlCondition | None) -> int:
        return self._count_if("true", where)

    def _count_uncoded(self, where: SqlCondition | None) -> int:
        return self._count_if(self._lacks, where)

    def _count_if(self, what: str, where: SqlCondition | None) -> int:
        condition, values = self._condition(where)
        with self._session() as session:
            rows = session.rows(f"SELECT count(*) FROM {self._table} WHERE {what} AND {condition}", values)  # noqa: S608
        return int(rows[0][0])

    def _uncoded(self, n: int, where: SqlCondition | None, after: RowId | None) -> list[FoundRow]:
        condition, values = self._condition(where)
        later, after_values = self._later(after)
        statement = (
            f"SELECT {self._id}{self._read_names(True)} FROM {self._table} "  # noqa: S608
            f"WHERE {self._lacks} AND {condition}{later} ORDER BY {self._quoted(self.id_column)} LIMIT {n:d}"
        )
        with self._session() as session:
            rows = session.rows(statement, {**values, **after_values})
        return [self._found(row[0], None, row[1:], with_text=True) for row in rows]

    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        with self._session() as session:
            return self._read_in(session, ids, with_text=True)

    def _read_in(self, session: Session, ids: Sequence[RowId], *, with_text: bool) -> list[FoundRow]:
        select = f"SELECT {self._id}, {self._codes}{self._read_names(with_text)} FROM {self._table} WHERE "  # noqa: S608
        return [
            self._found(row[0], row[1], row[2:], with_text=with_text)
            for statement, values in self._by_ids(session, ids, lambda among: f"{select}{among}")
            for row in session.rows(statement, values)
        ]

    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        later, values = self._later(after)
        statement = (
            f"SELECT {self._id}, {self._vector_expression}, {self._codes}{self._read_names(True)} "  # noqa: S608
            f"FROM {self._table} WHERE NOT {self._lacks}{later} ORDER BY {self._quoted(self.id_column)} LIMIT {n:d}"
        )
        names = (*self.text_columns, *self.fields)
        with self._session() as session:
            rows = session.rows(statement, values)
        return [
            CodedRow(row[0], self._read_vector(row[1]), bytes(row[2]), dict(zip(names, row[3:], strict=True)))
            for row in rows
        ]

    def _later(self, after: RowId | None) -> tuple[str, dict[str, Any]]:
        if after is None:
            return f" AND {self._quoted(self.id_column)} IS NOT NULL", {}
        return f" AND {self._quoted(self.id_column)} > {self._value('tansaku_after')}", {
            "tansaku_after": self._id_value(after)
        }

    # Writing

    def _insert(self, rows: Sequence[CodedRow]) -> None:
        with self._session(writes=True) as session:
            self._check_columns(session, rows)
            for names, some in _of_same_columns(rows):
                self._write_new(session, names, some, replace=False)

    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        # In the order of ids, so that two writers of the same rows wait for one another and do not block each other.
        rows = sorted(rows, key=lambda row: str(row.id))
        with self._session(writes=True) as session:
            self._check_columns(session, rows)
            known = {str(row_id) for row_id in self._lock(session, [row.id for row in rows])}
            # A row that is there is updated: an INSERT ... ON CONFLICT is refused where it lacks a column that must
            # have a value, although the row has it.
            for is_known, ours in groupby(rows, key=lambda row: str(row.id) in known):
                for names, some in _of_same_columns(list(ours)):
                    if is_known:
                        self._write_over(session, names, some)
                    else:
                        self._write_new(session, names, some, replace=True)

    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        with self._session(writes=True) as session:
            self._write_over(session, (), rows, f" AND {self._lacks}")

    def _write_new(self, session: Session, names: Sequence[str], rows: Sequence[CodedRow], *, replace: bool) -> None:
        written = (*names, self.vector_column, self.codes_column)
        columns = ", ".join(map(self._quoted, (self.id_column, *written)))
        values = ", ".join(self._value(f"tansaku_{i}") for i in range(len(written) + 1))
        statement = f"INSERT INTO {self._table} ({columns}) VALUES ({values})"  # noqa: S608
        if replace:
            changes = ", ".join(f"{self._quoted(name)} = excluded.{self._quoted(name)}" for name in written)
            statement += f" ON CONFLICT ({self._quoted(self.id_column)}) DO UPDATE SET {changes}"
        session.change_many(statement, [self._row_values(row, names) for row in rows])

    def _write_over(
        self, session: Session, names: Sequence[str], rows: Sequence[CodedRow], condition: str = ""
    ) -> None:
        written = (*names, self.vector_column, self.codes_column)
        changes = ", ".join(
            f"{self._quoted(name)} = {self._value(f'tansaku_{i}')}" for i, name in enumerate(written, 1)
        )
        mine = f"{self._quoted(self.id_column)} = {self._value('tansaku_0')}"
        statement = f"UPDATE {self._table} SET {changes} WHERE {mine}{condition}"  # noqa: S608
        session.change_many(statement, [self._row_values(row, names) for row in rows])

    def _row_values(self, row: CodedRow, names: Sequence[str]) -> dict[str, Any]:
        given = (
            self._id_value(row.id),
            *(row.columns[name] for name in names),
            self._vector_value(row.row_vector),
            row.codes,
        )
        return {f"tansaku_{i}": value for i, value in enumerate(given)}

    def _check_columns(self, session: Session, rows: Sequence[CodedRow]) -> None:
        """Raises InputError for a column that the table has not."""
        names = {name: row.id for row in reversed(rows) for name in row.columns}
        if not self._columns.keys() >= {self._same_name(str(name)) for name in names}:
            self._columns = self._read_columns(session)  # it may be new
        for name, row_id in names.items():
            if self._same_name(str(name)) not in self._columns:
                raise InputError(
                    f"row {row_id!r}: {self.place} has no column {name!r}; {self._known_columns()}; leave it out, or "
                    "add it with ALTER TABLE"
                )

    # Making a table

    def _columns_of_new(self, columns: Mapping[str, str], id_type: str, text_type: str, vector_type: str) -> str:
        """The columns of a new table, for CREATE TABLE."""
        taken = {self.id_column, self.vector_column, self.codes_column}
        for name in columns:
            if check_name(name) in taken:
                raise InputError(f"columns has {name!r}, which is made here; leave it out")
        kinds = {**dict.fromkeys(self.text_columns, text_type), **columns}
        parts = [f"{self._quoted(self.id_column)} {id_type} PRIMARY KEY NOT NULL"]
        parts += [f"{self._quoted(name)} {kind}" for name, kind in kinds.items()]
        parts += [f"{self._vector} {vector_type}", f"{self._codes} {self._codes_type}"]
        return ", ".join(parts)

    _codes_type: ClassVar[str] = "BLOB"


@contextlib.contextmanager
def client_errors(place: str, refusals: type[Exception], records: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turns the exceptions of a database's client into `HostError`, and those that a record causes into `InputError`.

    Args:
        place: the database and the table.
        refusals: what the client raises.
        records: those of them that say that a record cannot be written.
    """
    try:
        yield
    except records as error:
        raise InputError(f"{place}: {_reason(error)}") from error
    except refusals as error:
        raise HostError(f"{place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()]
    return "; ".join(line for line in lines[:2] if line and not line.startswith(("^", "LINE"))) or type(error).__name__


def _of_same_columns(rows: Sequence[CodedRow]) -> Iterator[tuple[tuple[str, ...], list[CodedRow]]]:
    """Runs of rows that give the same columns: a column that is not given is not written, not even with NULL."""
    for names, some in groupby(rows, key=lambda row: tuple(sorted(row.columns))):
        yield names, list(some)

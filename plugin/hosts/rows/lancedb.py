"""Row vectors and codes in a LanceDB table of the user's own.

```python
import lancedb
import pyarrow as pa
from tansaku import Coder
from tansaku.plugin.hosts.rows.lancedb import LanceRows
store = LanceRows.create(Coder(), lancedb.connect("yours"), "docs", columns={"year": pa.int64()})
store.add([{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}])
hits = store.search("昔の首都はどこ？", where="year < 1000")
```
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import HnswSq
from lancedb.table import LanceTable, Table

from ....indexer.forks import check_process
from ....onnx_export.errors import InputError, TansakuError
from ....onnx_export.kinds import check_kind, check_whole
from ...rerank.host_search import HostError
from ...rows.code_bytes import CodesError
from ...rows.coder import Coder
from ...rows.columns import joined
from ...rows.row_search import FoundRow, Nearest, RowId
from ...rows.row_store import CodedRow, RowStore
from .._lance_tables import packed, unpacked

__all__ = ["LanceRows"]

_IDS_AT_ONCE = 2000  # in one condition
_REFUSALS = (RuntimeError, ValueError, OSError)  # what LanceDB raises

_locks: dict[str, threading.RLock] = {}


class LanceRows(RowStore[str]):
    """Documents in a table of LanceDB: the row vector as a fixed-size list of float16 or float32, codes as binary.

    Opening looks at the table: that it has the columns, vectors of the coder's length, and codes of its codec and
    model. `create` makes a table, and `adopt` adds the two columns to one that you have.

    A filter (``where``) is LanceDB's SQL, ``year >= 2000``, and holds before the nearest rows are chosen. It must come
    from the application, not from users.

    Without an index all row vectors are compared. `create_index` makes one; searches then look at twice as many rows as
    they are asked for, and compare these again by the vectors themselves.

    A row without codes is one whose row vector is null: codes alone are too large to be counted in each search. Who
    changes a text sets its row vector to null, or calls `upsert`. `fill` and `count_without_codes` look at both.

    LanceDB does not know unique columns. Threads of one process wait for one another here. In a table that `create`
    makes, the ids are its unenforced primary key, so that two processes cannot write the same new id twice either. In
    another table they can, unless it has that key: ``table.set_unenforced_primary_key("id")``. A row that is there
    twice is found twice.

    It can be pickled: whoever unpickles it opens the table where it lies. The pickle holds its storage options.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        table: the table. It is brought to its latest version before each call.
        refine_factor: with an index, how many rows are compared by the vectors themselves, for each that is asked for.
        timeout: seconds that a search may take.
        options: options of `RowStore`.

    Raises:
        InputError: an option that cannot be, or ids that are neither strings nor whole numbers.
        HostError: the table does not have a column, or has it in another type.
        CodesError: the table has codes of another codec or model.
    """

    def __init__(
        self, coder: Coder, table: Table, *, refine_factor: int = 3, timeout: float = 30.0, **options: Any
    ) -> None:
        super().__init__(coder, **options)
        check_kind("table", table, Table, "give lancedb.connect(FOLDER).open_table(NAME)")
        self.table, self.timeout = table, timeout
        self._refine_factor = check_whole("refine_factor", refine_factor)
        self._counted: tuple[Any, int] | None = None
        self._check_columns()
        self._check_stored()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "table": packed(self.table)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, table=unpacked(state["table"]))

    @classmethod
    def create(
        cls,
        coder: Coder,
        database: lancedb.DBConnection,
        name: str,
        *,
        columns: Mapping[str, pa.DataType] | None = None,
        id_type: pa.DataType | None = None,
        float16: bool = True,
        **options: Any,
    ) -> LanceRows:
        """Make a table and open it.

        Args:
            coder: see the class.
            database: where the table is made, such as ``lancedb.connect(FOLDER)``.
            name: name of the table.
            columns: names and Arrow types of its other columns; those with the text are made in any case.
            id_type: Arrow type for the ids, a string or whole number; None: a string.
            float16: keep row vectors in half precision, in half of the space.
            options: options of `LanceRows`.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a table already.
        """
        given = RowStore.__new__(cls)  # its options are checked before a table is made
        RowStore.__init__(given, coder, **{key: options[key] for key in options if key not in _OWN})
        types = dict.fromkeys(given.text_columns, pa.string()) | dict(columns or {})
        fields = [
            pa.field(given.id_column, id_type or pa.string(), nullable=False),
            *(pa.field(key, kind) for key, kind in types.items() if key != given.id_column),
            *given._own_fields(float16),
        ]
        with _asking(f"LanceDB cannot make the table {name!r}"):
            table: Any = database.create_table(name, schema=pa.schema(fields))
            table.set_unenforced_primary_key(given.id_column)
        return cls(coder, table, **options)

    @classmethod
    def adopt(cls, coder: Coder, table: Table, *, float16: bool = True, **options: Any) -> LanceRows:
        """Add the columns for row vectors and codes to a table that there is, if it lacks them, and open it.

        Its rows and other columns stay as they are; `fill` encodes the rows.

        Args:
            coder: see the class.
            table: see the class.
            float16: see `create`.
            options: options of `LanceRows`.

        Raises:
            InputError: see the class.
            HostError: see the class; or two rows have the same id, or one has none.
            CodesError: see the class.
        """
        check_kind("table", table, Table, "give lancedb.connect(FOLDER).open_table(NAME)")
        given = RowStore.__new__(cls)
        RowStore.__init__(given, coder, **{key: options[key] for key in options if key not in _OWN})
        with _asking(f"LanceDB cannot add columns to {table.name!r}"):
            table.checkout_latest()
            if given.id_column in table.schema.names:
                ids = table.search().select([given.id_column]).to_arrow()[given.id_column]
                if ids.null_count or len(ids) > len(ids.unique()):
                    raise HostError(
                        f"LanceDB's table {table.name!r}: {given.id_column!r} has nulls, or a value twice; give each "
                        "row an id of its own"
                    )
            if missing := [field for field in given._own_fields(float16) if field.name not in table.schema.names]:
                table.add_columns(missing)
        return cls(coder, table, **options)

    def create_index(self, config: Any = None) -> None:
        """Make an index over the row vectors, or make it again, and wait for it. It may take minutes.

        Rows that are written later are found without it, by comparing them all, until ``table.optimize()`` adds them.

        Args:
            config: index of `lancedb.index`, with ``distance_type="dot"``; None: ``HnswSq``.

        Raises:
            InputError: an index for another distance.
            HostError: LanceDB refuses.
        """
        config = HnswSq(distance_type="dot") if config is None else config
        if getattr(config, "distance_type", None) != "dot":
            raise InputError(
                f"{config!r:.100}: row vectors are compared by their inner product; give distance_type='dot'"
            )
        with self._asking("make an index of"):
            self.table.create_index(self.vector_column, config=config)

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return f"LanceDB's table {self.table.name!r}"

    def count_without_codes(self, where: str | None = None) -> int:
        """Number of rows that have no codes or no row vector, which `fill` encodes; reads all codes.

        Args:
            where: count those that this filter allows; None: all.
        """
        with self._asking("count in"):
            return self.table.count_rows(_and(self._is_uncoded, where))

    def _insert(self, rows: Sequence[CodedRow]) -> None:
        with self._lock:
            known = self._known([row.id for row in rows])
            written = 0 if known else self._merge(rows, insert=True)
        if written < len(rows):
            named = f"{min(known, key=str)!r}" if known else f"{len(rows) - written} of the ids that were to be written"
            raise InputError(f"{self.place} has the id {named}; use upsert to write over it")

    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        with self._lock:
            if (written := self._merge(rows, insert=True, update=True)) < len(rows):
                raise HostError(f"{self.place}: of {len(rows)} rows {written} were written; write them again")

    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        with self._lock:
            self._merge(rows, update=True)

    def _merge(self, rows: Sequence[CodedRow], *, insert: bool = False, update: bool = False) -> int:
        """Write rows in one transaction; how many were written."""
        if not rows:
            return 0
        with self._asking("write to"):
            source = self._arrow(rows)
            merge = self.table.merge_insert(self.id_column)
            if update:
                merge = merge.when_matched_update_all()
            if insert:
                merge = merge.when_not_matched_insert_all()
            # With an index over the ids, LanceDB 0.40 may find no row and say nothing (its issue 3177).
            done = merge.use_index(False).execute(source)
            return done.num_inserted_rows + done.num_updated_rows

    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        with self._asking("read"):
            return {row[self.id_column] for row in self._rows_by_id(ids, [])}

    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        with self._asking("delete from"):
            return sum(
                self._deleted(self._ids_are(ids[start : start + _IDS_AT_ONCE]))
                for start in range(0, len(ids), _IDS_AT_ONCE)
            )

    def _delete_where(self, where: str) -> int:
        with self._asking("delete from"):
            return self._deleted(_and(None, where))

    def _deleted(self, condition: str) -> int:
        done: Any = self.table.delete(condition)
        return done.num_deleted_rows

    def _nearest(self, vector: np.ndarray, n: int, where: str | None, exact: bool) -> list[FoundRow]:
        with self._asking("search"):
            search: Any = self.table.search(vector, vector_column_name=self.vector_column)
            search = search.distance_type("dot").limit(n)
            if where is not None:
                search = search.where(_and(None, where), prefilter=True)
            if exact:
                search = search.bypass_vector_index()
            else:
                refined = self._refine_factor
                search = search.ef(2 * refined * n).refine_factor(refined)  # LanceDB refuses less than refined * n
            columns = self._columns(with_text=self.with_text)
            rows = search.select([*columns, "_distance"]).to_arrow(timeout=self._limit).to_pylist()
        found = [self._found(row, 1 - row["_distance"], with_text=self.with_text) for row in rows]
        return sorted(found, key=lambda row: (-row.score, row.id))

    def _uncoded_rows(self, nearest: Nearest, k: int, where: str | None) -> tuple[int | None, list[FoundRow]]:
        count, without = super()._uncoded_rows(nearest, k, where)
        # Rows that were found have a row vector, so that those of them without codes are not counted yet.
        return count if count is None else count + sum(row.codes is None for row in nearest.rows), without

    def _uncoded(self, n: int, where: str | None, after: RowId | None) -> list[FoundRow]:
        with self._asking("read"):
            ids = self._ids_in_order(_and(self._is_uncoded, where), n, after)
            rows = {row[self.id_column]: row for row in self._rows_by_id(ids, self._columns(with_text=True))}
        return [self._found(rows[row_id], with_text=True)._replace(codes=None) for row_id in ids if row_id in rows]

    def _count(self, where: str | None) -> int:
        with self._asking("count in"):
            return self.table.count_rows(None if where is None else _and(None, where))

    def _count_uncoded(self, where: str | None) -> int:
        with self._asking("count in"):
            # It reads all row vectors, so a count is kept until the table changes.
            state = self.table.version, where
            if self._counted is None or self._counted[0] != state:
                self._counted = state, self.table.count_rows(_and(f"{_quoted(self.vector_column)} IS NULL", where))
            return self._counted[1]

    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        with self._asking("read"):
            rows = self._rows_by_id(ids, self._columns(with_text=True))
        return [self._found(row, with_text=True) for row in rows]

    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        columns = dict.fromkeys([self.codes_column, self.vector_column, *self.text_columns, *self.fields])
        with self._asking("read"):
            while ids := self._ids_in_order(f"{_quoted(self.vector_column)} IS NOT NULL", n, after):
                after = ids[-1]
                rows = [row for row in self._rows_by_id(ids, list(columns)) if row[self.codes_column] is not None]
                if rows:
                    return [self._coded_row(row) for row in sorted(rows, key=lambda row: row[self.id_column])]
        return []

    # How LanceDB is asked

    @property
    def _lock(self) -> threading.RLock:
        """Of the table, for all stores of it in this process."""
        place = self.table.uri if isinstance(self.table, LanceTable) else self.table.name
        return _locks.setdefault(place, threading.RLock())

    @property
    def _limit(self) -> timedelta:
        return timedelta(seconds=self.timeout)

    @contextlib.contextmanager
    def _asking(self, verb: str) -> Iterator[None]:
        with _asking(f"LanceDB cannot {verb} {self.table.name!r}"):
            self.table.checkout_latest()
            yield

    @property
    def _is_uncoded(self) -> str:
        return f"{_quoted(self.vector_column)} IS NULL OR {_quoted(self.codes_column)} IS NULL"

    def _own_fields(self, float16: bool) -> list[pa.Field]:
        number = pa.float16() if float16 else pa.float32()
        return [
            pa.field(self.vector_column, pa.list_(number, self.coder.row_dim)),
            pa.field(self.codes_column, pa.binary()),
        ]

    def _check_columns(self) -> None:
        with self._asking("read"):
            schema = self.table.schema
        for name in (self.id_column, *self.text_columns, *self.fields, self.vector_column, self.codes_column):
            if name not in schema.names:
                own = name in (self.vector_column, self.codes_column)
                remedy = "LanceRows.adopt(...) adds it" if own else f"it has {', '.join(schema.names)}"
                raise HostError(f"{self.place} has no column {name!r}; {remedy}")
        kind = schema.field(self.id_column).type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"{self.place}: {self.id_column!r} is {kind}; ids are strings or whole numbers")
        self._whole_ids = pa.types.is_integer(kind)
        vector, codes = schema.field(self.vector_column).type, schema.field(self.codes_column).type
        if not pa.types.is_fixed_size_list(vector) or vector.value_type not in (pa.float16(), pa.float32()):
            raise HostError(f"{self.place}: {self.vector_column!r} is {vector}, not a list of float16 of a fixed size")
        if vector.list_size != self.coder.row_dim:
            raise HostError(
                f"{self.place}: {self.vector_column!r} has {vector.list_size} dimensions, and row vectors of the coder "
                f"have {self.coder.row_dim}; open it with Coder(row_dim={vector.list_size}), or use another column"
            )
        if not (pa.types.is_binary(codes) or pa.types.is_large_binary(codes)):
            raise HostError(f"{self.place}: {self.codes_column!r} is {codes}, not binary")

    def _check_stored(self) -> None:
        condition = f"{_quoted(self.vector_column)} IS NOT NULL"
        with self._asking("read"):
            rows = self.table.search().where(condition).select([self.id_column, self.codes_column]).limit(1).to_list()
        for row in rows:
            codes, row_id = row[self.codes_column], row[self.id_column]
            try:
                self._check_origin(row_id, codes)
            except CodesError as error:
                remedy = f"set {self.vector_column!r} to null, and call fill()"
                raise CodesError(f"{self.place}: {error} ({remedy})", row_id) from error

    def _columns(self, *, with_text: bool) -> list[str]:
        texts = self.text_columns if with_text else ()
        return list(dict.fromkeys([self.id_column, self.codes_column, *texts, *self.fields]))

    def _ids_are(self, ids: Sequence[RowId]) -> str:
        for row_id in ids:
            if isinstance(row_id, int) != self._whole_ids:
                kind = "whole numbers" if self._whole_ids else "strings"
                raise InputError(f"id {row_id!r}: {self.place} has {kind} as ids")
        return f"{_quoted(self.id_column)} IN ({', '.join(map(_literal, ids))})"

    def _rows_by_id(self, ids: Sequence[RowId], columns: Sequence[str]) -> list[dict[str, Any]]:
        selected = list(dict.fromkeys([self.id_column, *columns]))
        rows = []
        for start in range(0, len(ids), _IDS_AT_ONCE):
            condition = self._ids_are(ids[start : start + _IDS_AT_ONCE])
            rows += self.table.search().where(condition).select(selected).to_arrow(timeout=self._limit).to_pylist()
        return rows

    def _ids_in_order(self, condition: str, n: int, after: RowId | None) -> list[RowId]:
        if after is not None:
            condition = f"({condition}\n) AND {_quoted(self.id_column)} > {_literal(after)}"
        found = self.table.search().where(condition).select([self.id_column]).to_arrow()
        return found.sort_by(self.id_column)[self.id_column].slice(0, n).to_pylist()

    def _found(self, row: Mapping[str, Any], score: float = np.nan, *, with_text: bool) -> FoundRow:
        text = joined(row[name] for name in self.text_columns) if with_text else None
        fields = {name: row[name] for name in self.fields}
        return FoundRow(row[self.id_column], row[self.codes_column], score, text, fields)

    def _coded_row(self, row: Mapping[str, Any]) -> CodedRow:
        columns = {name: row[name] for name in dict.fromkeys([*self.text_columns, *self.fields])}
        vector = np.array(row[self.vector_column], np.float32)
        return CodedRow(row[self.id_column], vector, row[self.codes_column], columns)

    def _arrow(self, rows: Sequence[CodedRow]) -> pa.Table:
        """Rows as Arrow, in the table's own types."""
        schema = self.table.schema
        own = (self.id_column, self.vector_column, self.codes_column)
        names = list(dict.fromkeys(name for row in rows for name in row.columns if name not in own))
        if unknown := [name for name in names if name not in schema.names]:
            raise InputError(f"{self.place} has no column {unknown[0]!r}; it has {', '.join(schema.names)}")
        # One transaction writes the same columns of all rows: what a row does not give is written as it is.
        lacking = [row.id for row in rows if len(row.columns) < len(names)]
        stored = {row[self.id_column]: row for row in self._rows_by_id(lacking, names)}
        columns = {
            self.id_column: [row.id for row in rows],
            **{
                name: [row.columns[name] if name in row.columns else stored.get(row.id, {}).get(name) for row in rows]
                for name in names
            },
            self.codes_column: [row.codes for row in rows],
        }
        fields = [schema.field(name) for name in columns]
        arrays = [self._array(field, columns[field.name], rows) for field in fields]
        vector = schema.field(self.vector_column)
        numbers = np.stack([row.row_vector for row in rows]).astype(vector.type.value_type.to_pandas_dtype())
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), type=vector.type))
        return pa.Table.from_arrays(arrays, schema=pa.schema([*fields, vector]))

    def _array(self, field: pa.Field, values: list[Any], rows: Sequence[CodedRow]) -> pa.Array:
        try:
            return pa.array(values, field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            for row, value in zip(rows, values, strict=True):
                try:
                    pa.array([value], field.type)
                except (pa.ArrowException, TypeError, ValueError, OverflowError):
                    raise InputError(f"row {row.id!r}: {field.name!r} is {value!r:.60}, not {field.type}") from error
            raise


_OWN = ("refine_factor", "timeout")  # options of LanceRows that are not those of RowStore


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    """Notes that LanceDB is used, and turns its errors into HostError; `what` begins the message."""
    check_process("LanceDB's table")
    try:
        yield
    except TansakuError:  # of ours, some of which are ValueErrors too
        raise
    except _REFUSALS as error:
        raise HostError(f"{what}: {str(error).strip().partition(chr(10))[0]}") from error


def _and(condition: str | None, where: str | None) -> str:
    """Both conditions; a comment in the caller's ends with its line."""
    if where is None:
        return condition or ""
    check_kind("where", where, str, "give a condition in LanceDB's SQL, such as year >= 2000")
    return where if condition is None else f"({condition}) AND ({where}\n)"


def _quoted(name: str) -> str:
    return f"`{name}`"


def _literal(value: RowId) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"

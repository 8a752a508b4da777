"""Row vectors and codes in a Milvus collection: a vector field, and the codes in a VARCHAR field.

```python
from pymilvus import MilvusClient
from tansaku import Coder
from tansaku.plugin.hosts.rows.milvus import MilvusRows
store = MilvusRows.create(Coder(), MilvusClient("docs.db"), "docs")
store.add([{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}])
hits = store.search("昔の首都はどこ？", where="year < 1000")
```
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ....onnx_export.errors import InputError, MissingExtraError
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.columns import joined
from ...rows.row_search import FoundRow, RowId
from ...rows.row_store import CodedRow, RowStore
from ._all_vectors import nearest_of
from ._codes_text import check_codec, codes_from_text, codes_to_text

try:
    import grpc
    from pymilvus import AsyncMilvusClient, DataType, MilvusClient, MilvusException
except ImportError as error:
    raise MissingExtraError("pymilvus", "milvus") from error

__all__ = ["MilvusRows"]

VECTOR_COLUMN, CODES_COLUMN = "tansaku_vector", "tansaku_codes"
_LONGEST = 65_535  # characters of a VARCHAR
_ID_LENGTH = 512
_LEAST_EF = 128
_AT_ONCE = 1000  # rows of an exact comparison
_STRONG = "Strong"  # what was written is found
_REFUSALS = (MilvusException, grpc.RpcError, OSError, TypeError, ValueError)  # the last two of values of no type


class MilvusRows(RowStore[str]):
    """Documents in a collection of Milvus or Milvus Lite: a FLOAT_VECTOR with the metric IP, and base64 in a VARCHAR.

    A filter (``where``) is an expression of Milvus's: ``'year < 1000 and note == "寺"'``. It must come from the
    application. The collection is read with the consistency level Strong.

    Columns that the collection has no fields for are in its dynamic field. An upsert is a partial update (Milvus 2.6 or
    later): a row's vector, codes and given columns change together, and the others stay.

    A VARCHAR holds 65,535 characters: codes of some 1,400 tokens. Longer ones are refused, by the row's id.

    Every row of a collection has a vector. A row that has none of ours has another one, such as zeros, and NULL for
    codes: a row without codes. A row that is deleted while `fill` encodes it may come back without its other columns,
    as Milvus cannot write only if a row is there. Nor can it write only if it is not: two writers that `add` the same
    id at the same moment are not noticed.

    Milvus compares all vectors if their index is FLAT. Under another index, where all are to be compared (`exact`, and
    where the index gave fewer rows than it was asked for), they are read and compared here.

    May be used from several threads. Its awaitable methods run in threads; an asynchronous client is refused.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        client: a client of the server, or of Milvus Lite's file, not an asynchronous one.
        collection: name of the collection.
        timeout: seconds that a request may take.
        options: options of `RowStore`.

    Raises:
        InputError: a field of another kind or length, another metric, or an asynchronous client.
        HostError: the server cannot be reached, or it has no such collection, or the collection no such field.
        CodesError: the collection has codes of another codec or model.
    """

    def __init__(
        self, coder: Coder, client: MilvusClient, collection: str, *, timeout: float = 30.0, **options: Any
    ) -> None:
        super().__init__(coder, **options)
        if isinstance(client, AsyncMilvusClient):
            raise InputError("client is an AsyncMilvusClient; give a MilvusClient, and await asearch and aadd")
        for name in (self.id_column, self.vector_column, self.codes_column):
            if not name.isidentifier():
                raise InputError(f"{name!r} cannot be the name of a field in an expression of Milvus's")
        self.client, self.collection = client, collection
        self._options: dict[str, Any] = {"timeout": timeout}
        self._guard = threading.Lock()
        self._id_type = self._check_fields()
        self._is_flat = self._check_index() == "FLAT"
        with self._asking():
            client.load_collection(collection, **self._options)
        check_codec(self)

    @classmethod
    def create(
        cls,
        coder: Coder,
        client: MilvusClient,
        collection: str,
        *,
        id_type: str = "VARCHAR",
        index_type: str | None = None,
        index_params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> MilvusRows:
        """Make a collection, with a dynamic field for other columns, and open it.

        To a collection that there is, Milvus adds no vectors that an index can have: make it with these three fields,
        or make a new one. The fields are the ids (the primary key), ``vector_column`` (FLOAT_VECTOR of `Coder.row_dim`
        dimensions, with an index of the metric IP) and ``codes_column`` (VARCHAR of 65,535 characters, nullable).

        Args:
            coder: see the class.
            client: see the class.
            collection: see the class.
            id_type: "VARCHAR" (up to 512 bytes) or "INT64".
            index_type: index of the row vectors; None: FLAT in Milvus Lite, whose HNSW loses rows under a filter, and
                HNSW on a server.
            index_params: parameters of the index.
            options: options of the class.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a collection already.
        """
        if id_type not in ("VARCHAR", "INT64"):
            raise InputError(f"id_type is {id_type!r}; give VARCHAR or INT64")
        vector, codes = options.get("vector_column", VECTOR_COLUMN), options.get("codes_column", CODES_COLUMN)
        with _host_errors(collection):
            if client.has_collection(collection):
                raise HostError(f"{_place(collection)} is there already; open it with MilvusRows(...)")
            if index_type is None:
                index_type = "FLAT" if "lite" in client.get_server_version() else "HNSW"
            schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
            length = {"max_length": _ID_LENGTH} if id_type == "VARCHAR" else {}
            schema.add_field(options.get("id_column", "id"), DataType[id_type], is_primary=True, **length)
            schema.add_field(vector, DataType.FLOAT_VECTOR, dim=coder.row_dim)
            schema.add_field(codes, DataType.VARCHAR, max_length=_LONGEST, nullable=True)
            index = client.prepare_index_params()
            index.add_index(vector, index_type=index_type, metric_type="IP", params=dict(index_params or {}))
            client.create_collection(collection, schema=schema, index_params=index, consistency_level=_STRONG)
        return cls(coder, client, collection, **options)

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return _place(self.collection)

    def _insert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            if known := self._known([row.id for row in rows]):
                raise InputError(f"{self.place} has the id {min(known, key=str)!r}; use upsert to write over it")
            entities = [self._entity(row) for row in rows]
            with self._asking():
                self.client.insert(self.collection, entities, **self._options)

    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            self._update([self._entity(row) for row in rows])

    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            lacking = self._select([row.id for row in rows], f"{self.codes_column} is null", [])
            ids = {row[self.id_column] for row in lacking}
            self._update([self._entity(row) for row in rows if row.id in ids])

    def _entity(self, row: CodedRow) -> dict[str, Any]:
        self._check_id(row.id)
        codes = codes_to_text(row.codes)
        if len(codes) > _LONGEST:
            n_tokens = self.coder.read_header(row.codes, row.id).n_tokens
            raise InputError(
                f"row {row.id!r}: the codes of its {n_tokens:,} tokens are {len(codes):,} characters, and a VARCHAR of "
                f"Milvus holds {_LONGEST:,}; divide the document"
            )
        vector = np.asarray(row.row_vector, np.float32).tolist()
        return {**row.columns, self.id_column: row.id, self.vector_column: vector, self.codes_column: codes}

    def _update(self, entities: list[dict[str, Any]]) -> None:
        if entities:
            with self._asking():
                self.client.upsert(self.collection, entities, partial_update=True, **self._options)

    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        return {row[self.id_column] for row in self._select(ids, None, [])}

    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        with self._guard:
            known = self._known(ids)  # Milvus answers with all ids that were given
            if known:
                with self._asking():
                    self.client.delete(self.collection, filter=self._among(known), **self._options)
            return len(known)

    def _delete_where(self, where: str) -> int:
        with self._guard:
            n_rows = self._count(where)
            with self._asking():
                self.client.delete(self.collection, filter=_expression(where), **self._options)
            return n_rows

    def _nearest(self, vector: np.ndarray, n: int, where: str | None, exact: bool) -> list[FoundRow]:
        if exact and not self._is_flat:
            return self._compared(vector, n, where)
        with self._asking():
            found = self.client.search(
                self.collection,
                data=[vector.tolist()],
                anns_field=self.vector_column,
                filter=_expression(where),
                limit=n,
                output_fields=self._asked([self.codes_column], self.with_text),
                search_params={"metric_type": "IP", "params": {} if self._is_flat else {"ef": max(2 * n, _LEAST_EF)}},
                consistency_level=_STRONG,
                **self._options,
            )
        rows = [
            self._found({**hit["entity"], self.id_column: hit[self.id_column]}, float(hit["distance"]))
            for hit in found[0]
        ]
        return sorted(rows, key=lambda row: (-row.score, row.id))

    def _compared(self, vector: np.ndarray, n: int, where: str | None) -> list[FoundRow]:
        """The nearest rows by all vectors, which are read."""
        batches = self._batches(_AT_ONCE, _expression(where), [self.vector_column])
        best = nearest_of(
            (([row[self.id_column] for row in rows], [row[self.vector_column] for row in rows]) for rows in batches),
            vector,
            n,
        )
        return [row._replace(score=best[row.id]) for row in self._read(list(best))]

    def _uncoded(self, n: int, where: str | None, after: RowId | None) -> list[FoundRow]:
        rows = self._first(n, self._lacking(where), after, self._asked([], True))
        return [self._found(row, np.nan, with_text=True) for row in rows]

    def _count(self, where: str | None) -> int:
        with self._asking():
            counted: Any = self.client.query(
                self.collection,
                filter=_expression(where),
                output_fields=["count(*)"],
                consistency_level=_STRONG,
                **self._options,
            )
            return int(counted[0]["count(*)"])

    def _count_uncoded(self, where: str | None) -> int:
        return self._count(self._lacking(where))

    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        rows = self._select(ids, None, self._asked([self.codes_column], True))
        found = {row[self.id_column]: self._found(row, np.nan, with_text=True) for row in rows}
        return [found[row_id] for row_id in ids if row_id in found]

    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        names = list(dict.fromkeys((*self.text_columns, *self.fields)))
        asked = [self.vector_column, self.codes_column, *names]
        scanned = []
        for row in self._first(n, f"{self.codes_column} is not null", after, asked):
            row_id, vector = row[self.id_column], np.asarray(row[self.vector_column], np.float32)
            codes = codes_from_text(row.get(self.codes_column), row_id)
            scanned.append(CodedRow(row_id, vector, codes or b"", {name: row.get(name) for name in names}))
        return scanned

    # What is asked, and how

    def _check_fields(self) -> DataType:
        """The type of the ids; the other fields are of the right kind."""
        with self._asking():
            if not self.client.has_collection(self.collection, **self._options):
                raise HostError(f"{self.place} is not there; MilvusRows.create makes it")
            described: Any = self.client.describe_collection(self.collection, **self._options)
        fields = {one["name"]: one for one in described["fields"]}
        for name in (self.id_column, self.vector_column, self.codes_column):
            if name not in fields:
                raise HostError(
                    f"{self.place} has no field {name!r}, only {sorted(fields)}; the description of MilvusRows.create "
                    "says which fields it needs"
                )
        own, vector, codes = (fields[name] for name in (self.id_column, self.vector_column, self.codes_column))
        if not own.get("is_primary") or described.get("auto_id"):
            raise InputError(f"{self.place}: {self.id_column!r} is not a primary key that the application gives")
        if vector["type"] != DataType.FLOAT_VECTOR or int(vector["params"]["dim"]) != self.coder.row_dim:
            raise InputError(
                f"{self.place}: {self.vector_column!r} is {DataType(vector['type']).name} {vector['params']}; row "
                f"vectors of this coder are FLOAT_VECTOR of {self.coder.row_dim} dimensions"
            )
        if codes["type"] != DataType.VARCHAR:
            raise InputError(f"{self.place}: {self.codes_column!r} is {DataType(codes['type']).name}, not VARCHAR")
        return DataType(own["type"])

    def _check_index(self) -> str:
        with self._asking():
            index: Any = self.client.describe_index(self.collection, self.vector_column, **self._options)
        if not index:
            raise HostError(f"{self.place}: {self.vector_column!r} has no index; create_index makes one (metric IP)")
        if index.get("metric_type") != "IP":
            raise InputError(
                f"{self.place}: the index of {self.vector_column!r} has the metric {index.get('metric_type')!r}; row "
                "vectors are compared by IP"
            )
        return str(index.get("index_type"))

    def _check_id(self, row_id: RowId) -> None:
        wanted = int if self._id_type == DataType.INT64 else str
        if not isinstance(row_id, wanted):
            raise InputError(f"{self.place}: ids are {self._id_type.name}, and {row_id!r} is {type(row_id).__name__}")

    def _among(self, ids: Sequence[RowId] | set[RowId]) -> str:
        for row_id in ids:
            self._check_id(row_id)
        return f"{self.id_column} in {json.dumps(list(ids), ensure_ascii=False)}"

    def _lacking(self, where: str | None) -> str:
        return _both(f"{self.codes_column} is null", where)

    def _asked(self, names: Sequence[str], with_text: bool) -> list[str]:
        return list(dict.fromkeys([*names, *self.fields, *(self.text_columns if with_text else ())]))

    def _select(self, ids: Sequence[RowId], where: str | None, fields: Sequence[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        with self._asking():
            found: Any = self.client.query(
                self.collection,
                filter=_both(self._among(ids), where),
                output_fields=[self.id_column, *fields],
                consistency_level=_STRONG,
                **self._options,
            )
        return found

    def _first(self, n: int, where: str, after: RowId | None, fields: Sequence[str]) -> list[dict[str, Any]]:
        """The first ``n`` rows by their ids."""
        later = None if after is None else f"{self.id_column} > {json.dumps(after, ensure_ascii=False)}"
        return next(self._batches(n, _both(where, later), fields), [])

    def _batches(self, n: int, expression: str, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """All rows, ``n`` at a time, in the order of ids, which only an iterator keeps."""
        with self._asking():
            rows = self.client.query_iterator(
                self.collection,
                batch_size=n,
                filter=expression,
                output_fields=[self.id_column, *fields],
                consistency_level=_STRONG,
                **self._options,
            )
        try:
            while True:
                with self._asking():
                    batch = rows.next()
                if not batch:
                    return
                yield batch
        finally:
            rows.close()

    def _found(self, row: Mapping[str, Any], score: float, *, with_text: bool = False) -> FoundRow:
        row_id = row[self.id_column]
        text = joined(map(row.get, self.text_columns)) if with_text or self.with_text else None
        codes = codes_from_text(row.get(self.codes_column), row_id)
        return FoundRow(row_id, codes, score, text, {name: row.get(name) for name in self.fields})

    def _asking(self) -> contextlib.AbstractContextManager[None]:
        return _host_errors(self.collection)


@contextlib.contextmanager
def _host_errors(collection: str) -> Iterator[None]:
    try:
        yield
    except (HostError, InputError):
        raise
    except _REFUSALS as error:
        raise HostError(f"{_place(collection)}: {getattr(error, 'message', '') or error}") from error


def _place(collection: str) -> str:
    return f"Milvus's collection {collection!r}"


def _expression(where: str | None) -> str:
    if where is not None and (not isinstance(where, str) or not where.strip()):
        raise InputError(f"where is {where!r:.60}; give an expression of Milvus's, such as 'year < 1000'")
    return where or ""


def _both(first: str, second: str | None) -> str:
    return first if second is None else f"({first}) and ({_expression(second)})"

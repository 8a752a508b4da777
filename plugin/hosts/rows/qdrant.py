"""Row vectors and codes in a Qdrant collection: one named vector, and the codes in the payload.

```python
from qdrant_client import QdrantClient, models
from tansaku import Coder
from tansaku.plugin.hosts.rows.qdrant import QdrantRows
store = QdrantRows.create(Coder(), QdrantClient("http://localhost:6333"), "docs", indexes={"year": "integer"})
store.add([{"id": "kyoto", "text": "京都は794年から都だった。", "year": 794}])
hits = store.search("昔の首都はどこ？", where={"must": [{"key": "year", "range": {"lt": 1000}}]})
```
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from ....onnx_export.errors import InputError, MissingExtraError
from ....onnx_export.kinds import check_whole
from ...rerank.host_search import HostError
from ...rows.coder import Coder
from ...rows.columns import joined
from ...rows.row_search import FoundRow, RowId
from ...rows.row_store import CodedRow, RowStore
from ..qdrant import as_filter, payload_value
from ._codes_text import check_codec, codes_from_text, codes_to_text

try:
    import grpc
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException
except ImportError as error:
    raise MissingExtraError("qdrant-client", "qdrant") from error

__all__ = ["QdrantRows"]

Rows = TypeVar("Rows", bound="QdrantRows")

VECTOR_COLUMN = "tansaku_vector"
_UNNAMED = ""  # Qdrant's own name of a vector without one
_EF_PER_ROW, _LEAST_EF = 4, 128
_ROWS_COMPARED = 20_000  # of a segment, without its index
_PATH_SIGNS = '.[]"'
# A local client raises ValueError, RuntimeError where it is closed, and OSError of its files.
_REFUSALS = (ApiException, QdrantException, grpc.RpcError, ValueError, RuntimeError, OSError)


class QdrantRows(RowStore["models.Filter | Mapping[str, Any]"]):
    """Documents in a collection of Qdrant: points with the row vector as a named vector, and codes in the payload.

    A filter (``where``) is a `models.Filter`, also as the dict that the HTTP API takes. Columns are fields of the
    payload. ``text_columns`` and ``fields`` may lie in others ("metadata.text") where rows are read. A point without
    codes or without the row vector is a row without codes.

    Ids: a whole number from 0 and a UUID in its usual form are the ids of points. Of any other string, a UUID is made
    (version 5, in the namespace of URLs), and the string is kept in the payload's field ``id_column``.

    Writing reads the points that are there, adds what is new to them, and writes each whole point at once: no crash
    parts vector from codes, and other fields and vectors of a point stay. Who changes other fields of the same points
    at the same moment, by another client, may lose that change. A crash may leave the rest of a batch unwritten.

    May be used from several threads. Its awaitable methods run in threads; an asynchronous client is refused.

    Args:
        coder: makes row vectors and codes, and ranks by them.
        client: a client of the server, or of a local folder, not an asynchronous one.
        collection: name of the collection.
        hnsw_ef: width of a search in Qdrant's index; None: four times the rows that are asked for. A wider one misses
            fewer rows, and takes longer.
        timeout: seconds that a request may take.
        options: options of `RowStore`.

    Raises:
        InputError: the collection's vector has another length or distance, or an asynchronous client.
        HostError: the server cannot be reached, or it has no such collection, or the collection no such vector.
        CodesError: the collection has codes of another codec or model.
    """

    def __init__(
        self,
        coder: Coder,
        client: QdrantClient,
        collection: str,
        *,
        hnsw_ef: int | None = None,
        timeout: float = 30.0,
        **options: Any,
    ) -> None:
        super().__init__(coder, **options)
        self.client, self.collection = client, collection
        self.hnsw_ef = None if hnsw_ef is None else check_whole("hnsw_ef", hnsw_ef)
        self._timeout = math.ceil(timeout)
        self._guard = threading.Lock()
        given = client.init_options
        # The local mode compares all vectors, has no indexes, and warns where it is asked for more.
        self._is_local = given.get("location") == ":memory:" or given.get("path") is not None
        self._check_vectors(_vectors(client, collection))
        check_codec(self)

    @classmethod
    def create(
        cls,
        coder: Coder,
        client: QdrantClient,
        collection: str,
        *,
        float16: bool = True,
        hnsw_config: models.HnswConfigDiff | None = None,
        indexes: Mapping[str, str] | None = None,
        **options: Any,
    ) -> QdrantRows:
        """Make a collection and open it.

        Args:
            coder: see the class.
            client: see the class.
            collection: see the class.
            float16: keep row vectors in half precision, in half of the memory.
            hnsw_config: settings of Qdrant's index, such as ``models.HnswConfigDiff(m=32)``. What is not set is
                Qdrant's own, but for ``full_scan_threshold``: up to 20,000 row vectors of a segment are compared
                without the index.
            indexes: fields of the payload that filters name, and their kinds ("keyword", "integer", ...): with an index
                of the payload, Qdrant's HNSW finds rows under a filter.
            options: options of the class.

        Raises:
            InputError: see the class.
            HostError: see the class; or there is such a collection already.
        """
        name = options.get("vector_column", VECTOR_COLUMN)
        vector = models.VectorParams(**vector_of(coder.row_dim, float16), hnsw_config=index_of(coder, hnsw_config))
        with host_errors(collection):
            client.create_collection(collection, {name: vector})
        return cls(coder, client, collection, **options)._with_indexes(indexes)

    @classmethod
    def adopt(
        cls,
        coder: Coder,
        client: QdrantClient,
        collection: str,
        *,
        float16: bool = True,
        indexes: Mapping[str, str] | None = None,
        **options: Any,
    ) -> QdrantRows:
        """Add the row vector to a collection that there is, if it lacks it, and open it.

        Its points and their other vectors and fields stay as they are; `fill` encodes the points.

        Args:
            coder: see the class.
            client: see the class.
            collection: see the class.
            float16: see `create`.
            indexes: see `create`.
            options: options of the class.

        Raises:
            InputError: see the class.
            HostError: see the class; or the server is older than 1.18, and cannot add a vector to a collection.
            CodesError: see the class.
        """
        name = options.get("vector_column", VECTOR_COLUMN)
        if name not in _vectors(client, collection):
            added = models.DenseVectorNameConfig(dense=models.DenseVectorConfig(**vector_of(coder.row_dim, float16)))
            try:
                with host_errors(collection):
                    client.create_vector_name(collection, name, added)
            except HostError as error:
                raise HostError(
                    f"{error}. A server before version 1.18 adds no vector to a collection: make a new one with your "
                    f"vectors and {name!r} (size {coder.row_dim}, distance Dot), and move the points there"
                ) from error
        return cls(coder, client, collection, **options)._with_indexes(indexes)

    def _with_indexes(self: Rows, indexes: Mapping[str, str] | None) -> Rows:
        # Of codes this index keeps only whether there are any: without it, each count reads all payloads.
        own = {} if self._is_local else {self.codes_column: "bool"}
        for field, schema in {**own, **(indexes or {})}.items():
            try:
                kind = models.PayloadSchemaType(schema)
            except ValueError as error:
                kinds = ", ".join(one.value for one in models.PayloadSchemaType)
                raise InputError(f"indexes: {field!r} is {schema!r}; give one of {kinds}") from error
            with host_errors(self.collection):
                self.client.create_payload_index(self.collection, field, kind, wait=True)
        return self

    @property
    def place(self) -> str:
        """See `RowStore`."""
        return _place(self.collection)

    def _insert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            self._refuse_known(self._known([row.id for row in rows]))
            self._write_points([self._point(row, None) for row in rows], mode=models.UpdateMode.INSERT_ONLY)
            written = {row.id: row.codes for row in self._read([row.id for row in rows])}
            self._refuse_known({row.id for row in rows if written.get(row.id) != row.codes})

    def _refuse_known(self, ids: set[RowId]) -> None:
        if ids:
            raise InputError(f"{self.place} has the id {min(ids, key=str)!r}; use upsert to write over it")

    def _upsert(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            known = self._points([row.id for row in rows])
            self._write_points([self._point(row, known.get(self._point_id(row.id))) for row in rows])

    def _fill_codes(self, rows: Sequence[CodedRow]) -> None:
        with self._guard:
            known = self._points([row.id for row in rows])
            there = [row for row in rows if self._point_id(row.id) in known]
            self._write_points(
                [self._point(row, known[self._point_id(row.id)]) for row in there],
                mode=models.UpdateMode.UPDATE_ONLY,
                only=self._without_codes(None),
            )

    def _point(self, row: CodedRow, before: models.Record | None) -> models.PointStruct:
        """A whole point: what is there, and what is written over it."""
        for name in row.columns:
            if any(sign in name for sign in _PATH_SIGNS):
                raise InputError(
                    f"row {row.id!r}: the name {name!r} is a path to Qdrant; give a mapping that has what lies in it"
                )
        point_id = self._point_id(row.id)
        payload = {**((before and before.payload) or {}), **row.columns, self.codes_column: codes_to_text(row.codes)}
        if point_id != row.id:
            payload[self.id_column] = row.id
        vectors: Any = (before and before.vector) or {}
        vectors = dict(vectors) if isinstance(vectors, Mapping) else {_UNNAMED: vectors}
        return models.PointStruct(
            id=point_id, vector={**vectors, self.vector_column: row.row_vector.tolist()}, payload=payload
        )

    def _write_points(
        self,
        points: list[models.PointStruct],
        mode: models.UpdateMode | None = None,
        only: models.Filter | None = None,
    ) -> None:
        if points:
            with self._asking():
                self.client.upsert(
                    self.collection, points, wait=True, update_filter=only, update_mode=mode, timeout=self._timeout
                )

    def _known(self, ids: Sequence[RowId]) -> set[RowId]:
        found = {str(point.id) for point in self._retrieve(ids, False, False)}
        return {row_id for row_id in ids if str(self._point_id(row_id)) in found}

    def _delete_ids(self, ids: Sequence[RowId]) -> int:
        with self._guard:
            known: list[Any] = [self._point_id(row_id) for row_id in self._known(ids)]
            if known:
                with self._asking():
                    self.client.delete(self.collection, models.PointIdsList(points=known), wait=True)
            return len(known)

    def _delete_where(self, where: models.Filter | Mapping[str, Any]) -> int:
        with self._guard:
            n_rows = self._count(where)
            selector = models.FilterSelector(filter=as_filter(where))
            with self._asking():
                self.client.delete(self.collection, selector, wait=True)
            return n_rows

    def _nearest(
        self, vector: np.ndarray, n: int, where: models.Filter | Mapping[str, Any] | None, exact: bool
    ) -> list[FoundRow]:
        with self._asking(where) as chosen:
            found = self.client.query_points(
                self.collection,
                query=vector.tolist(),
                using=self.vector_column,
                limit=n,
                query_filter=chosen,
                with_payload=self._asked([self.codes_column], self.with_text),
                search_params=self._params(n, exact),
                timeout=self._timeout,
            )
        rows = [self._found(point, point.score) for point in found.points]
        return sorted(rows, key=lambda row: (-row.score, str(row.id)))

    def _uncoded(self, n: int, where: models.Filter | Mapping[str, Any] | None, after: RowId | None) -> list[FoundRow]:
        points = self._scroll(n, self._without_codes(where), after, self._asked([], True), False)
        return [self._found(point, np.nan, with_text=True)._replace(codes=None) for point in points]

    def _count(self, where: models.Filter | Mapping[str, Any] | None) -> int:
        with self._asking(where) as chosen:
            return self.client.count(self.collection, chosen, exact=True, timeout=self._timeout).count

    def _count_uncoded(self, where: models.Filter | Mapping[str, Any] | None) -> int:
        return self._count(self._without_codes(where))

    def _read(self, ids: Sequence[RowId]) -> list[FoundRow]:
        points = self._retrieve(ids, self._asked([self.codes_column], True), [self.vector_column])
        rows = {}
        for point in points:
            has_vector = isinstance(point.vector, Mapping) and self.vector_column in point.vector
            row = self._found(point, np.nan, with_text=True)
            rows[str(point.id)] = row if has_vector else row._replace(codes=None)
        return [rows[point_id] for point_id in (str(self._point_id(row_id)) for row_id in ids) if point_id in rows]

    def _scan(self, n: int, after: RowId | None) -> list[CodedRow]:
        names = dict.fromkeys((*self.text_columns, *self.fields))
        asked = self._asked([self.codes_column, *names], False)
        found = []
        for point in self._scroll(n, self._with_codes(), after, asked, [self.vector_column]):
            row, payload = self._found(point, np.nan), point.payload or {}
            vectors: Any = point.vector
            columns = {name: payload_value(payload, name) for name in names}
            found.append(
                CodedRow(row.id, np.asarray(vectors[self.vector_column], np.float32), row.codes or b"", columns)
            )
        return found

    # What is asked, and how

    def _params(self, n: int, exact: bool) -> models.SearchParams | None:
        """How the ``n`` nearest row vectors are looked for."""
        width = self.hnsw_ef or max(_EF_PER_ROW * n, _LEAST_EF)
        return None if self._is_local else models.SearchParams(hnsw_ef=width, exact=exact)

    def _check_vectors(self, found: Mapping[str, models.VectorParams]) -> None:
        if self.vector_column not in found:
            raise HostError(
                f"{self.place} has no vector {self.vector_column!r}, only {sorted(found)}; QdrantRows.adopt adds it"
            )
        self._check_vector(found[self.vector_column])

    def _check_vector(self, vector: models.VectorParams) -> None:
        name = f"{self.place}: the vector {self.vector_column!r}"
        if vector.size != self.coder.row_dim:
            raise InputError(
                f"{name} has {vector.size} dimensions, and row vectors of this coder have {self.coder.row_dim}; name "
                "another vector_column, or give the coder of the rows"
            )
        if vector.distance != models.Distance.DOT or vector.multivector_config is not None:
            many = " of many vectors" if vector.multivector_config is not None else ""
            raise InputError(
                f"{name} has the distance {vector.distance}{many}; row vectors are compared by Dot: name another "
                "vector_column"
            )

    def _without_codes(self, where: models.Filter | Mapping[str, Any] | None) -> models.Filter:
        lacking: list[Any] = [self._no_codes(), *(models.Filter(must_not=[has]) for has in self._has_vectors())]
        return models.Filter(should=lacking, must=None if where is None else [as_filter(where)])

    def _with_codes(self, where: models.Filter | None = None) -> models.Filter:
        must = [*self._has_vectors(), *([] if where is None else [where])]
        return models.Filter(must=must, must_not=[self._no_codes()])

    def _has_vectors(self) -> list[Any]:
        return [models.HasVectorCondition(has_vector=self.vector_column)]

    def _no_codes(self) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=self.codes_column))

    def _asked(self, names: Sequence[str], with_text: bool) -> list[str]:
        text = self.text_columns if with_text else ()
        return list(dict.fromkeys([self.id_column, *names, *self.fields, *text]))

    def _points(self, ids: Sequence[RowId]) -> dict[int | str, models.Record]:
        """Whole points, by their ids."""
        points = {str(point.id): point for point in self._retrieve(ids, True, True)}
        point_ids = map(self._point_id, ids)
        return {point_id: points[str(point_id)] for point_id in point_ids if str(point_id) in points}

    def _retrieve(self, ids: Sequence[RowId], with_payload: Any, with_vectors: Any) -> list[models.Record]:
        point_ids = [self._point_id(row_id) for row_id in ids]
        with self._asking():
            return self.client.retrieve(
                self.collection, point_ids, with_payload=with_payload, with_vectors=with_vectors, timeout=self._timeout
            )

    def _scroll(
        self, n: int, chosen: models.Filter, after: RowId | None, with_payload: Any, with_vectors: Any
    ) -> list[models.Record]:
        """The first ``n`` points in the order of Qdrant's ids, after the point of the row ``after``."""
        offset = None if after is None else self._point_id(after)
        with self._asking():
            points, _ = self.client.scroll(
                self.collection,
                chosen,
                limit=n + 1,
                offset=offset,
                with_payload=with_payload,
                with_vectors=with_vectors,
                timeout=self._timeout,
            )
        return [point for point in points if str(point.id) != str(offset)][:n]

    def _found(self, point: Any, score: float, *, with_text: bool = False) -> FoundRow:
        payload = point.payload or {}
        row_id: RowId = point.id if isinstance(point.id, int) else str(point.id)
        own = payload.get(self.id_column)
        if isinstance(own, str) and own != row_id and self._point_id(own) == row_id:
            row_id = own
        text = None
        if with_text or self.with_text:
            text = joined(payload_value(payload, name) for name in self.text_columns)
        codes = codes_from_text(payload.get(self.codes_column), row_id)
        return FoundRow(row_id, codes, score, text, {name: payload_value(payload, name) for name in self.fields})

    def _point_id(self, row_id: RowId) -> int | str:
        """The id of a row's point."""
        if isinstance(row_id, int):
            if not 0 <= row_id < 2**64:
                raise InputError(f"{self.place}: the id {row_id} is not from 0 to 2**64 - 1; give it as a string")
            return row_id
        with contextlib.suppress(ValueError):
            if str(UUID(row_id)) == row_id:
                return row_id
        try:
            return str(uuid5(NAMESPACE_URL, row_id))
        except UnicodeEncodeError as error:
            raise InputError(f"the id {row_id!r:.60} has half of a character (a lone surrogate)") from error

    @contextlib.contextmanager
    def _asking(self, where: models.Filter | Mapping[str, Any] | None = None) -> Iterator[models.Filter | None]:
        """The filter; and what the client raises as HostError."""
        chosen = None if where is None else as_filter(where)
        with host_errors(self.collection):
            yield chosen


@contextlib.contextmanager
def host_errors(collection: str) -> Iterator[None]:
    """What the client raises, as HostError.

    Args:
        collection: name of the collection.
    """
    try:
        yield
    except _REFUSALS as error:
        raise HostError(f"{_place(collection)}: {error}") from error


def _place(collection: str) -> str:
    return f"Qdrant's collection {collection!r}"


def vector_of(size: int, float16: bool) -> dict[str, Any]:
    """Settings of a vector that is compared by inner product.

    Args:
        size: its length.
        float16: half precision.
    """
    kind = models.Datatype.FLOAT16 if float16 else models.Datatype.FLOAT32
    return {"size": size, "distance": models.Distance.DOT, "datatype": kind}


def index_of(coder: Coder, given: models.HnswConfigDiff | None) -> models.HnswConfigDiff:
    """Settings of the index of row vectors.

    Args:
        coder: the coder.
        given: those that the application has set.
    """
    kilobytes = -(-_ROWS_COMPARED * coder.row_dim // 256)  # Qdrant counts 4 bytes for a number, whatever it keeps
    own = models.HnswConfigDiff(full_scan_threshold=kilobytes)
    return own if given is None else own.model_copy(update=given.model_dump(exclude_none=True))


def _vectors(client: QdrantClient, collection: str) -> dict[str, models.VectorParams]:
    """The vectors of a collection by name."""
    if isinstance(client, AsyncQdrantClient):
        raise InputError("client is an AsyncQdrantClient; give a QdrantClient, and await asearch and aadd")
    with host_errors(collection):
        if not client.collection_exists(collection):
            raise HostError(f"{_place(collection)} is not there; QdrantRows.create makes it")
        found = client.get_collection(collection).config.params.vectors
    return found if isinstance(found, dict) else {} if found is None else {_UNNAMED: found}
